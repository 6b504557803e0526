"""Counts of cells as laboratories report them: exact intervals, and two readers compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEVEL = 0.95
_ROUNDING = 1e-12  # of a variance that is 0
_Z = 1.959964  # standard normal quantile of it, on both sides


def clopper_pearson(count: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, from 0 to 1, of `count` in `total`; all of it for none.

    Source: Clopper & Pearson, Biometrika 1934; in percent, the table that laboratories know from
    Rümke, Triangle 1960.
    """
    from scipy.special import betaincinv

    if total == 0:
        return 0.0, 1.0
    tail = (1 - _LEVEL) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
    return low, high


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with its 95 % interval; None where both readers named one and the same class.

    There is no interval where the standard error is 0, as of two cells on which they agree.

    Source: Fleiss, Cohen & Everitt, Psychological Bulletin 1969 (the interval's standard error).
    """

    value: float | None
    low: float | None = None
    high: float | None = None


def kappa(table: NDArray[np.int64]) -> Kappa:
    """How far two readers agree beyond chance, from their table of counts (C, C)."""
    n = int(table.sum())
    if n == 0:
        return Kappa(None)
    shares = table / n
    first, second = shares.sum(axis=1), shares.sum(axis=0)
    agreed, chance = float(np.trace(shares)), float(first @ second)
    if chance >= 1:
        return Kappa(None)
    value = (agreed - chance) / (1 - chance)
    weights = (second[:, None] + first[None, :]) * (1 - value)
    on = np.diag(shares) * (1 - np.diag(weights)) ** 2
    off = shares * weights**2
    np.fill_diagonal(off, 0)
    variance = (on.sum() + off.sum() - (value - chance * (1 - value)) ** 2) / (
        n * (1 - chance) ** 2
    )
    if variance < _ROUNDING:
        return Kappa(value)
    reach = _Z * float(np.sqrt(variance))
    return Kappa(value, max(value - reach, -1.0), min(value + reach, 1.0))


def agreement_table(
    first: Sequence[str], second: Sequence[str], names: Sequence[str]
) -> NDArray[np.int64]:
    """How often the first reader named the class of the row, and the second that of the column."""
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    places = {name: i for i, name in enumerate(names)}
    for one, other in zip(first, second, strict=True):
        table[places[one], places[other]] += 1
    return table


def of_one(table: NDArray[np.int64], label: int) -> NDArray[np.int64]:
    """The table (2, 2) of one class against all others."""
    both = table[label, label]
    only_first, only_second = table[label].sum() - both, table[:, label].sum() - both
    rest = table.sum() - both - only_first - only_second
    return np.array([[both, only_first], [only_second, rest]])


def largest_difference(first: int, num_first: int, second: int, num_second: int) -> float:
    """By how much two counts' shares may differ by chance alone, in 95 of 100 pairs of counts.

    Source: CLSI H20-A2, after Rümke: the standard error of the difference of two binomial shares,
    from their common share.
    """
    share = (first + second) / max(num_first + num_second, 1)
    variance = share * (1 - share) * (1 / max(num_first, 1) + 1 / max(num_second, 1))
    return _Z * float(np.sqrt(variance))
