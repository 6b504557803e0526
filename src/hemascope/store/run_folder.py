"""Reads what `hemascope train` left in a run folder."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hemascope.core.errors import DataError
from hemascope.metrics import METRICS
from hemascope.settings.base import explain
from hemascope.settings.run import NAME_PATTERN, RunSettings, load_config
from hemascope.store.files import MARK, read_json


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A finished run as its files tell it.

    Attributes:
        folder: The run folder.
        settings: Its `config.toml`.
        results: Its `results.json`.
        history: Its `history.csv`: each numeric column as an array over the epochs.
        fingerprint: Its `fingerprint.json`.
    """

    folder: Path
    settings: RunSettings
    results: dict[str, Any]
    history: dict[str, NDArray[np.float64]]
    fingerprint: dict[str, Any]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """The confusion matrix on the test split, shape (C, C)."""
        return np.array(self.results["confusion_matrix"], dtype=np.int64)


Runs = Mapping[str, Sequence[SavedRun]]  # the runs of each network, one a seed

_Share = Annotated[float, Field(ge=0, le=1)]
_HISTORY = {f"{split}_{what}" for split in ("train", "val") for what in ("loss", "accuracy")}
_FINGERPRINT = ("data", "command", "date", "versions", "machine")


def read_run(folder: Path) -> SavedRun:
    """Reads a finished run.

    Raises:
        DataError: If a file of it is missing or damaged, as in a run that was stopped.
    """
    return SavedRun(
        folder,
        load_config(folder / "config.toml"),
        read_results_file(folder / "results.json"),
        _read_history(folder / "history.csv"),
        read_json(folder / MARK, needed=_FINGERPRINT),
    )


class _Results(BaseModel):
    """What `results.json` must hold, and of which kind; it may hold more."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)

    name: str = Field(pattern=NAME_PATTERN)
    seed: int
    data: str
    data_md5: str = ""
    split: str
    num_parameters: int
    num_views: int = 1
    num_seen: int | None = None
    class_names: list[str] = Field(min_length=1)
    per_class: dict[str, dict[str, float | None]]
    confusion_matrix: list[list[int]]
    loss: float
    accuracy: _Share
    f1_macro: _Share
    with_views: dict[str, Any] = Field(default_factory=dict)
    latency_ms_batch1: float | None = None
    latency_ms_batch128: float | None = None
    train_seconds: float | None = None


def read_results_file(path: Path) -> dict[str, Any]:
    """Reads a `results.json`, and holds what stands in it to what it should be.

    Raises:
        DataError: If it is missing or damaged.
    """
    content = read_json(path, needed=tuple(METRICS))
    try:
        checked = _Results.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, _Results)} Train the run again.") from error
    names, rows = checked.class_names, checked.confusion_matrix
    if {len(names)} != {len(checked.per_class), len(rows), *map(len, rows)}:
        raise DataError(f"{path}: its tables are not of its classes; train the run again.")
    return content


def is_finished(folder: Path) -> bool:
    """Whether a run came to its results."""
    return (folder / "results.json").is_file()


def find_runs(folder: Path) -> list[Path]:
    """The run folders directly inside a folder, finished or not, by name.

    Raises:
        DataError: If there is none.
    """
    if found := sorted(config.parent for config in folder.glob("*/config.toml")):
        return found
    raise DataError(f"{folder} holds no run folders; give the --out of 'hemascope reproduce'.")


def _read_history(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = [name for name in rows[0] if name != "data"]
        if missing := _HISTORY - set(columns):
            raise ValueError(f"it has no {sorted(missing)[0]}")
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}
    except (OSError, ValueError, IndexError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is not a training history ({error}).") from error
