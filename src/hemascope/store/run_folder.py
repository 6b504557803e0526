"""A run folder: the names of its files, and what is read back from them."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.metrics import Figures
from hemascope.settings.base import explain
from hemascope.settings.run import NAME_PATTERN, RunSettings, load_config
from hemascope.store.files import FIGURES, LOCK, MARK, csv_text, read_json, write_json, write_text
from hemascope.store.provenance import FORMAT_VERSION, Fingerprint, Record

Floats = NDArray[np.float64]
R = TypeVar("R", bound=Record)

_CONFIG, _RESULTS = "config.toml", "results.json"
_MODEL, _CHECKPOINT, _LOG = "model", "checkpoint", "training.log"
_HISTORY_COLUMNS = {
    f"{split}_{what}" for split in ("train", "val") for what in ("loss", "accuracy")
}
# What a run holds before its first epoch is done.
WRITTEN_FIRST = {MARK, LOCK, _CONFIG, _LOG, _MODEL, FIGURES, _CHECKPOINT}


class NetworkFacts(Record):
    """What results say of the network itself."""

    notice: str = RESEARCH_USE_ONLY
    format_version: Literal[2] = FORMAT_VERSION
    name: str = Field(pattern=NAME_PATTERN)
    seed: int
    trained_on: str
    class_names: tuple[str, ...] = Field(min_length=1)
    num_parameters: int
    size_bytes: int


class Costs(Record):
    """What making the network took; an ensemble says how many members it has."""

    epochs: int | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    num_members: int | None = None


class FiguresWithViews(Figures):
    """The same figures where each image is also shown in other views."""

    num_views: int


class RunResults(Costs, Figures, NetworkFacts):
    """What `results.json` holds: a network and its figures on one split.

    Attributes:
        data: The data's title.
        num_seen: How many of the images the network was trained on, at any size; None if that is
            not known. `num_seen_val` is the same for val.
        is_moved: Whether an exported model's last layer was moved to the images, without their
            labels, as `predict` does for a laboratory unlike those of training.
        latency_ms_batch1: Time per image from pixels to logits, one image at a time.
        latency_ms_batch128: The same in batches of 128.
    """

    data: str
    data_md5: str
    split: str
    precision: str
    num_views: int = 1
    is_moved: bool = False
    warnings: tuple[str, ...] = ()
    num_seen: int | None
    num_seen_val: int | None = None
    latency_ms_batch1: float
    latency_ms_batch128: float
    with_views: FiguresWithViews | None = None

    @property
    def label(self) -> str:
        """The network's name, and how it was asked where that changes answers."""
        views = f", {self.num_views} views" if self.num_views > 1 else ""
        return f"{self.name}{views}{', moved last layer' if self.is_moved else ''}"

    @property
    def confusion(self) -> NDArray[np.int64]:
        """The confusion matrix, shape (C, C)."""
        return np.array(self.confusion_matrix, dtype=np.int64)

    @property
    def num_images(self) -> int:
        """How many images the figures are of."""
        return int(self.confusion.sum())


@dataclass(frozen=True, eq=False)
class History:
    """What `history.csv` holds: each numeric column by name, as an array over the epochs.

    Attributes:
        columns: Shape (epochs,) each; NaN where an epoch has no such figure.
    """

    columns: Mapping[str, Floats]

    def __len__(self) -> int:
        """The number of epochs."""
        return len(self.columns["epoch"])

    def __getitem__(self, column: str) -> Floats:
        """A column, shape (epochs,)."""
        return self.columns[column]

    def known(self) -> list[str]:
        """The columns that have a figure in every epoch."""
        return [name for name, values in self.columns.items() if np.isfinite(values).all()]


class _Inside:
    """A path inside a run folder, by its name there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", _kind: object = None) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run, or of an evaluation, lie; the only place that knows their names."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    config = _Inside(_CONFIG)  # the settings, as `config` takes them again
    fingerprint = _Inside(MARK)  # what the run was made with
    log = _Inside(_LOG)  # what happened, for people
    history = _Inside("history.csv")  # what happened in each epoch, for programs
    results = _Inside(_RESULTS)  # the figures; a run that has them is finished
    results_text = _Inside("results.txt")  # the figures as a table for people
    model = _Inside(_MODEL)  # the model folder
    checkpoint = _Inside(_CHECKPOINT)  # what `resume` needs, while the run is not finished
    figures = _Inside(FIGURES)  # the folder of figures
    errors = _Inside(f"{FIGURES}/errors.svg")  # the most confident errors, if any
    error_cells = _Inside(f"{FIGURES}/error-cells.png")  # their pixels, one below the other
    tensorboard = _Inside("tensorboard")  # TensorBoard's event files, if it follows the run
    page = _Inside("report.html")  # the report as one page
    markdown = _Inside("report.md")  # the report as Markdown
    comparison = _Inside("comparison.json")  # what a report says of several runs, for programs

    def predictions(self, split: str, *, views: bool = False) -> Path:
        """The predictions on a split, with eight views of each image or with one."""
        return self.path / f"predictions-{Path(split).name}{'-views' if views else ''}.csv"

    @property
    def is_finished(self) -> bool:
        """Whether a run came to its results."""
        return self.results.is_file()

    def read_results(self) -> RunResults:
        """The results, held to what they should be.

        Raises:
            DataError: If the file is missing, damaged or of another version.
        """
        results = _read(self.results, RunResults)
        names, rows = results.class_names, results.confusion_matrix
        if {len(names)} != {len(rows), *map(len, rows)} or results.per_class.keys() != set(names):
            raise DataError(f"{self.results}: its tables do not match its classes; train again.")
        return results

    def read_fingerprint(self) -> Fingerprint:
        """What the run was made with.

        Raises:
            DataError: If the file is missing, damaged or of another version.
        """
        return _read(self.fingerprint, Fingerprint)

    def read_history(self) -> History:
        """The history.

        Raises:
            DataError: If the file is missing or damaged.
        """
        try:
            with self.history.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            names = [name for name in rows[0] if name != "data"]
            if missing := (_HISTORY_COLUMNS | {"epoch"}) - set(names):
                raise ValueError(f"it has no {sorted(missing)[0]}")
            return History(
                {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
            )
        except (OSError, ValueError, IndexError, KeyError, TypeError, csv.Error) as error:
            raise DataError(f"{self.history} is not a training history ({error}).") from error

    def write_history(self, epochs: Sequence[Mapping[str, float | None]], data: str) -> None:
        """Replaces the history: a row for each epoch, with the data's title in the last column."""
        rows: list[list[object]] = [[*epochs[0], "data"]]
        for epoch in epochs:
            cells = (f"{v:.6f}" if isinstance(v, float) else v for v in epoch.values())
            rows.append([*cells, data])
        write_text(self.history, csv_text(rows))

    def write_results(self, results: RunResults, text: str) -> None:
        """Writes the results for people, then for programs: with those the run is finished."""
        write_text(self.results_text, text)
        write_json(self.results, results)

    def read(self) -> "SavedRun":
        """A finished run.

        Raises:
            DataError: If a file of it is missing or damaged, as in a run that was stopped.
        """
        return SavedRun(
            self,
            load_config(self.config),
            self.read_results(),
            self.read_history(),
            self.read_fingerprint(),
        )


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A finished run as its files tell it."""

    folder: RunFolder
    settings: RunSettings
    results: RunResults
    history: History
    fingerprint: Fingerprint


Runs = Mapping[str, Sequence[SavedRun]]  # the runs of each network, one a seed


def find_runs(folder: Path) -> list[RunFolder]:
    """The run folders directly inside a folder, finished or not, by name.

    Raises:
        DataError: If there is none.
    """
    if found := sorted(config.parent for config in folder.glob(f"*/{_CONFIG}")):
        return [RunFolder(path) for path in found]
    if (folder / _CONFIG).is_file():
        raise DataError(f"{folder} is a run folder itself; give the folder that holds it.")
    raise DataError(f"{folder} holds no run folders; give the `out` of 'hemascope reproduce'.")


def find_results(folders: Sequence[Path]) -> list[RunFolder]:
    """The folders with results among some folders and those directly inside them.

    Raises:
        DataError: If a folder holds none.
    """
    found: list[RunFolder] = []
    for folder in folders:
        here = [folder / _RESULTS, *sorted(folder.glob(f"*/{_RESULTS}"))]
        present = [RunFolder(path.parent) for path in here if path.is_file()]
        if not present:
            raise DataError(f"{folder} holds no {_RESULTS}; give run folders, or their parent.")
        found += [run for run in present if run not in found]
    return found


def _read(path: Path, kind: type[R]) -> R:
    content = read_json(path)
    if "format_version" not in content and "notice" in content:
        raise DataError(
            f"{path} was written by hemascope 0.1, whose figures are not those of this version; "
            f"make it again: {_command_behind(path)}"
        )
    try:
        return kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, kind)} Train the run again.") from error


def _command_behind(path: Path) -> str:
    """The command that made a file, with `overwrite`; a general one where that is unknown."""
    try:
        command = read_json(path.with_name(MARK)).get("command")
        words = shlex.split(command) if isinstance(command, str) else []
    except (DataError, ValueError):
        words = []
    if not words:
        return "hemascope train, or hemascope evaluate, with `overwrite`."
    kept = [word for word in words if word not in ("--resume", "--overwrite")]
    return shlex.join([*kept, "--overwrite"])
