"""Renders the study's report: the page of a run's networks, with the study's comparison added."""

from collections.abc import Mapping
from pathlib import Path

from hemascope.report import statistics, trust
from hemascope.report.cards import Card
from hemascope.report.page import render
from hemascope.report.text import LABELS
from hemascope.study import published as study
from hemascope.study.comparison import Comparison


def render_report(
    template: str,
    comparison: Comparison,
    cards: Mapping[str, Card],
    folder: Path,
    *,
    autoescape: bool,
) -> str:
    """The report as one HTML page with its figures inside it, or as Markdown that links to them.

    Args:
        template: "report.html.jinja" or "report.md.jinja".
        comparison: What it says.
        cards: The data card and the model cards, by title.
        folder: Where the figures lie.
        autoescape: Whether the page is HTML.
    """
    return render(
        template,
        folder,
        autoescape=autoescape,
        c=comparison,
        networks=comparison.networks,
        study=study,
        labels=LABELS,
        kind=comparison.data.kind,
        statistics=statistics,
        trust=trust,
        cards=cards,
    )
