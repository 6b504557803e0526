"""`hemascope evaluate --map`: a network on another laboratory's cells."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from hemascope.artifact import ArtifactInfo
from hemascope.config import Colors, TransferMap
from hemascope.core import ClassSet, Predictions
from hemascope.data.colors import fit_colors
from hemascope.data.corruptions import jpeg_round_trip
from hemascope.data.dataset import LabeledImages
from hemascope.errors import DataError, UsageError, did_you_mean
from hemascope.inference import Predictor
from hemascope.metrics import METRICS
from hemascope.metrics import calibration as cal
from hemascope.metrics.comparison import compare_networks
from hemascope.workflows.compare import NUM_RESAMPLES
from hemascope.workflows.results import answers
from hemascope.workflows.saved import FEWEST_IMAGES


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
        if name not in occurring:
            hint = did_you_mean(name, occurring)
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
    predictor: Predictor, images: LabeledImages, settings: TransferMap, info: ArtifactInfo
) -> dict[str, Any]:
    """Every way to fit colors on the same cells, compared in pairs, ready for JSON.

    Each is judged as it answers, and with its answers restricted to the classes that the map names:
    what it would say if it knew which classes can occur. Classes of a single image are left out of
    all this, since no interval can be given for them.
    """
    counts = np.bincount(images.labels, minlength=len(info.classes))
    single = np.flatnonzero((counts > 0) & (counts < FEWEST_IMAGES))
    judged = images.take(np.flatnonzero(~np.isin(images.labels, single)))
    possible = sorted({info.class_names.index(name) for name in settings.classes.values() if name})
    calibration = info.calibration
    temperature = calibration.temperature if calibration else 1.0
    ways: dict[str, Predictions] = {}
    names: Mapping[Colors, str] = {
        "none": "colors as they are",
        "image": "each image fitted",
        "group": "all fitted together",
    }
    for colors in get_args(Colors):
        if colors != "none" and info.trained_on.channel_mean is None:
            continue
        found = answers(predictor, shown(judged, settings, colors, info), info.classes)
        ways[names[colors]] = found
        ways[f"{names[colors]}, classes known"] = restricted(found, possible)
    return {
        "left_out": [info.class_names[label] for label in single],
        "temperature": temperature,
        "calibration": {
            name: {
                "ece": cal.ece(found.scaled(temperature)),
                "nll": METRICS["loss"](found.scaled(temperature)),
                "confidence": float(found.scaled(temperature).probs.max(axis=1).mean()),
            }
            for name, found in ways.items()
        },
        "comparison": {
            "data": "",
            "warnings": [],
            **compare_networks(
                {name: {info.settings.seed: found} for name, found in ways.items()},
                num_resamples=NUM_RESAMPLES,
            ),
        },
    }


def restricted(predictions: Predictions, possible: list[int]) -> Predictions:
    """The same, where only some classes can be answered."""
    logits: NDArray[np.float32] = predictions.logits.copy()
    others = np.setdiff1d(np.arange(logits.shape[1]), possible)
    logits[:, others] = logits.min() - 50
    return replace(predictions, logits=logits)
