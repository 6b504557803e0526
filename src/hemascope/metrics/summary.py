"""Mean and spread of one figure over repeated runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
