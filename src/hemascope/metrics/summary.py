"""One figure over repeated runs, and the interval of one figure of a single test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.metrics import classification as cls
from hemascope.metrics.statistics import Interval, wilson

_NUM_RESAMPLES = 1000  # of macro F1


@dataclass(frozen=True)
class Spread:
    """A figure over n runs; `sd` is the sample standard deviation, None for a single run."""

    values: tuple[float, ...]
    mean: float
    sd: float | None
    minimum: float
    maximum: float

    @property
    def n(self) -> int:
        """The number of runs."""
        return len(self.values)


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation (n - 1) and range of at least one value."""
    array = np.asarray(values, dtype=np.float64)
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(
        tuple(array.tolist()), float(array.mean()), sd, float(array.min()), float(array.max())
    )


def difference_margin(share: float, n: int, other_n: int) -> float:
    """How far the same share, counted on two sets of images, may differ by chance (95 %).

    Source: normal approximation of the difference of two independent binomial shares.
    """
    return 1.96 * float(np.sqrt(share * (1 - share) * (1 / n + 1 / other_n)))


@dataclass(frozen=True)
class Estimate(Interval):
    """A share of n images with its 95 % interval."""

    n: int


def estimate(share: float, n: int) -> Estimate:
    """A share counted on n >= 1 images, with Wilson's interval."""
    low, high = wilson(share, n)
    return Estimate(share, low, high, n)


def macro_f1(confusion: cls.Confusion) -> Estimate:
    """Macro F1 of a confusion matrix (C, C), with its bootstrap interval.

    The rows are drawn anew from their own shares: the same as drawing images within each class.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    supports = confusion.sum(axis=1)
    shares = confusion / np.maximum(supports, 1)[:, np.newaxis]
    rng = np.random.default_rng(0)
    drawn = (rng.multinomial(supports, shares) for _ in range(_NUM_RESAMPLES))
    low, high = np.quantile([_macro_f1(matrix) for matrix in drawn], (0.025, 0.975))
    return Estimate(_macro_f1(confusion), float(low), float(high), int(supports.sum()))


def _macro_f1(confusion: cls.Confusion) -> float:
    return float(cls.macro(cls.f1(confusion), confusion))
