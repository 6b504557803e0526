"""Renders the study's comparison as one self-contained HTML page and as Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import cards, statistics, trust
from hemascope.report.page import embedded, environment
from hemascope.report.text import LABELS
from hemascope.study import published as study


def render_html(comparison: Mapping[str, Any], folder: Path) -> str:
    """The report as one HTML page with its figures inside it; needs no other file."""
    return _render("report.html.jinja", comparison, folder, autoescape=True)


def render_markdown(comparison: Mapping[str, Any], folder: Path) -> str:
    """The report as Markdown; its figures are links into the folder."""
    return _render("report.md.jinja", comparison, folder, autoescape=False)


def _render(template: str, comparison: Mapping[str, Any], folder: Path, *, autoescape: bool) -> str:
    pages = environment(autoescape=autoescape)
    pages.filters["embedded"] = lambda name: embedded(folder / str(name))  # pyright: ignore[reportArgumentType] - jinja's stubs
    return pages.get_template(template).render(
        c=comparison,
        networks=comparison["networks"],
        study=study,
        labels=LABELS,
        notice=RESEARCH_USE_ONLY,
        kind=comparison["data"]["kind"],
        statistics=statistics,
        trust=trust,
        cards=cards,
    )
