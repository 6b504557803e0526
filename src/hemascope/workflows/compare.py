"""`hemascope compare`: saved predictions against one another, with intervals and tests."""

from collections.abc import Sequence
from pathlib import Path

from hemascope import plots
from hemascope.errors import RESEARCH_USE_ONLY
from hemascope.files import MARK, make_folder, make_out, write_json, write_text
from hemascope.metrics.comparison import compare_networks
from hemascope.report import statistics
from hemascope.report.text import markdown_table
from hemascope.workflows.environment import provenance
from hemascope.workflows.saved import check_intervals, leaks, read_all


def compare(
    folders: Sequence[Path], out: Path, *, views: bool, num_resamples: int, overwrite: bool
) -> str:
    """Compares every network in some folders with every other, and writes what it finds.

    Args:
        folders: Run folders, folders of evaluations, or their parents.
        out: Gets comparison.json, comparison.md and figures/.
        views: Whether to take the predictions with eight views.
        num_resamples: How many resampled test sets the bootstrap draws.
        overwrite: Whether an older folder of ours may be deleted.

    Returns:
        The tables as text.

    Raises:
        DataError: If there are no predictions, or they are not of the same images in one order.
        OutputError: If `out` cannot be written.
    """
    networks = read_all(folders, views=views)
    first = next(iter(networks.values()))[0]
    check_intervals(first)
    comparison = {
        "notice": RESEARCH_USE_ONLY,
        "data": first.title,
        "warnings": leaks(networks),
        **compare_networks(
            {name: {s.seed: s.predictions for s in runs} for name, runs in networks.items()},
            num_resamples=num_resamples,
        ),
    }
    tables = [statistics.networks_table(comparison)]
    if comparison["pairs"]:
        tables.append(statistics.pairs_table(comparison))
    tables += [statistics.classes_table(comparison, k) for k in ("sensitivity", "specificity")]
    text = "\n\n".join(
        [
            first.title,
            statistics.how_to_read(comparison),
            *map(markdown_table, tables),
            *comparison["warnings"],
            RESEARCH_USE_ONLY,
        ]
    )
    make_out(out, overwrite=overwrite)
    write_json(out / MARK, provenance())
    write_json(out / "comparison.json", comparison)
    write_text(out / "comparison.md", text + "\n")
    figures, caption = make_folder(out / "figures"), f"{first.title}\n{RESEARCH_USE_ONLY}"
    forest = statistics.forest_of_networks(comparison, caption)
    plots.save_figure(forest, figures / "networks")
    if comparison["pairs"]:
        forest = statistics.forest_of_differences(comparison, caption)
        plots.save_figure(forest, figures / "differences")
    return text
