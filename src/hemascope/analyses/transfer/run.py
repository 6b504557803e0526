"""`hemascope transfer`: a network on another laboratory's cells."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from hemascope.analyses.compare.run import NUM_RESAMPLES
from hemascope.analyses.transfer.words import ShiftedCalibration, Transfer, transfer_text
from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import Dataset, LabeledImages
from hemascope.core.predictions import Predictions
from hemascope.data.colors import fit_colors
from hemascope.inference import Engine
from hemascope.metrics import METRICS
from hemascope.metrics import calibration as cal
from hemascope.metrics.comparison import compare_networks
from hemascope.report.statistics import draw_comparison
from hemascope.report.text import seen_sentence
from hemascope.settings.compute import Compute
from hemascope.settings.data import Colors, DataSettings
from hemascope.settings.output import Output
from hemascope.store.model_folder import ArtifactInfo
from hemascope.store.provenance import fingerprint, publish
from hemascope.store.run_folder import RunFolder
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import answers, count_seen, load_engine
from hemascope.workflows.sources import SplitChoice, load_split

_IMPOSSIBLE = -1e6  # a logit
_COLORS: dict[Colors, str] = {
    "none": "colors as they are",
    "image": "each image fitted",
    "group": "all fitted together",
}


def transfer(
    path: Path,
    data: DataSettings,
    split: SplitChoice | None,
    *,
    colors: Colors,
    compute: Compute,
    output: Output | None,
    reporter: Reporter,
) -> str:
    """Evaluates a model on another laboratory's cells, with every way to fit their colors.

    Args:
        path: A run folder or an exported model.
        data: The cells; its map says which class is which where names differ.
        split: Which images of it; by default test, or all of data that has no splits.
        colors: The way whose predictions are saved.
        compute: How the model is asked.
        output: Gets transfer.json, transfer.md, the predictions and figures/, if given.
        reporter: Gets progress and notes.

    Returns:
        What was found, as text.

    Raises:
        DataError: If model and data do not fit together.
        OutputError: If results cannot be written.
    """
    loaded = load_engine(path, compute)
    info, engine = loaded.info, loaded.engine
    dataset, images, split = load_split(data, split, reporter, model=info)
    found = try_colors(engine, images, info, views=compute.num_views, dataset=dataset, split=split)
    title = f"{found.name} on {found.data}, split {split}"
    parts = [title, transfer_text(found)]
    if sentence := seen_sentence(info.settings.name, count_seen(path, images)):
        parts.append(sentence)
    text = "\n\n".join([*parts, RESEARCH_USE_ONLY])
    if output is not None:
        predictions = answers(engine, fitted(images, colors, info), info.classes)
        caption = f"{info.settings.name} | {dataset.title}\n{RESEARCH_USE_ONLY}"
        publish(
            output,
            fingerprint(dataset, device=loaded.device.type),
            contents={
                "transfer.json": found,
                "transfer.md": text,
                RunFolder(output.folder).predictions(split).name: predictions,
            },
            draw=partial(draw_comparison, found.comparison, caption=caption),
        )
    return text


def fitted(images: LabeledImages, colors: Colors, info: ArtifactInfo) -> LabeledImages:
    """Images with colors fitted to those that a network was trained on."""
    if colors == "none":
        return images
    mean, std = info.trained_on.channel_mean, info.trained_on.channel_std
    return replace(images, images=fit_colors(images.images, colors, mean=mean, std=std))


def try_colors(
    engine: Engine,
    images: LabeledImages,
    info: ArtifactInfo,
    *,
    views: int,
    dataset: Dataset,
    split: str,
) -> Transfer:
    """Every way to fit colors on the same cells, compared in pairs.

    Each is judged as it answers, and with its answers restricted to the classes that occur: what
    it would say if it knew which classes can.

    Args:
        engine: The network.
        images: All images, labeled with the network's classes.
        info: Of the network.
        views: How many views of each image the engine takes.
        dataset: The data that the images are of.
        split: Which of them they are.
    """
    occurring = np.unique(images.labels).tolist()
    temperature = _temperature(info, views)
    ways: dict[str, Predictions] = {}
    for colors, name in _COLORS.items():
        found = answers(engine, fitted(images, colors, info), info.classes)
        ways[name] = found
        ways[f"{name}, classes known"] = restricted(found, occurring)
    scaled = {name: found.scaled(temperature or 1.0) for name, found in ways.items()}
    return Transfer(
        name=info.settings.name,
        data=dataset.title,
        split=split,
        image=dataset.spec,
        frames=dataset.frames,
        temperature=temperature,
        calibration={
            name: ShiftedCalibration(
                ece=cal.ece(found),
                nll=METRICS["loss"](found),
                confidence=float(found.probs.max(axis=1).mean()),
            )
            for name, found in scaled.items()
        },
        comparison=compare_networks(
            {name: {info.settings.seed: found} for name, found in ways.items()},
            num_resamples=NUM_RESAMPLES,
        ),
    )


def _temperature(info: ArtifactInfo, views: int) -> float | None:
    """What was fitted on val for so many views; None where nothing was."""
    if info.calibration is None:
        return None
    return info.calibration.temperature_views if views > 1 else info.calibration.temperature


def restricted(predictions: Predictions, possible: list[int]) -> Predictions:
    """The same, where only some classes can be answered."""
    logits = np.full_like(predictions.logits, _IMPOSSIBLE)
    logits[:, possible] = predictions.logits[:, possible]
    return replace(predictions, logits=logits)
