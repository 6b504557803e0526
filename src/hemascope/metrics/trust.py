"""How far one network's confidence can be trusted: fitted on val, tried on test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics.calibration import Calibration, calibration, top_label
from hemascope.metrics.uncertainty import (
    SCORES,
    ConformalRule,
    Doubt,
    Score,
    abstain_below,
    covered,
    fewest_images,
    fit_conformal,
    fit_temperature,
    risk_coverage,
)

_ANSWERED = (0.9, 0.95, 0.99, 1.0)  # shares of the images
Range = tuple[float, float]


@dataclass(frozen=True)
class ClassCoverage:
    """Prediction sets on the images of one class; `expected` as in `TriedSets`."""

    observed: float
    mean_size: float
    expected: Range | None


@dataclass(frozen=True)
class TriedSets:
    """A rule for prediction sets, fitted on val, and what it does on test.

    Attributes:
        score: As in `ConformalRule`, as the next five.
        coverage: The coverage asked for.
        thresholds: None for a class that is left out.
        class_conditional: Whether the coverage holds within each class.
        ranks: For each class.
        sizes: For each class.
        left_out: The classes of which val has too few images, with the reason. They are in every
            set, which claims nothing: their images, and they as members of a set, do not count
            below.
        num_images: How many images count.
        observed: The share of images whose set holds the true class.
        low: The lower end of its 95 % interval, after Clopper and Pearson.
        high: The upper end.
        expected: Where the observed share of so many images lies with a chance of 95 %; None for a
            class-conditional rule, which has it by class.
        mean_size: The mean number of classes in a set.
        share_empty: The share of sets without a class.
        share_single: The share of sets of one class.
        per_class: The same for the images of each class that test has.
    """

    score: Score
    coverage: float
    thresholds: tuple[float | None, ...]
    class_conditional: bool
    ranks: tuple[int, ...]
    sizes: tuple[int, ...]
    left_out: Mapping[str, str]
    num_images: int
    observed: float
    low: float
    high: float
    expected: Range | None
    mean_size: float
    share_empty: float
    share_single: float
    per_class: Mapping[str, ClassCoverage]


@dataclass(frozen=True)
class Threshold:
    """Abstaining below a confidence that was chosen on val, on test.

    `accuracy` is that on the images answered, None where none is.
    """

    threshold: float
    answered: float
    accuracy: float | None


@dataclass(frozen=True)
class Abstaining:
    """What abstaining from the least confident images brings.

    Attributes:
        aurc: The area under the risk-coverage curve.
        accuracy_at: The accuracy on the most confident images, by their share.
        wanted_accuracy: The accuracy asked for on the images answered.
        chosen_on_val: None where no share of val is answered that well.
    """

    aurc: float
    accuracy_at: Mapping[str, float]
    wanted_accuracy: float
    chosen_on_val: Threshold | None


@dataclass(frozen=True)
class RunTrust:
    """Calibration before and after scaling, prediction sets and abstaining of one run."""

    seed: int
    temperature: float
    before: Calibration
    after: Calibration
    sets: Sequence[TriedSets]
    abstaining: Abstaining


@dataclass(frozen=True)
class Trust:
    """How reliable the confidence of some networks is on the same images.

    Attributes:
        data: What the images are called.
        fitted_on: What those are called on which everything was fitted.
        num_val: The number of these.
        num_test: The number of images.
        warnings: What makes the figures say less than they seem to, in sentences.
        left_out: The prediction sets that could not be fitted, in sentences.
        networks: The runs of each network.
        ensembles: The runs of each network together, where there are several.
    """

    data: str
    fitted_on: str
    num_val: int
    num_test: int
    warnings: Sequence[str]
    left_out: Sequence[str]
    networks: Mapping[str, Sequence[RunTrust]]
    ensembles: Mapping[str, Doubt]


def assess(
    val: Predictions, test: Predictions, *, seed: int, coverages: Sequence[float], accuracy: float
) -> RunTrust:
    """Everything that can be fitted on `val`; `test` is only looked at with what came out.

    Args:
        val: The predictions to fit on.
        test: The predictions to try on.
        seed: Of the run.
        coverages: How often prediction sets are to hold the true class; those in `sets_left_out`
            are passed over.
        accuracy: The accuracy wanted on the images that are answered.
    """
    temperature = fit_temperature(val)
    raw, val, test = test, val.scaled(temperature), test.scaled(temperature)
    rules = [
        fit_conformal(val, score=score, coverage=coverage, class_conditional=class_conditional)
        for (coverage, class_conditional), reason in _why_not(val, test, coverages).items()
        if not reason
        for score in SCORES
    ]
    return RunTrust(
        seed=seed,
        temperature=temperature,
        before=calibration(raw),
        after=calibration(test),
        sets=[_try_sets(rule, test) for rule in rules],
        abstaining=_try_abstaining(val, test, accuracy),
    )


def sets_left_out(val: Predictions, test: Predictions, coverages: Sequence[float]) -> list[str]:
    """A sentence for each coverage for which there are no prediction sets, or none by class."""
    return [
        f"{'Class-conditional prediction' if class_conditional else 'Prediction'} sets of "
        f"{100 * coverage:g} % are left out: {reason}."
        for (coverage, class_conditional), reason in _why_not(val, test, coverages).items()
        if reason
    ]


def _why_not(
    val: Predictions, test: Predictions, coverages: Sequence[float]
) -> dict[tuple[float, bool], str]:
    """By coverage and whether it is class-conditional, why there are no sets; "" where there are.

    The labels alone decide, so all runs on the same images have the same sets.
    """
    counts = np.bincount(val.labels, minlength=len(val.classes))
    reasons: dict[tuple[float, bool], str] = {}
    for coverage, class_conditional in product(coverages, (False, True)):
        needed, reason = fewest_images(coverage), ""
        if not class_conditional and len(val.labels) < needed:
            reason = f"val has {len(val.labels):,} images, and {needed:,} are needed"
        elif class_conditional and counts.max() < needed:
            reason = f"no class has the {needed:,} images in val that are needed"
        elif class_conditional and not (counts[test.labels] >= needed).any():
            reason = f"test has no image of a class with {needed:,} images in val"
        reasons[coverage, class_conditional] = reason
    return reasons


def _try_sets(rule: ConformalRule, test: Predictions) -> TriedSets:
    from scipy.stats import binomtest

    fitted = rule.is_fitted
    counted = fitted[test.labels]
    labels = test.labels[counted]
    all_sets = rule.sets(test)[counted]
    holds, sizes = covered(all_sets, labels), all_sets[:, fitted].sum(axis=1)
    interval = binomtest(int(holds.sum()), len(holds)).proportion_ci()
    needed = fewest_images(rule.coverage)
    thresholds = [t if np.isfinite(t) else None for t in rule.thresholds]
    return TriedSets(
        score=rule.score,
        coverage=rule.coverage,
        thresholds=tuple(thresholds),
        class_conditional=rule.class_conditional,
        ranks=rule.ranks,
        sizes=rule.sizes,
        left_out={
            name: f"val has {size:,} images of it, and {needed:,} are needed"
            for name, size, known in zip(test.classes.names, rule.sizes, fitted, strict=True)
            if not known
        },
        num_images=len(holds),
        observed=float(holds.mean()),
        low=float(interval.low),
        high=float(interval.high),
        expected=None if rule.class_conditional else _expected(rule, 0, len(holds)),
        mean_size=float(sizes.mean()),
        share_empty=float((sizes == 0).mean()),
        share_single=float((sizes == 1).mean()),
        per_class={
            name: ClassCoverage(
                observed=float(holds[of_class].mean()),
                mean_size=float(sizes[of_class].mean()),
                expected=_expected(rule, label, int(of_class.sum()))
                if rule.class_conditional
                else None,
            )
            for label, name in enumerate(test.classes.names)
            if (of_class := labels == label).any()
        },
    )


def _expected(rule: ConformalRule, label: int, num_images: int) -> Range:
    """Where the observed coverage of so many images lies with a chance of 95 %.

    Source: the count covered is beta-binomial, Angelopoulos & Bates, A Gentle Introduction to
    Conformal Prediction, 2021, section 3.2.
    """
    from scipy.stats import betabinom

    rank, size = rule.ranks[label], rule.sizes[label]
    law = betabinom(num_images, rank, size + 1 - rank)
    return float(law.ppf(0.025)) / num_images, float(law.ppf(0.975)) / num_images


def _try_abstaining(val: Predictions, test: Predictions, accuracy: float) -> Abstaining:
    confidence, right = top_label(test)
    curve = risk_coverage(confidence, right)
    try:
        threshold = abstain_below(val, accuracy=accuracy)
    except DataError:  # no share of val is answered that well
        chosen = None
    else:
        answered = confidence >= threshold
        chosen = Threshold(
            threshold=threshold,
            answered=float(answered.mean()),
            accuracy=float(np.mean(right[answered])) if answered.any() else None,
        )
    return Abstaining(
        aurc=curve.area,
        accuracy_at={str(share): curve.accuracy_at(share) for share in _ANSWERED},
        wanted_accuracy=accuracy,
        chosen_on_val=chosen,
    )
