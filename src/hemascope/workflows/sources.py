"""Reads `--data` for a command, telling the user what was read and what was noticed."""

from typing import Literal

from hemascope.core.classes import Split
from hemascope.core.images import Dataset, LabeledImages, concatenate
from hemascope.data import DEFAULT_IMAGE_SIZE, Request, SplitHow, check_source, load
from hemascope.workflows.progress import Reporter

SplitChoice = Literal["train", "val", "test", "all"]


def load_data(
    source: str,
    reporter: Reporter,
    *,
    image_size: int = DEFAULT_IMAGE_SIZE,
    split: SplitHow = "three",
    crop: float = 1.0,
) -> Dataset:
    """The data set that `--data` names; `image_size`, `split` and `crop` are for folders.

    Raises:
        DataError: If it is not there or not what it should be.
        UnreachableError: If it must be downloaded and cannot be.
    """
    check_source(source)
    with reporter.download("downloading BloodMNIST") as on_download:
        request = Request(image_size, split, crop, on_download)
        dataset = load(source, request)
    counts = ", ".join(f"{split} {len(part):,}" for split, part in dataset.splits.items())
    reporter.say(f"Data: {dataset.title} ({counts} images)")
    for note in dataset.notes:
        reporter.say(f"Note: {note}")
    return dataset


def load_split(
    source: str, split: SplitChoice, reporter: Reporter, *, image_size: int, crop: float = 1.0
) -> tuple[Dataset, LabeledImages]:
    """The data set that `--data` names, and the images of one of its splits, or all of them.

    Raises:
        DataError: As `load_data`.
        UnreachableError: As `load_data`.
    """
    how = "one" if split == "all" else "three"
    dataset = load_data(source, reporter, image_size=image_size, split=how, crop=crop)
    if split == "all":
        return dataset, concatenate(list(dataset.splits.values()))
    return dataset, dataset.splits[Split(split)]
