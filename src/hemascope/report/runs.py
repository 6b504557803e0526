"""Reads what `hemascope train` left in a run folder."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.config import RunSettings, load_config
from hemascope.errors import DataError
from hemascope.files import MARK, read_json
from hemascope.metrics import METRICS


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

_RESULTS = (*METRICS, "per_class", "confusion_matrix", "class_names", "data", "name", "split")
_FINGERPRINT = ("data", "command", "date", "versions", "machine")


def read_run(folder: Path) -> SavedRun:
    """Reads a finished run.

    Raises:
        DataError: If a file of it is missing or damaged, as in a run that was stopped.
    """
    return SavedRun(
        folder,
        load_config(folder / "config.toml"),
        read_json(folder / "results.json", needed=_RESULTS),
        _read_history(folder / "history.csv"),
        read_json(folder / MARK, needed=_FINGERPRINT),
    )


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
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}
    except (OSError, ValueError, IndexError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is not a training history ({error}).") from error
