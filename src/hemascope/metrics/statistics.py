"""Uncertainty of figures: bootstrap intervals, paired tests, and correction for many of them.

Two sources of uncertainty are kept apart throughout. *Sampling* is which cells happened to be in
the test split: bootstrap and McNemar speak of it. *Seeds* is how training happened to go: the
standard deviation over runs speaks of it (`metrics.summary`), and only that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.core.predictions import Predictions
from hemascope.metrics import classification as cls

Floats = NDArray[np.float64]

_ROWS = 512  # images at a time
_TINY = 1e-300  # of a Beta distribution that is 0
_CELLS = 16_000_000  # numbers of a table of images and resampled sets that are worked on at once

# To add a figure with an interval: its row here; it takes confusion matrices (B, C, C).
_OF_CONFUSION = {
    "accuracy": cls.accuracy,
    "balanced_accuracy": cls.balanced_accuracy,
    "f1_macro": lambda confusion: cls.macro(cls.f1(confusion), confusion),
}
AUROC = "auroc_ovr_macro"
FIGURES = (*_OF_CONFUSION, AUROC)


@dataclass(frozen=True)
class Interval:
    """A figure and the interval that a bootstrap gives it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """Figures of one network, mean over its runs, on the test set and on B resampled ones.

    The difference of two networks' figures on the same sets is of this type too.

    Attributes:
        values: Each figure on the test set itself.
        samples: The same on every resampled set, shape (B,).
    """

    values: dict[str, float]
    samples: dict[str, Floats]

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(
            {name: value - other.values[name] for name, value in self.values.items()},
            {name: drawn - other.samples[name] for name, drawn in self.samples.items()},
        )

    def interval(self, figure: str) -> Interval:
        """The 95 % percentile interval of a figure.

        Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
        """
        value = self.values[figure]
        low, high = np.quantile(self.samples[figure], (0.025, 0.975))
        return Interval(value, min(float(low), value), max(float(high), value))


class Bootstrap:
    """Resampled test sets, stratified: every class keeps its number of images.

    All networks are evaluated on the same resampled sets, so that their differences are paired.

    Resampling cannot show what few images hide: two of two that are right are right in every set.
    So in accuracy and balanced accuracy each set holds a little of cells that were not seen, which
    a coin calls right or wrong: one cell in all, spread over the classes by what one cell of each
    weighs in balanced accuracy.

    Source: Ferguson, Annals of Statistics 1973, and Rubin, same 1981 (a Dirichlet process's
    posterior); Brodersen et al., ICPR 2010, give each class a cell or two of their own, which
    lowers the figures of many small classes.

    Args:
        labels: The true class of each image, shape (N,).
        num_classes: C.
        num_resamples: B.
        seed: Decides what is drawn.
        num_unseen: How many cells that were not seen, of all classes together.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        num_classes: int,
        *,
        num_resamples: int,
        seed: int = 0,
        num_unseen: float = 1,
    ) -> None:
        self._labels = labels
        self._num_classes = num_classes
        rng = np.random.default_rng(seed)
        self._coins = np.random.default_rng((seed, 1))
        # How often each resampled set holds each image, (N, B): never 256 times.
        self.counts = np.zeros((len(labels), num_resamples), dtype=np.uint8)
        sets = np.arange(num_resamples)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            own = np.zeros((len(members), num_resamples), dtype=np.uint8)
            for first in range(0, len(members), _ROWS):
                rows = min(_ROWS, len(members) - first)
                drawn = rng.integers(len(members), size=(rows, num_resamples))
                np.add.at(own, (drawn, sets), 1)
            self.counts[members] = own
        self._sizes = np.bincount(labels, minlength=num_classes)
        weights = np.divide(1, self._sizes, out=np.zeros(num_classes), where=self._sizes > 0)
        mass = np.maximum(num_unseen * weights / weights.sum(), _TINY)
        # How much of each class's recall is of cells that were not seen, (B, C).
        self._unseen = rng.beta(mass, np.maximum(self._sizes, 1), (num_resamples, num_classes))

    def __call__(self, runs: Sequence[Predictions]) -> Resampled:
        """The figures of a network: the mean over its runs, for each run on the same images.

        A class of a single image is the same in every set: its sensitivity does not vary. Where
        only one class occurs, there is no AUROC.
        """
        whole = [self.figures(run) for run in runs]
        drawn = [self._drawn_figures(run) for run in runs]
        samples = {name: np.mean([figures[name] for figures in drawn], axis=0) for name in drawn[0]}
        names = runs[0].classes.names
        seen = np.stack([samples[f"sensitivity:{name}"] for name in names], axis=1)
        coins = self._coins.integers(2, size=seen.shape)  # of each network, the same in its runs
        recall = seen + self._unseen * (coins - seen)
        samples["accuracy"] = recall @ self._sizes / len(self._labels)
        samples["balanced_accuracy"] = recall[:, self._sizes > 0].mean(axis=1)
        return Resampled(
            {name: float(np.mean([figures[name] for figures in whole])) for name in whole[0]},
            samples,
        )

    def figures(self, run: Predictions) -> dict[str, float]:
        """The figures of one run on the test set itself."""
        once = np.ones((len(self._labels), 1), dtype=np.float32)
        return {name: float(values[0]) for name, values in self._figures(run, once).items()}

    def _drawn_figures(self, run: Predictions) -> dict[str, Floats]:
        """The figures on each resampled set, (B,) each; so many sets at a time as memory allows."""
        num_resamples = self.counts.shape[1]
        step = max(1, _CELLS // len(self._labels))
        parts = [
            self._figures(run, self.counts[:, first : first + step].astype(np.float32))
            for first in range(0, num_resamples, step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _figures(self, predictions: Predictions, counts: NDArray[np.float32]) -> dict[str, Floats]:
        confusions = self._confusions(predictions.predicted, counts)
        figures: dict[str, Floats] = {
            name: figure(confusions) for name, figure in _OF_CONFUSION.items()
        }
        present = np.unique(self._labels)
        if len(present) > 1:
            aurocs = [
                _aurocs(predictions.probs[:, label], self._labels == label, counts)
                for label in present
            ]
            figures[AUROC] = np.mean(aurocs, axis=0)
        sensitivity, specificity = cls.recall(confusions), cls.specificity(confusions)
        for label, name in enumerate(predictions.classes.names):
            figures[f"sensitivity:{name}"] = sensitivity[:, label]
            figures[f"specificity:{name}"] = specificity[:, label]
        return figures

    def _confusions(
        self, predicted: NDArray[np.int64], counts: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """The confusion matrix of each resampled set, (B, C, C)."""
        size = self._num_classes
        cell = self._labels * size + predicted
        confusions = np.zeros((counts.shape[1], size * size), dtype=np.int64)
        for index in np.unique(cell):
            confusions[:, index] = counts[cell == index].sum(axis=0)
        return confusions.reshape(-1, size, size)


def _aurocs(scores: Floats, positive: NDArray[np.bool_], counts: NDArray[np.float32]) -> Floats:
    """The AUROC on each resampled set, (B,), as `classification.auroc_ovr` defines it.

    Only images whose scores lie where those of both kinds do need to be put in order: for a good
    classifier they are few.

    Args:
        scores: Shape (N,).
        positive: Which images are of the class, shape (N,); some are, some are not.
        counts: Shape (N, B); stratified, so that every set holds as many positives as there are.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    lowest, highest = scores[positive].min(), scores[~positive].max()
    contested = (scores >= lowest) & (scores <= highest)
    order = np.flatnonzero(contested)[np.argsort(scores[contested], kind="stable")]
    if not len(order):
        return np.ones(counts.shape[1])
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of tied scores
    drawn, is_positive = counts[order], positive[order, np.newaxis]
    above, below = drawn * is_positive, drawn * ~is_positive
    if len(starts) < len(order):
        above, below = (np.add.reduceat(part, starts, axis=0) for part in (above, below))
    beaten = np.cumsum(below, axis=0) - below / 2  # whole and half numbers: exact in float32
    beaten += num_negative - below.sum(axis=0)  # those below every positive
    won = np.einsum("nb,nb->b", above, beaten, dtype=np.float64)
    won += (num_positive - above.sum(axis=0)) * num_negative  # those above every negative
    return won / (num_positive * num_negative)


def wilson(share: float, num_images: int) -> tuple[float, float]:
    """The 95 % interval of a share counted on so many images, good near 0 and 1 as well.

    A bootstrap cannot see beyond 1 where every image is right, and is too narrow there.

    Source: Wilson, JASA 1927; Brown, Cai & DasGupta, Statistical Science 2001.
    """
    from scipy.stats import norm

    z = float(norm.isf(0.025))
    center = (share + z**2 / (2 * num_images)) / (1 + z**2 / num_images)
    spread = share * (1 - share) / num_images + z**2 / (4 * num_images**2)
    half = z * float(np.sqrt(spread)) / (1 + z**2 / num_images)
    return max(0.0, center - half), min(1.0, center + half)


def smallest_exact_p(num_differing: int) -> float:
    """The smallest p-value of an exact paired test on so many images that are judged differently.

    It is McNemar's where one of two networks is right on all of them: below 0.05 from six on.
    """
    return min(1.0, 2.0 ** (1 - num_differing))


def swap_p(differences: Floats, *, num_draws: int) -> float:
    """The two-sided p-value of "both are right alike", from each image's difference, (N,).

    The share of draws in which swapping the two networks' answers on random images gives a
    difference as large. Unlike the stratified bootstrap it does not take the mix of classes for a
    difference between networks that always name one class.

    Source: Fisher's randomization test; Good, Permutation Tests, 1994, chapter 3.
    """
    known = differences[differences != 0]
    sizes, counts = np.unique(np.abs(known), return_counts=True)
    kept = np.random.default_rng(0).binomial(counts, 0.5, (num_draws, len(counts)))
    as_large = np.abs((2 * kept - counts) @ sizes) >= abs(known.sum()) * (1 - 1e-9)
    least = smallest_exact_p(len(known))
    return max(float((as_large.sum() + 1) / (num_draws + 1)), least)


def smallest_p(num_resamples: int) -> float:
    """The smallest value that `bootstrap_p` can have."""
    return min(1.0, 2 / (num_resamples + 1))


def bootstrap_p(differences: Floats) -> float:
    """The two-sided p-value of "no difference", from a difference on B resampled sets, (B,).

    Twice the smaller share of sets on which the difference has one sign or is zero; with one added
    to count and total, so that it is never 0.

    Source: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 4.2.
    """
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(differences) + 1)))


@dataclass(frozen=True)
class McNemar:
    """Images that only one of two networks gets right, and the p-value of "both err alike"."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Predictions, second: Predictions) -> McNemar:
    """McNemar's exact test on the same images.

    Source: McNemar, Psychometrika 1947; Dietterich, Neural Computation 1998.
    """
    from scipy.stats import binomtest

    right = [p.predicted == p.labels for p in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    total = only_first + only_second
    p = float(binomtest(only_first, total).pvalue) if total else 1.0
    return McNemar(only_first, only_second, p)


def combined_p(values: Sequence[float]) -> float:
    """One p-value of several that test the same thing, however they depend: twice the median.

    Source: DiCiccio, DiCiccio & Romano, Exact tests via multiple data splitting, 2020.
    """
    return values[0] if len(values) == 1 else float(min(1.0, 2 * np.median(values)))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    ps = np.asarray(values, dtype=np.float64)
    order = np.argsort(ps, kind="stable")
    stepped = np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1))
    corrected = np.empty_like(ps)
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()
