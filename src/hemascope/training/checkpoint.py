"""A training run on disk between two epochs: safetensors and one JSON that names them.

The JSON is renamed into place last, as with an artifact: whoever resumes finds one whole
checkpoint, the old or the new.
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from hemascope.core.errors import DataError, shortened
from hemascope.store.files import write_json
from hemascope.store.model_folder import read_tensors, remove_older, write_tensors
from hemascope.training.state import EpochRecord

_INFO = "checkpoint.json"
_VERSION = 2
_HISTORY = TypeAdapter(list[EpochRecord], config=ConfigDict(strict=True, allow_inf_nan=False))


def has_checkpoint(folder: Path) -> bool:
    """Whether a run was stopped after at least one epoch."""
    return (folder / _INFO).is_file()


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], history: list[EpochRecord]) -> None:
    """Replaces the checkpoint in `folder` at one stroke.

    Raises:
        OutputError: If it cannot be written; the one that was there is still whole.
    """
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

    file, sha256 = write_tensors(folder, "state", arrays)
    content = {
        "format_version": _VERSION,
        "tensors_file": file,
        "tensors_sha256": sha256,
        "history": history,
    }
    write_json(folder / _INFO, content)
    remove_older(folder, "state", file)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], list[EpochRecord]]:
    """Reads what `save_checkpoint` wrote.

    Raises:
        DataError: If a part of it is missing, damaged or of another version.
    """
    path = folder / _INFO
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        if content["format_version"] != _VERSION:
            raise DataError(
                f"{path} has format version {content['format_version']!r}, this hemascope reads "
                f"{_VERSION}; resume with the version that wrote it."
            )
        history = _HISTORY.validate_json(json.dumps(content["history"]))
        if [record.epoch for record in history] != list(range(1, len(history) + 1)):
            raise ValueError("its history does not count the epochs")
        if not all("val_loss" in record.figures for record in history):
            raise ValueError("its history lacks the val loss")
        file, sha256 = str(content["tensors_file"]), str(content["tensors_sha256"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a whole checkpoint ({shortened(error)}); train the run again with "
            "`overwrite`."
        ) from error
    arrays = read_tensors(folder, file, sha256)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, history
