"""Draws what saved runs hold; every figure carries its data's name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.predictions import Predictions
from hemascope.report import plots
from hemascope.store.files import make_folder
from hemascope.store.run_folder import History, RunFolder, RunResults, SavedRun

_CURVES = (
    ("loss", "Loss", "loss (nats)", False),
    ("accuracy", "Accuracy", "accuracy", True),
)


def draw_history(history: History, folder: Path, caption: str) -> None:
    """Loss and accuracy over the epochs, of train and of test (of val, if test was not watched)."""
    shown = ("train", "test" if "test_loss" in history.known() else "val")
    for key, title, quantity, as_percent in _CURVES:
        figure = plots.learning_curve(
            {split: history[f"{split}_{key}"] for split in shown},
            quantity=quantity,
            title=f"{title} over the epochs",
            caption=caption,
            as_percent=as_percent,
        )
        plots.save_figure(figure, folder / key)


def draw_evaluation(results: RunResults, folder: Path, caption: str) -> None:
    """The confusion matrix and the bars of some results into a folder."""
    names = results.class_names
    draw_confusion(results.confusion, names, folder, caption)
    rows = results.per_class.values()
    figure = plots.precision_recall_bars(
        [row.precision for row in rows],
        [row.recall for row in rows],
        names,
        title="Precision and recall by class",
        caption=caption,
    )
    plots.save_figure(figure, folder / "precision-recall")


def draw_errors(
    predictions: Predictions,
    chosen: NDArray[np.intp],
    images: NDArray[np.uint8],
    folder: RunFolder,
    caption: str,
) -> None:
    """A contact sheet of some errors: what each was taken for, and its label."""
    names = predictions.classes.names
    titles = [
        f"{names[predictions.predicted[i]]} {100 * predictions.probs[i].max():.0f} %\n"
        f"label: {names[predictions.labels[i]]}\n{predictions.ids[i]}"
        for i in chosen
    ]
    figure = plots.contact_sheet(
        images[chosen], {}, titles, title="Most confident errors", caption=caption
    )
    make_folder(folder.figures)
    plots.save_figure(figure, folder.errors.with_suffix(""))


def draw_confusion(
    confusion: NDArray[np.int64], names: Sequence[str], folder: Path, caption: str
) -> None:
    """The confusion matrix in counts and as shares of each true class."""
    for stem, normalize, title in (
        ("confusion", False, "Confusion matrix, images"),
        ("confusion-normalized", True, "Confusion matrix, shares of the true class"),
    ):
        figure = plots.confusion_heatmap(
            confusion, names, normalize=normalize, title=title, caption=caption
        )
        plots.save_figure(figure, folder / stem)


def caption_of(results: RunResults, detail: str) -> str:
    """What stands below a figure: network, which run, data, and that it is for research."""
    return f"{results.name}, {detail} | {results.data}\n{RESEARCH_USE_ONLY}"


def seeds_text(runs: Sequence[SavedRun]) -> str:
    """Which seeds a figure is of."""
    seeds = ", ".join(str(run.settings.seed) for run in runs)
    return f"seeds {seeds}" if len(runs) > 1 else f"seed {seeds}"
