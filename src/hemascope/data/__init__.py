"""Data sources: what `--data` takes, each read into a `Dataset`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hemascope.core.errors import DataError, HemascopeError, did_you_mean

if TYPE_CHECKING:
    from hemascope.core.images import Dataset

# The readers are imported where they are used, so that a wrong --data is refused at once.
OnDownload = Callable[[int, int], None]  # bytes so far, bytes in all (0 where not known)
DEFAULT_IMAGE_SIZE = 28
SplitHow = Literal["three", "one", "as found"]  # of a folder without split folders: see read_folder


@dataclass(frozen=True)
class Request:
    """How data is wanted: the size, split and crop where the source has none, and who is told."""

    image_size: int = DEFAULT_IMAGE_SIZE
    split: SplitHow = "three"
    crop: float = 1.0
    on_download: OnDownload = lambda _done, _total: None


def _load_bloodmnist(request: Request, *, retries: int) -> Dataset:
    from hemascope.data.bloodmnist import load_bloodmnist

    return load_bloodmnist(retries=retries, on_download=request.on_download)


def _bloodmnist(request: Request) -> Dataset:
    return _load_bloodmnist(request, retries=4)


def _synthetic(request: Request) -> Dataset:
    from hemascope.data.synthetic import rendered_dataset

    return rendered_dataset(image_size=request.image_size)


def _auto(request: Request) -> Dataset:
    """BloodMNIST if it is at hand or can be had at once, otherwise rendered cells.

    A damaged cache or a home that cannot be written to is a reason like any other; a wrong
    $HEMASCOPE_BLOODMNIST is not: whoever sets it wants that file.
    """
    from hemascope.data.bloodmnist import VARIABLE

    try:
        return _load_bloodmnist(request, retries=0)
    except HemascopeError as error:
        if os.environ.get(VARIABLE):
            raise
        return replace(_synthetic(request), notes=(str(error),))


# To add a data source: its file, and its row here.
DATASETS: dict[str, Callable[[Request], Dataset]] = {
    "auto": _auto,
    "bloodmnist": _bloodmnist,
    "synthetic": _synthetic,
}


def check_source(source: str) -> None:
    """Refuses early, before any work, a source that cannot be read.

    Raises:
        DataError: If `source` is no name in `DATASETS`, no .npz file and no folder.
    """
    path = Path(source)
    if not source:
        raise DataError("--data is empty; name a data set, an .npz file or a folder.")
    if source in DATASETS or path.is_dir() or path.is_file():
        return
    if path.suffix == ".npz" or path.parent != Path():
        raise DataError(f"--data {source}: there is no such file or folder.")
    raise DataError(
        f"--data {source} is no data set, .npz file or folder; {did_you_mean(source, DATASETS)}"
    )


def file_of(source: str) -> Path:
    """The file or folder that a source is read from, whether it is there or not."""
    from hemascope.data.bloodmnist import find_bloodmnist

    return (find_bloodmnist() or Path(source)) if source in ("auto", "bloodmnist") else Path(source)


def load(source: str, request: Request | None = None) -> Dataset:
    """Reads what `--data` names: a row of `DATASETS`, an .npz file, or a folder of class folders.

    Raises:
        DataError: If it is not there or not what it should be.
        UnreachableError: If it must be downloaded and cannot be.
    """
    check_source(source)
    request = request or Request()
    if source in DATASETS:
        return DATASETS[source](request)
    from hemascope.data.folder import read_folder
    from hemascope.data.npz import read_npz

    path = Path(source)
    if path.is_dir():
        return read_folder(
            path, image_size=request.image_size, split=request.split, crop=request.crop
        )
    return read_npz(path)
