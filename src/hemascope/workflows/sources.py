"""Reads `--data` for a command, telling the user what was read and what was noticed."""

from hemascope.data import DEFAULT_IMAGE_SIZE, Request, SplitHow, check_source, load
from hemascope.data.dataset import Dataset
from hemascope.workflows.progress import Reporter


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
