"""Acting on a network's uncertainty: temperature, prediction sets, abstaining.

Everything that is fitted here is fitted on val: the functions that fit take those predictions and
no others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics.calibration import ece, top_label
from hemascope.metrics.classification import accuracy, auroc, confusion_of, cross_entropy

Floats = NDArray[np.float64]
Score = Literal["lac", "aps", "raps"]
SCORES: tuple[Score, ...] = get_args(Score)
COVERAGES = (0.95, 0.99)  # of prediction sets, unless told
WANTED_ACCURACY = 0.995  # of what is not abstained from, unless told

_LOG_TEMPERATURES = (-3.0, 3.0)
_RAPS_WEIGHT, _RAPS_RANK = 0.01, 2  # of RAPS: what each class beyond the second costs


def fit_temperature(val: Predictions) -> float:
    """The temperature by which logits are divided so that val's NLL is lowest.

    It changes no predicted class, only the network's confidence. Where val has no errors,
    nothing can be fitted, and it is 1.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    from scipy.optimize import minimize_scalar

    if (val.predicted == val.labels).all():
        return 1.0

    def nll(log_temperature: float) -> float:
        scaled = val.scaled(float(np.exp(log_temperature)))
        return float(-scaled.log_probs[np.arange(len(val.labels)), val.labels].mean())

    found: Any = minimize_scalar(nll, bounds=_LOG_TEMPERATURES, method="bounded")  # scipy's stubs
    return float(np.exp(found.x))


@dataclass(frozen=True)
class ConformalRule:
    """Which classes go into the prediction set of an image.

    Attributes:
        score: How odd a class is for an image: "lac", "aps" or "raps".
        coverage: The share of images whose true class the set is to hold.
        thresholds: For each class, the oddness up to which it is in the set; all equal unless the
            rule is class-conditional. Infinite for a class of which val has too few images: nothing
            justifies leaving it out of a set, so it is in all of them.
        class_conditional: Whether the coverage holds within each class, and not only overall.
        ranks: For each class, which of the val images it was fitted on set the threshold, counted
            from the least odd; more than there are where the threshold is infinite.
        sizes: For each class, how many val images those were.
    """

    score: Score
    coverage: float
    thresholds: tuple[float, ...]
    class_conditional: bool
    ranks: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def is_fitted(self) -> NDArray[np.bool_]:
        """Which classes have a threshold from val, shape (C,)."""
        return np.isfinite(self.thresholds)

    def sets(self, predictions: Predictions) -> NDArray[np.bool_]:
        """Which classes are in the set of each image, shape (N, C); a set may be empty.

        An empty set says that no class is usual enough.
        """
        return _oddness(predictions, self.score, 0) <= np.array(self.thresholds)


def fit_conformal(
    val: Predictions, *, score: Score, coverage: float, class_conditional: bool = False
) -> ConformalRule:
    """Split-conformal prediction sets that hold the true class as often as asked.

    Images like val's are covered with at least that chance, whatever the network, if nothing of it
    was fitted to val. A temperature was, and sometimes the best epoch: one or two numbers, so that
    what is left is nearly that chance.

    Class-conditional sets need `fewest_images` of a class in val; a class with fewer is in every
    set.

    Raises:
        DataError: If val has too few images for the coverage, or too few of every class.

    Source: LAC, Sadinle et al., JASA 2019; APS, Romano et al., NeurIPS 2020 (with its random
    tie-breaking); RAPS, Angelopoulos et al., ICLR 2021; class-conditional, Vovk, 2012.
    """
    oddness = _oddness(val, score, seed=1)[np.arange(len(val.labels)), val.labels]
    groups = [np.sort(oddness)] * len(val.classes)
    if class_conditional:
        groups = [np.sort(oddness[val.labels == c]) for c in range(len(val.classes))]
    ranks = [int(np.ceil((len(group) + 1) * coverage - 1e-9)) for group in groups]
    rule = ConformalRule(
        score=score,
        coverage=coverage,
        thresholds=tuple(
            float(group[rank - 1]) if rank <= len(group) else float("inf")
            for group, rank in zip(groups, ranks, strict=True)
        ),
        class_conditional=class_conditional,
        ranks=tuple(ranks),
        sizes=tuple(map(len, groups)),
    )
    if not rule.is_fitted.any():
        whose = "of its largest class" if class_conditional else "in all"
        raise DataError(
            f"val has {max(rule.sizes)} images {whose}, too few for prediction sets with a "
            f"coverage of {coverage:g}; at least {fewest_images(coverage)} are needed: ask for "
            "less or give more images."
        )
    return rule


def fewest_images(coverage: float) -> int:
    """The fewest images on which prediction sets of a coverage can be fitted."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def _oddness(predictions: Predictions, score: Score, seed: int) -> Floats:
    """How odd each class is for each image, shape (N, C)."""
    probs = predictions.probs
    if score == "lac":
        return 1 - probs
    order = np.argsort(-probs, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    ordered = np.take_along_axis(probs, order, axis=1)
    up_to = np.take_along_axis(np.cumsum(ordered, axis=1), rank, axis=1)
    drawn = np.random.default_rng(seed).random((len(probs), 1))
    penalty = _RAPS_WEIGHT * np.maximum(rank + 1 - _RAPS_RANK, 0) if score == "raps" else 0
    return up_to - drawn * probs + penalty


@dataclass(frozen=True)
class RiskCoverage:
    """The share of errors among the most confident predictions, as coverage grows.

    Attributes:
        coverage: 1/N, 2/N, ..., 1, shape (N,).
        risk: The share of errors among as many of the most confident predictions, shape (N,).
    """

    coverage: Floats
    risk: Floats

    @property
    def area(self) -> float:
        """The mean risk over all coverages (AURC): lower is better.

        Source: Geifman & El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017.
        """
        return float(self.risk.mean())

    def accuracy_at(self, coverage: float) -> float:
        """The accuracy on the most confident images that make up this share."""
        return 1 - float(self.risk[max(int(np.ceil(coverage * len(self.risk))), 1) - 1])


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> RiskCoverage:
    """The effect of abstaining on the least confident images, both of shape (N,)."""
    _, block, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(block, weights=~right)  # those of a block come in no order: spread evenly
    answered = np.arange(1, len(confidence) + 1)
    return RiskCoverage(
        answered / len(confidence), np.cumsum(np.repeat(errors / sizes, sizes)) / answered
    )


def abstain_below(val: Predictions, *, accuracy: float) -> float:
    """The confidence below which to abstain, so that the accuracy on the rest is as wanted on val.

    Of all such thresholds, the one that answers most images.

    Raises:
        DataError: If not even the most confident images of val reach that accuracy.
    """
    confidence = val.probs.max(axis=1)
    curve = risk_coverage(confidence, val.predicted == val.labels)
    ordered = np.sort(confidence)[::-1]
    last_of_ties = np.append(ordered[1:] < ordered[:-1], True)
    enough = np.flatnonzero((1 - curve.risk >= accuracy) & last_of_ties)
    if not len(enough):
        raise DataError(
            f"on val no share of the images is answered with an accuracy of {accuracy:g}; ask for "
            "less."
        )
    return float(ordered[enough[-1]])


def together(log_probs: Floats) -> NDArray[np.float32]:
    """The logarithm of the mean probabilities of several answers, (S, N, C) to (N, C)."""
    return (np.logaddexp.reduce(log_probs, axis=0) - np.log(len(log_probs))).astype(np.float32)


def entropy(log_probs: Floats) -> Floats:
    """The entropy of distributions over the last axis in nats, (..., C) to (...)."""
    return -(np.exp(log_probs) * log_probs).sum(axis=-1)


def mutual_information(log_probs: Floats) -> Floats:
    """How far several answers (S, N, C) disagree, in nats, shape (N,), at least 0.

    The entropy of the mean less the mean entropy: what is left of a network's uncertainty when that
    of each answer by itself is taken away.

    Source: BALD, Houlsby et al., arXiv 1112.5745.
    """
    mean = together(log_probs).astype(np.float64)
    return np.maximum(entropy(mean) - entropy(log_probs).mean(axis=0), 0)


def covered(
    sets: NDArray[np.bool_], labels: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each image's set holds its true class, shape (N,)."""
    return sets[np.arange(len(sets)), labels]


@dataclass(frozen=True)
class Doubt:
    """How reliable the mean of several predictions is, and which uncertainty finds errors.

    Attributes:
        num_answers: The number of answers to each image.
        temperature: By which the logits of the mean were divided, fitted on val.
        accuracy: Of the mean, as the next three.
        nll: In nats.
        ece: The expected calibration error.
        aurc: The area under the risk-coverage curve.
        mean_entropy: The mean predictive entropy, in nats.
        mean_mutual_information: In nats; None for a single answer.
        finds_errors_confidence: The AUROC of telling errors from correct predictions by the
            confidence; None where there are none of one kind, as the next two.
        finds_errors_entropy: By the predictive entropy.
        finds_errors_mutual_information: By the mutual information; None for a single answer.
    """

    num_answers: int
    temperature: float
    accuracy: float
    nll: float
    ece: float
    aurc: float
    mean_entropy: float
    mean_mutual_information: float | None
    finds_errors_confidence: float | None
    finds_errors_entropy: float | None
    finds_errors_mutual_information: float | None


def judge(val: Sequence[Predictions], test: Sequence[Predictions]) -> tuple[Doubt, Predictions]:
    """The figures of several answers to the same images, and what they predict on test together.

    A temperature is fitted to the mean answer on val.
    """
    of_val, answers = (np.stack([one.log_probs for one in part]) for part in (val, test))
    on_val = replace(val[0], logits=together(of_val))
    on_test = replace(test[0], logits=together(answers))
    temperature = fit_temperature(on_val)
    on_test = on_test.scaled(temperature)
    confidence, right = top_label(on_test)
    entropies = entropy(on_test.log_probs)
    information = mutual_information(answers) if len(answers) > 1 else None

    def finds_errors(doubt: Floats) -> float | None:
        return auroc(doubt, ~right) if 0 < right.sum() < len(right) else None

    return Doubt(
        num_answers=len(answers),
        temperature=temperature,
        accuracy=float(accuracy(confusion_of(on_test))),
        nll=cross_entropy(on_test),
        ece=ece(on_test),
        aurc=risk_coverage(confidence, right).area,
        mean_entropy=float(entropies.mean()),
        mean_mutual_information=None if information is None else float(information.mean()),
        finds_errors_confidence=finds_errors(1 - confidence),
        finds_errors_entropy=finds_errors(entropies),
        finds_errors_mutual_information=None if information is None else finds_errors(information),
    ), on_test
