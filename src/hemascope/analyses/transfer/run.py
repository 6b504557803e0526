"""`hemascope evaluate --map`: a network on another laboratory's cells."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hemascope.analyses.compare.run import NUM_RESAMPLES
from hemascope.analyses.transfer.words import (
    ShiftedCalibration,
    Transfer,
    preprocessing_sentence,
)
from hemascope.core.classes import ClassSet
from hemascope.core.errors import DataError, UsageError, did_you_mean
from hemascope.core.images import LabeledImages
from hemascope.core.predictions import Predictions
from hemascope.data.colors import fit_colors
from hemascope.data.corruptions import jpeg_round_trip
from hemascope.inference import Engine
from hemascope.metrics import METRICS
from hemascope.metrics import calibration as cal
from hemascope.metrics.comparison import compare_networks
from hemascope.settings.run import Colors, TransferMap
from hemascope.store.model_folder import ArtifactInfo
from hemascope.workflows.results import answers

_IMPOSSIBLE = -1e6  # a logit
_COLORS: dict[Colors, str] = {
    "none": "colors as they are",
    "image": "each image fitted",
    "group": "all fitted together",
}


def mapped(
    images: LabeledImages, names: ClassSet, wanted: ClassSet, settings: TransferMap, origin: Path
) -> LabeledImages:
    """Images with the labels of a network's classes; those of classes left out are gone.

    Args:
        images: With labels of their own.
        names: What those labels are called.
        wanted: The network's classes.
        settings: Which is which.
        origin: The file with the map, for errors.

    Raises:
        UsageError: If the map leaves a class out, or names one that does not exist.
    """
    occurring = [names.names[label] for label in np.unique(images.labels)]
    for name in occurring:
        if name not in settings.classes:
            raise UsageError(
                f"{origin}: classes leaves '{name}' out, which the data has; say which class it "
                'is, or "" to leave its images out.'
            )
    for name, target in settings.classes.items():
        if name not in names.names:
            hint = did_you_mean(name, names.names)
            raise UsageError(f"{origin}: classes: the data has no class '{name}'; {hint}")
        if target and target not in wanted.names:
            hint = did_you_mean(target, wanted.names)
            raise UsageError(f"{origin}: classes.{name}: the model knows no '{target}'; {hint}")
    targets = {
        names.names.index(name): wanted.names.index(target)
        for name, target in settings.classes.items()
        if target
    }
    kept = images.take(np.flatnonzero(np.isin(images.labels, list(targets))))
    if not len(kept):
        raise UsageError(f"{origin}: classes leaves all images out.")
    return replace(kept, labels=np.array([targets[label] for label in kept.labels.tolist()]))


def shown(
    images: LabeledImages, settings: TransferMap, colors: Colors, info: ArtifactInfo
) -> LabeledImages:
    """Images as the network is to see them.

    Raises:
        DataError: If colors are to be fitted and the model does not say to which.
    """
    pixels = images.images
    if colors != "none":
        trained_on = info.trained_on
        if trained_on.channel_mean is None or trained_on.channel_std is None:
            raise DataError(
                f"the model '{info.settings.name}' does not say what colors it was trained on; "
                'train it again, or set colors = "none".'
            )
        pixels = fit_colors(
            pixels, colors, mean=trained_on.channel_mean, std=trained_on.channel_std
        )
    if settings.jpeg:
        pixels = jpeg_round_trip(pixels, settings.jpeg)
    return replace(images, images=pixels)


def try_colors(
    engine: Engine,
    images: LabeledImages,
    names: ClassSet,
    settings: TransferMap,
    info: ArtifactInfo,
    *,
    origin: Path,
    views: int,
) -> Transfer:
    """Every way to fit colors on the same cells, compared in pairs.

    Each is judged as it answers, and with its answers restricted to the classes that the map names:
    what it would say if it knew which classes can occur. Colors are fitted to all images, before
    any are left out.

    Args:
        engine: The network.
        images: All images, with labels of their own.
        names: What those labels are called.
        settings: The map.
        info: Of the network.
        origin: The file with the map, for errors.
        views: How many views of each image the engine takes.
    """
    mapped(images, names, info.classes, settings, origin)  # refuses a map that does not fit
    possible = sorted({info.class_names.index(name) for name in settings.classes.values() if name})
    temperature = _temperature(info, views)
    ways: dict[str, Predictions] = {}
    for colors, name in _COLORS.items():
        if colors != "none" and info.trained_on.channel_mean is None:
            continue
        fitted = shown(images, settings, colors, info)
        judged = mapped(fitted, names, info.classes, settings, origin)
        found = answers(engine, judged, info.classes)
        ways[name] = found
        ways[f"{name}, classes known"] = restricted(found, possible)
    scaled = {name: found.scaled(temperature or 1.0) for name, found in ways.items()}
    return Transfer(
        preprocessing=preprocessing_sentence(images.images.shape[1], settings),
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
