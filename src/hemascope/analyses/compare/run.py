"""`hemascope compare`: saved predictions against one another, with intervals and tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hemascope.analyses.saved import Saved, leaks, passed_over, read_all
from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.data.synthetic import TITLE
from hemascope.metrics.comparison import Comparison, compare_networks
from hemascope.report import statistics
from hemascope.report.figures import draw_sensitivity
from hemascope.report.formats import TableFormat, format_tables
from hemascope.report.page import render
from hemascope.report.plots import PALETTE
from hemascope.settings.output import Output
from hemascope.store.files import write_text
from hemascope.store.provenance import provenance, publish
from hemascope.store.run_folder import RunFolder

NUM_RESAMPLES = 2000


def compare(
    folders: Sequence[Path],
    output: Output,
    *,
    views: bool,
    num_resamples: int,
    how: TableFormat = "md",
) -> str:
    """Compares every network in some folders with every other, and writes what it finds.

    Args:
        folders: Run folders, folders of evaluations, or their parents.
        output: Gets report.html, comparison.json, the tables as .md, .csv and .tex, and figures/.
        views: Whether to take the predictions with eight views.
        num_resamples: How many resampled test sets the bootstrap draws.
        how: The format of the tables that are returned.

    Returns:
        The tables, in Markdown with what they are of.

    Raises:
        DataError: If there are no predictions, or they are not of the same images in one order.
        OutputError: If `output` cannot be written.
    """
    networks = read_all(folders, views=views)
    comparison = compare_saved(networks, num_resamples=num_resamples, skipped=passed_over(folders))
    found, facts = statistics.tables(comparison), provenance()
    text = "\n\n".join([statistics.statistics_text(comparison), RESEARCH_USE_ONLY])

    def draw(figures: Path) -> None:
        caption = f"{comparison.data}\n{RESEARCH_USE_ONLY}"
        statistics.draw_comparison(comparison, figures, caption)
        if any((shares := statistics.sensitivities(comparison)).values()):
            draw_sensitivity(shares, figures, caption)
        page = RunFolder(figures.parent).page
        write_text(
            page, _page(comparison, page.parent, facts=facts, has_classes=any(shares.values()))
        )

    publish(
        output,
        facts,
        contents={
            "comparison.json": comparison,
            "comparison.md": text,
            "comparison.csv": format_tables(found, "csv"),
            "comparison.tex": format_tables(found, "latex"),
        },
        draw=draw,
    )
    return text if how == "md" else format_tables(found, how)


def _page(comparison: Comparison, folder: Path, **values: object) -> str:
    """The page; its first sentence is of the two most accurate networks."""
    accuracy = {
        n: f.value for n, net in comparison.networks.items() if (f := net.figures["accuracy"])
    }
    best = sorted(accuracy, key=lambda name: -accuracy[name])[:2]
    is_rendered = comparison.data.startswith(TITLE)
    where = "On rendered cells, " if is_rendered else ""
    return render(
        "compare.html.jinja",
        folder,
        autoescape=True,
        c=comparison,
        headline=statistics.headline(comparison, best, dict(zip(best, best, strict=True)), where),
        is_rendered=is_rendered,
        statistics=statistics,
        palette=PALETTE,
        **values,
    )


def compare_saved(
    networks: Mapping[str, Sequence[Saved]],
    *,
    num_resamples: int,
    skipped: Sequence[Path] = (),
) -> Comparison:
    """`compare_networks` on saved predictions, with the data's name and what to beware of."""
    return compare_networks(
        {name: {s.seed: s.predictions for s in runs} for name, runs in networks.items()},
        num_resamples=num_resamples,
        data=next(iter(networks.values()))[0].title,
        warnings=leaks(networks),
        passed_over=[str(path) for path in skipped],
    )
