"""`hemascope report`: comparison, figures and pages from saved runs alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import UndefinedError

from hemascope.analyses.compare.run import NUM_RESAMPLES, compare_saved
from hemascope.analyses.saved import read_pairs
from hemascope.analyses.trust.run import assess_all, curves
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.metrics.uncertainty import COVERAGES, WANTED_ACCURACY
from hemascope.report.figures import ERRORS, caption_of, draw_confusion, seeds_text
from hemascope.report.plots import save_figure
from hemascope.report.statistics import draw_comparison
from hemascope.report.text import comparison_text
from hemascope.report.trust import draw_trust
from hemascope.store.files import make_folder, write_json, write_text
from hemascope.store.run_folder import find_runs, is_finished, read_run
from hemascope.study.comparison import compare, group, spread_of
from hemascope.study.figures import AGAINST_PAPER, against_paper, bars_over_seeds
from hemascope.study.page import render_html, render_markdown


def write_report(folder: Path) -> str:
    """Writes comparison.json, figures/, report.md and report.html for the runs in a folder.

    Returns:
        A summary for the terminal.

    Raises:
        DataError: If there are no finished runs, or they do not belong together.
    """
    found = find_runs(folder)
    finished = [path for path in found if is_finished(path)]
    if not finished:
        raise DataError(f"no run in {folder} was finished; train again.")
    try:
        runs = group([read_run(path) for path in finished])
        comparison = compare(runs)
        comparison["certainty"] = _certainty(finished, folder)
        comparison["error_sheets"] = {
            name: f"{members[0].folder.name}/{ERRORS}.svg"
            for name, members in runs.items()
            if (members[0].folder / f"{ERRORS}.svg").is_file()
        }
        markdown = render_markdown(comparison, folder)
    except (KeyError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        raise DataError(
            f"the files of the runs in {folder} do not fit together ({type(error).__name__}: "
            f"{error}): one was altered; train the runs again."
        ) from error
    figures = make_folder(folder / "figures")
    for key in AGAINST_PAPER if comparison["has_cnn"] else ():
        save_figure(against_paper(runs, key), figures / f"against-paper-{key}")
    for name, members in runs.items():
        network = comparison["networks"][name]
        caption = caption_of(members[0].results, seeds_text(members))
        target = make_folder(figures / name)
        pooled = np.sum([run.confusion for run in members], axis=0)
        names = members[0].results["class_names"]
        draw_confusion(pooled, names, target, caption)
        rows = network["per_class"].values()
        bars = bars_over_seeds(
            names,
            [spread_of(row["precision"]) for row in rows],
            [spread_of(row["recall"]) for row in rows],
            caption,
        )
        save_figure(bars, target / "precision-recall")
    write_json(folder / "comparison.json", comparison)
    write_text(folder / "report.md", markdown)
    write_text(folder / "report.html", render_html(comparison, folder))
    left_out = [f"Left out, not finished: {path}" for path in found if path not in finished]
    return "\n".join([comparison_text(comparison, folder / "report.html"), *left_out])


def _certainty(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Intervals, tests, calibration and prediction sets of the saved predictions.

    Returns:
        `statistics` and `trust` for the page; or `reason`, why there is no such section.
    """
    networks = read_pairs(folders, views=False)
    tests = {name: [pair.test for pair in pairs] for name, pairs in networks.items()}
    first = next(iter(tests.values()))[0]
    try:
        trust = assess_all(networks, coverages=COVERAGES, accuracy=WANTED_ACCURACY)
    except DataError as error:
        return {"reason": str(error)}
    found = compare_saved(tests, num_resamples=NUM_RESAMPLES)
    figures = make_folder(out / "figures")
    caption = f"{first.title}\n{RESEARCH_USE_ONLY}"
    draw_comparison(found, figures, caption)
    draw_trust(curves(networks, trust), figures, caption)
    return {"statistics": found, "trust": trust}
