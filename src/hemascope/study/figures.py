"""Learning curves of all networks, with the published points where they can be compared."""

from pathlib import Path

import numpy as np

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report import plots
from hemascope.store.run_folder import Runs
from hemascope.study import published as study

_CURVES = {  # title, unit of the axis, whether a share
    "test_accuracy": ("Test accuracy", True),
    "val_accuracy": ("Validation accuracy", True),
    "train_accuracy": ("Training accuracy", True),
    "train_loss": ("Training loss", False),
    "test_f1_weighted": ("Weighted F1 on test", True),
}


def draw_curves(runs: Runs, folder: Path, *, comparable: bool) -> list[str]:
    """Draws every quantity that all runs have over the epochs, each in one figure.

    Returns:
        The figures' stems, the one to show first first.
    """
    published = {
        row.key: {1: row.value, study.CURVE_EPOCHS: last.value}
        for row, last in zip(study.CURVE_FIRST, study.CURVE_LAST, strict=True)
        if comparable and any(of[0].settings.model.name == "cnn" for of in runs.values())
    }
    stems: list[str] = []
    for key, (title, as_percent) in _CURVES.items():
        if not all(key in run.history.known() for of in runs.values() for run in of):
            continue
        groups: list[plots.CurveGroup] = []
        for name, members in runs.items():
            shortest = min(len(run.history) for run in members)  # patience may end them apart
            curves = np.stack([run.history[key][:shortest] for run in members])
            groups.append(plots.CurveGroup(study.TITLES.get(name, name), curves))
        figure = plots.learning_curves(
            groups,
            quantity=title.lower() if as_percent else f"{title.lower()} (nats)",
            title=title,
            caption=f"{next(iter(runs.values()))[0].results.data}\n{RESEARCH_USE_ONLY}",
            as_percent=as_percent,
            published=published.get(key),
        )
        stems.append(f"curves-{key.replace('_', '-')}")
        plots.save_figure(figure, folder / stems[-1])
    return stems
