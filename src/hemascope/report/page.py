"""Renders a comparison as one self-contained HTML page and as Markdown."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hemascope.core.errors import DataError
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
    filters: dict[str, Any] = {
        "percent": percent,
        "plain": plain,
        "spread": spread_text,
        "shown": shown,
        "signed": signed,
    }
    pages.filters.update(filters)
    return pages


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


def spread_text(values: Mapping[str, Any], *, as_percent: bool = False) -> str:
    """Mean and standard deviation; the mean alone where there is one run or no spread."""
    mean, sd = values["mean"], values["sd"]
    if not sd:
        return plain(mean, as_percent=as_percent)
    if as_percent:
        return f"{100 * mean:.2f} ± {100 * sd:.2f} %"
    return f"{mean:,.0f} ± {sd:,.0f}" if abs(mean) >= 1000 else f"{mean:.4f} ± {sd:.4f}"


def shown(values: Mapping[str, Any], key: str) -> str:
    """A spread in the unit of its label in `LABELS`."""
    scaled = {
        name: None if values[name] is None else in_shown_unit(key, values[name])
        for name in ("mean", "sd")
    }
    return spread_text(scaled)


def signed(value: float, *, as_percent: bool = False) -> str:
    """A difference with its sign; of percentages in points."""
    if value == 0:
        return "0"
    if as_percent:
        text = f"{100 * value:+.2f} points"
    else:
        text = f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.4f}"
    return text.replace("-", "−")  # noqa: RUF001 - the minus sign of print
