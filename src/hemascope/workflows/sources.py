"""Reads data for a command, telling the user what was read and what was noticed."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from hemascope.core.classes import Split
from hemascope.core.errors import DataError
from hemascope.core.images import Dataset, LabeledImages, concatenate
from hemascope.data import load
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings
from hemascope.store.frames import holds_layer
from hemascope.store.model_folder import ArtifactInfo
from hemascope.workflows.progress import Reporter

SplitChoice = Literal["train", "val", "test", "all"]


def load_data(
    settings: DataSettings,
    reporter: Reporter,
    *,
    model: ArtifactInfo | None = None,
    as_found: bool = False,
    wanted: Split | None = None,
    scratch: Path | None = None,
) -> Dataset:
    """The data that settings name.

    Args:
        settings: The sources and how they are read.
        reporter: Gets progress and notes.
        model: Whose images and classes the data is read as, if it is read for a model.
        as_found: Whether data without splits stays whole.
        wanted: The only split that is needed.
        scratch: A folder for pixels, where those of all images may not fit into memory.

    Raises:
        DataError: If it is not there or not what it should be.
        UnreachableError: If it must be downloaded and cannot be.
    """
    with reporter.download("downloading BloodMNIST") as on_download:
        spec, classes = (model.image, model.classes) if model else (None, None)
        asked = Request(settings, spec, classes, as_found, wanted, on_download, scratch=scratch)
        dataset = load(asked)
    counts = ", ".join(f"{split} {len(part):,}" for split, part in dataset.splits.items())
    if not dataset.is_split and len(dataset.splits) == 1 and as_found:
        counts = f"{len(dataset.splits[Split.TEST]):,}"
    reporter.say(f"Data: {dataset.title} ({counts} images)")
    for note in dataset.notes:
        reporter.say(f"Note: {note}")
    return dataset


def load_split(
    settings: DataSettings,
    split: SplitChoice | None,
    reporter: Reporter,
    *,
    model: ArtifactInfo,
    is_moved: bool = False,
) -> tuple[Dataset, LabeledImages, SplitChoice]:
    """The data that settings name, read for a model, and the images of one of its splits, or all.

    Without a choice, that is test, or all images of data that has no splits. Unless the model is
    moved by it (`is_moved`), the last layer in a frame file is said not to be used.

    Returns:
        The data, the images, and which they are.

    Raises:
        DataError: As `load_data`, or if the split does not exist.
        UnreachableError: As `load_data`.
    """
    if holds_layer(settings.frame) and not is_moved:
        reporter.say("Note: of the frame file the framing is used, not its last layer.")
    if split not in (None, "all"):
        wanted = Split(split)
        dataset = load_data(settings, reporter, model=model, wanted=wanted)
        return dataset, _in_memory(dataset.splits[wanted]), split
    dataset = load_data(settings, reporter, model=model, as_found=True)
    if split == "all" or (not dataset.is_split and len(dataset.splits) == 1):
        return dataset, _in_memory(concatenate(list(dataset.splits.values()))), "all"
    if Split.TEST not in dataset.splits:
        found = ", ".join(dataset.splits)
        raise DataError(
            f"{settings.title} has no test split, only {found}; choose one, or all.", field="split"
        )
    return dataset, _in_memory(dataset.splits[Split.TEST]), "test"


def _in_memory(images: LabeledImages) -> LabeledImages:
    """The same with its pixels read, where they are in shards."""
    return replace(images, images=np.asarray(images.images))
