"""How every page is rendered: its templates, its figures inside it, its numbers."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.metrics.summary import Estimate, Spread, estimate
from hemascope.metrics.trust import TriedSets
from hemascope.report.text import in_shown_unit


def environment(*, autoescape: bool) -> Environment:
    """Where all pages' templates are, and how they write figures."""
    pages = Environment(
        loader=PackageLoader("hemascope.report"),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701 - off for Markdown, which is text
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name, function in _FILTERS.items():
        pages.filters[name] = function
    return pages


def render(template: str, folder: Path, *, autoescape: bool, **values: object) -> str:
    """A page of a folder; the figures that it embeds are files of that folder.

    Raises:
        DataError: If a figure cannot be read.
    """
    pages = environment(autoescape=autoescape)
    pages.filters["embedded"] = lambda name: embedded(folder / str(name))  # pyright: ignore[reportArgumentType] - jinja's stubs
    return pages.get_template(template).render(notice=RESEARCH_USE_ONLY, **values)


def embedded(path: Path) -> str:
    """An SVG file as a data address, so that the page carries it (and its ids stay its own)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the figure {path}: {error.strerror}; train again.") from error
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode("ascii")


def percent(value: float, decimals: int = 2) -> str:
    """A fraction in per cent."""
    return f"{100 * value:.{decimals}f} %"


def plain(value: float, *, as_percent: bool = False) -> str:
    """A figure as the study would print it."""
    if as_percent:
        return percent(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def spread_text(values: Spread, *, as_percent: bool = False) -> str:
    """Mean and standard deviation; the mean alone where there is one run or no spread."""
    mean, sd = values.mean, values.sd
    if not sd:
        return plain(mean, as_percent=as_percent)
    if as_percent:
        return f"{100 * mean:.2f} ± {100 * sd:.2f} %"
    return f"{mean:,.0f} ± {sd:,.0f}" if abs(mean) >= 1000 else f"{mean:.4f} ± {sd:.4f}"


def shown(values: Spread, key: str) -> str:
    """A spread in the unit of its label in `LABELS`."""
    sd = None if values.sd is None else in_shown_unit(key, values.sd)
    return spread_text(replace(values, mean=in_shown_unit(key, values.mean), sd=sd))


def in_percent(values: Spread | None) -> str:
    """A share over runs as a number of per cent; a dash where it is not defined."""
    if values is None:
        return "–"  # noqa: RUF001 - as in print
    sd = f" ± {100 * values.sd:.1f}" if values.sd else ""
    return f"{100 * values.mean:.1f}{sd}"


def interval(share: Estimate) -> str:
    """A share in per cent with its 95 % interval."""
    return f"{percent(share.value, 1)} {bounds(share)}"


def quoted(share: Estimate) -> str:
    """The same with its number of images."""
    return f"{interval(share)} (n = {share.n:,})"


def bounds(share: Estimate | TriedSets) -> str:
    """The 95 % interval of a share, in per cent."""
    return f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"


def signed(value: float, *, as_percent: bool = False) -> str:
    """A difference with its sign; of percentages in points."""
    if value == 0:
        return "0"
    if as_percent:
        text = f"{100 * value:+.2f} points"
    else:
        text = f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.4f}"
    return text.replace("-", "−")  # noqa: RUF001 - the minus sign of print


_FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "plain": plain,
    "spread": spread_text,
    "shown": shown,
    "signed": signed,
    "in_percent": in_percent,
    "interval": interval,
    "bounds": bounds,
    "estimate": lambda share, n: quoted(estimate(share, n)),
}
