"""Draws what saved runs hold; every figure carries its data's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.classes import Split
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.predictions import Predictions
from hemascope.metrics.statistics import Interval
from hemascope.metrics.summary import Estimate, spread
from hemascope.metrics.uncertainty import fit_temperature
from hemascope.report import plots
from hemascope.report.network import Network
from hemascope.report.page import pixels, png
from hemascope.store.files import make_folder, write_bytes
from hemascope.store.predictions import read_predictions
from hemascope.store.run_folder import History, RunFolder, RunResults, SavedRun

_CURVES = (
    ("loss", "Loss", "loss (nats)", False),
    ("accuracy", "Accuracy", "accuracy", True),
)


def draw_history(history: History, folder: Path, caption: str) -> None:
    """Loss and accuracy over the epochs, of train and of test (of val, if test was not watched)."""
    shown = ("train", "test" if "test_loss" in history.known() else "val")
    for key, title, quantity, as_percent in _CURVES:
        figure = plots.learning_curves(
            [plots.CurveGroup(s, history[f"{s}_{key}"][np.newaxis]) for s in shown],
            quantity=quantity,
            title=f"{title} over the epochs",
            caption=caption,
            as_percent=as_percent,
        )
        plots.save_figure(figure, folder / key)


def draw_evaluation(network: Network, names: Sequence[str], folder: Path, caption: str) -> None:
    """The confusion matrix, precision and recall of a network over its runs."""
    pooled = np.array(network.confusion_matrix_pooled, dtype=np.int64)
    over = f", over {network.n} runs" if network.n > 1 else ""
    for stem, normalize, title in (
        ("confusion", False, f"Confusion matrix, images{over}"),
        ("confusion-normalized", True, f"Confusion matrix, % of the true class{over}"),
    ):
        figure = plots.confusion_heatmap(
            pooled, names, normalize=normalize, title=title, caption=caption
        )
        plots.save_figure(figure, folder / stem)
    rows, unknown = network.per_class.values(), spread([float("nan")] * network.n)
    found = {
        "precision": [r.precision for r in rows],
        "recall": [r.recall or unknown for r in rows],
    }
    figure = plots.class_dots(
        {key: [value.mean for value in values] for key, values in found.items()},
        names,
        quantity="share",
        title=f"Precision and recall by class{', mean ± sd' if over else ''}",
        caption=caption,
        bounds={
            key: (
                [max(value.mean - value.sd, 0) for value in values if value.sd is not None],
                [min(value.mean + value.sd, 1) for value in values if value.sd is not None],
            )
            for key, values in found.items()
        }
        if over
        else None,
    )
    plots.save_figure(figure, folder / "precision-recall")


def draw_sensitivity(
    found: Mapping[str, Mapping[str, Estimate | Interval]], folder: Path, caption: str
) -> None:
    """The sensitivity of each class as a dot for each network; of one with its intervals."""
    alone = len(found) == 1
    rows = {title: list(of.values()) for title, of in found.items()}
    figure = plots.class_dots(
        {title: [share.value for share in of] for title, of in rows.items()},
        list(next(iter(found.values()))),
        quantity="sensitivity",
        title="Sensitivity by class" + (" with its 95 % interval" if alone else ""),
        caption=caption,
        bounds={title: ([s.low for s in of], [s.high for s in of]) for title, of in rows.items()}
        if alone
        else None,
    )
    plots.save_figure(figure, folder / "sensitivity")


def confident_errors(found: Predictions, count: int) -> NDArray[np.intp]:
    """The wrongly classified images, those of the highest confidence first."""
    wrong = np.flatnonzero(found.predicted != found.labels)
    return wrong[np.argsort(-found.probs.max(axis=1)[wrong], kind="stable")][:count]


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
    write_bytes(folder.error_cells, png(np.concatenate(images[chosen])))


@dataclass(frozen=True)
class ErrorCell:
    """A wrongly classified image as a page shows it; `pixels` is a data address."""

    id: str
    label: str
    predicted: str
    confidence: float
    pixels: str


def error_cells(folder: RunFolder, test: Predictions) -> list[ErrorCell]:
    """The most confident errors that `draw_errors` kept, after scaling; none where it kept none.

    Raises:
        DataError: If their file, or the predictions on val, are damaged.
    """
    if not folder.error_cells.is_file():
        return []
    try:
        with Image.open(folder.error_cells) as sheet:
            images = np.asarray(sheet.convert("RGB"))
    except OSError as error:
        raise DataError(f"{folder.error_cells} is damaged ({error}); train again.") from error
    images = images.reshape(-1, images.shape[1], images.shape[1], 3)
    temperature = fit_temperature(read_predictions(folder.predictions(Split.VAL)))
    return cells_of(test.scaled(temperature), confident_errors(test, len(images)), images)


def cells_of(
    found: Predictions, chosen: NDArray[np.intp], images: NDArray[np.uint8]
) -> list[ErrorCell]:
    """Some predictions with their images (n, H, H, 3), as a page shows them."""
    names = found.classes.names
    return [
        ErrorCell(
            id=found.ids[i],
            label=names[found.labels[i]],
            predicted=names[found.predicted[i]],
            confidence=float(found.probs[i].max()),
            pixels=pixels(image),
        )
        for i, image in zip(chosen, images, strict=False)
    ]


def caption_of(results: RunResults, detail: str) -> str:
    """What stands below a figure: network, which run, data, and that it is for research."""
    return f"{results.name}, {detail} | {results.data}\n{RESEARCH_USE_ONLY}"


def seeds_text(runs: Sequence[SavedRun]) -> str:
    """Which seeds a figure is of."""
    seeds = ", ".join(str(run.settings.seed) for run in runs)
    return f"seeds {seeds}" if len(runs) > 1 else f"seed {seeds}"
