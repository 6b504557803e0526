"""Curves beside the published ones, and bars over seeds."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import plots
from hemascope.report.network import ClassSummary
from hemascope.store.run_folder import Runs
from hemascope.study import published as study

AGAINST_PAPER = tuple(row.key for row in study.CURVE_LAST)


def against_paper(runs: Runs, key: str) -> Figure:
    """One curve of each of our CNNs, with the first and last point that the study published."""
    (first,) = (row for row in study.CURVE_FIRST if row.key == key)
    (last,) = (row for row in study.CURVE_LAST if row.key == key)
    groups: list[plots.CurveGroup] = []
    for name, members in runs.items():
        if members[0].settings.model.name == "cnn":  # the study publishes its CNN's curve alone
            shortest = min(len(run.history) for run in members)  # patience may end them apart
            curves = [run.history[key][:shortest] for run in members]
            groups.append(plots.CurveGroup(name, np.stack(curves)))
    return plots.curves_against_paper(
        groups,
        {1: first.value, study.CURVE_EPOCHS: last.value},
        quantity=last.label,
        title=f"{last.label}: ours and the study's CNN",
        caption=f"{next(iter(runs.values()))[0].results.data}\n{RESEARCH_USE_ONLY}",
        as_percent=last.as_percent,
    )


def bars_over_seeds(classes: Mapping[str, ClassSummary], caption: str) -> Figure:
    """Mean precision and recall of each class over seeds, with standard deviations."""
    precision = [row.precision for row in classes.values()]
    recall = [row.recall for row in classes.values()]
    return plots.precision_recall_bars(
        [value.mean for value in precision],
        [value.mean for value in recall],
        list(classes),
        title="Precision and recall by class, mean ± sd over seeds",
        caption=caption,
        spread=([v.sd or 0 for v in precision], [v.sd or 0 for v in recall]),
    )
