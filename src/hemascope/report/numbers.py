"""How pages write numbers: per cent with one decimal, everything else with three digits."""

from collections.abc import Callable
from math import floor, log10

from hemascope.metrics.statistics import Interval
from hemascope.metrics.summary import Estimate, Spread, estimate, spread
from hemascope.metrics.trust import TriedSets
from hemascope.report.text import in_shown_unit, is_share

UNKNOWN = "–"  # noqa: RUF001 - as in print
_DIGITS = 3
_MOST_DECIMALS = 4


def percent(value: float, decimals: int = 1) -> str:
    """A fraction in per cent."""
    return f"{100 * value:.{decimals}f} %"


def plain(value: float, *, as_percent: bool = False) -> str:
    """A figure with three significant digits; counts with all of theirs."""
    return percent(value) if as_percent else f"{value:,.{_decimals(value)}f}"


def spread_text(values: Spread, *, as_percent: bool = False) -> str:
    """Mean and standard deviation; the mean alone where there is one run or no spread."""
    mean, sd = values.mean, values.sd
    if not sd:
        return plain(mean, as_percent=as_percent)
    if as_percent:
        return f"{100 * mean:.1f} ± {100 * sd:.1f} %"
    return f"{plain(mean)} ± {sd:,.{_decimals(mean)}f}"


def shown(values: Spread, key: str) -> str:
    """A figure of `results.json` in the unit of its label in `LABELS`; shares in per cent."""
    mean = in_shown_unit(key, values.mean)
    sd = None if values.sd is None else in_shown_unit(key, values.sd)
    scaled = Spread(values.values, mean, sd, values.minimum, values.maximum)
    return spread_text(scaled, as_percent=is_share(key))


def in_percent(values: Spread | None) -> str:
    """A share over runs as a number of per cent; a dash where it is not defined."""
    if values is None:
        return UNKNOWN
    sd = f" ± {100 * values.sd:.1f}" if values.sd else ""
    return f"{100 * values.mean:.1f}{sd}"


def interval(share: Estimate | Interval) -> str:
    """A share in per cent with its 95 % interval."""
    return f"{percent(share.value)} {bounds(share)}"


def quoted(share: Estimate) -> str:
    """The same with its number of images."""
    return f"{interval(share)} (n = {share.n:,})"


def ranged(share: Estimate | Interval) -> str:
    """The 95 % interval of a share in words; none where a bootstrap gave it no width."""
    if share.low == share.high:
        return "no interval"
    return f"{100 * share.low:.1f} to {100 * share.high:.1f} %"


def bounds(share: Estimate | Interval | TriedSets) -> str:
    """The 95 % interval of a share, in per cent; a dash where a bootstrap gave it no width."""
    if share.low == share.high:
        return "[-]"
    return f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"


def signed(value: float, *, as_percent: bool = False) -> str:
    """A difference with its sign; of percentages in points."""
    if value == 0:
        return "0"
    text = f"{100 * value:+.1f} points" if as_percent else f"{value:+,.{_decimals(value)}f}"
    return text.replace("-", "−")  # noqa: RUF001 - the minus sign of print


def _decimals(value: float) -> int:
    """How many decimals show three significant digits."""
    if value == 0:
        return 0
    return min(max(_DIGITS - 1 - floor(log10(abs(value))), 0), _MOST_DECIMALS)


FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "plain": plain,
    "spread": spread_text,
    "shown": shown,
    "signed": signed,
    "in_percent": in_percent,
    "interval": interval,
    "bounds": bounds,
    "range": ranged,
    "one": lambda value, key: shown(spread([value]), key),
    "estimate": lambda share, n: quoted(estimate(share, n)),
}
