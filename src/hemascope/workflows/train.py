"""`hemascope train`: one network, one seed, one run folder."""

import contextlib
import csv
import io
import math
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hemascope import __version__
from hemascope.core.classes import Split
from hemascope.core.errors import (
    RESEARCH_USE_ONLY,
    DataError,
    OutputError,
    UsageError,
    did_you_mean,
)
from hemascope.core.images import Dataset, LabeledImages
from hemascope.inference.efficiency import peak_memory_bytes, reset_peak_memory
from hemascope.inference.torch_engine import load_model, pick_device, pick_precision
from hemascope.models import head_of
from hemascope.report.figures import draw_run
from hemascope.report.text import epoch_line, results_text
from hemascope.settings.run import Precision, RunSettings, load_config
from hemascope.store.files import (
    LOCK,
    MARK,
    append_line,
    claimed,
    make_folder,
    make_out,
    read_json,
    uninterrupted,
    write_json,
    write_text,
)
from hemascope.store.model_folder import (
    ArtifactInfo,
    Preprocessing,
    TrainingData,
    load_artifact,
    load_info,
    load_seen,
    save_artifact,
)
from hemascope.store.provenance import fingerprint
from hemascope.store.run_folder import is_finished, read_run
from hemascope.training import loop
from hemascope.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from hemascope.training.state import EpochRecord, TrainingState
from hemascope.training.task import ClassificationTask
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import check_fit, write_results

_Stage = Literal["nothing", "begun", "stopped", "finished"]
_LOG = "training.log"
# The columns of history.csv; another one says which data it was.
_HISTORY = (
    *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("test_loss", "test_accuracy", "test_f1_weighted", "train_seconds"),
)
# What a run holds before its first epoch is done.
_WRITTEN_FIRST = {MARK, LOCK, "config.toml", _LOG, "model", "figures", "checkpoint"}


@dataclass(frozen=True, eq=False)
class FittedRun:
    """A run folder whose network is trained; `finish` evaluates it on the test split.

    Attributes:
        folder: The run folder.
        settings: What was trained and how.
        device: Where.
        precision: In what.
        history: Every epoch, as in `history.csv`.
        peak_memory_bytes: Of this process while training; None where it is not known.
    """

    folder: Path
    settings: RunSettings
    device: torch.device
    precision: Precision
    history: Sequence[EpochRecord]
    peak_memory_bytes: int | None


def train(
    settings: RunSettings,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool,
    reporter: Reporter,
    resume: bool = False,
) -> Path:
    """Trains one network and evaluates it: `fit`, then `finish`.

    Args:
        settings: What to train and how.
        dataset: With all three splits.
        out: The run folder.
        overwrite: Whether an older run in `out` may be deleted.
        reporter: Whom to tell.
        resume: Whether to resume the run in `out`, if there is one.

    Returns:
        The run folder.

    Raises:
        UsageError: As `fit`.
        DataError: As `fit`.
        DivergedError: As `fit`.
        OutputError: As `fit`.
    """
    watched = {"test": dataset.splits[Split.TEST]} if settings.training.test_every_epoch else None
    with claimed(out):
        fitted = fit(
            settings,
            dataset,
            out,
            overwrite=overwrite,
            reporter=reporter,
            resume=resume,
            watched=watched,
        )
        finish(fitted, dataset)
    return out


def fit(
    settings: RunSettings,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool,
    reporter: Reporter,
    resume: bool = False,
    watched: Mapping[str, LabeledImages] | None = None,
) -> FittedRun:
    """Trains one network without the test split, so a search may call it as often as it likes.

    After each epoch, history, model and checkpoint are written together: a run that is stopped at
    any point holds its last finished epoch, and `resume` continues from there; on a CPU, to the
    same weights, to the bit, that it would have had.

    Args:
        settings: What to train and how.
        dataset: Its train and val splits are used, and no other is looked at.
        out: The run folder.
        overwrite: Whether an older run in `out` may be deleted.
        reporter: Whom to tell.
        resume: Whether to resume the run in `out`, if there is one; a finished one is kept.
        watched: Further images to evaluate each epoch, by the name of their split; nothing is
            chosen by them.

    Raises:
        UsageError: If the settings cannot be carried out on this machine or data.
        DataError: If `settings.start` or `settings.teacher` is not a fitting model, or the run in
            `out` is another one.
        DivergedError: If the loss is no longer a number.
        OutputError: If `out` may not be written to, or a file cannot be.
    """
    device = pick_device(settings.device)
    precision = pick_precision(settings.precision, device)
    _check_classes(settings, dataset)
    known = {split: dataset.splits[split] for split in (Split.TRAIN, Split.VAL)}
    run = _Run(settings, replace(dataset, splits=known), out, device, precision)
    with claimed(out):
        earlier = run.look_back() if resume else "nothing"
        if earlier == "finished":
            return FittedRun(out, settings, device, precision, run.read_history(), None)
        state, task = _begin(run, earlier, overwrite=overwrite)
        reset_peak_memory()
        label, val = f"{settings.name} seed {settings.seed}", known[Split.VAL]
        num_batches = -(-len(task) // settings.training.batch_size)
        num_steps = (settings.training.epochs - len(state.history)) * num_batches
        with _logged(out), reporter.steps(label, num_steps) as on_step:
            for _ in loop.fit(state, task, val, watched=watched, on_step=on_step):
                reporter.say(f"{label}: {run.finish_epoch(state)}")
        return FittedRun(out, settings, device, precision, state.history, peak_memory_bytes())


def finish(fitted: FittedRun, dataset: Dataset) -> None:
    """Evaluates the network that `fit` kept and draws the run; the only reader of the test split.

    A run that has its results already is only drawn again. Nothing is left to resume.

    Args:
        fitted: What `fit` returned.
        dataset: The same data, with its test split.

    Raises:
        DataError: If a part of the run is missing or damaged.
        OutputError: If a file cannot be written.
    """
    folder = fitted.folder
    with claimed(folder), _logged(folder):
        if not is_finished(folder):
            facts = read_json(folder / MARK, needed=("data",))
            if facts["data"]["md5"] != dataset.md5:
                raise DataError(
                    f"{folder} was trained on other data than {dataset.source}; give the data that "
                    "it was trained on."
                )
            write_json(folder / MARK, {**facts, "data": dataset.describe()})
            text = write_results(
                folder,
                dataset,
                device=fitted.device,
                precision=fitted.precision,
                views=fitted.settings.views,
                more={
                    "epochs": len(fitted.history),
                    "train_seconds": sum(record.seconds for record in fitted.history),
                    "peak_memory_bytes": fitted.peak_memory_bytes,
                },
            )
            append_line(folder / _LOG, f"\n{text}")
        run = read_run(folder)
        write_text(folder / "results.txt", results_text(run.results))
        draw_run(run)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)


@contextlib.contextmanager
def _logged(folder: Path) -> Generator[None]:
    """Notes in the run's log what stopped it."""
    try:
        yield
    except BaseException as error:
        # A full disk may refuse this line too; what stopped the run is the error to show.
        with contextlib.suppress(OutputError):
            append_line(
                folder / _LOG,
                f"stopped ({error!r}): the results of the epochs listed above are kept",
            )
        raise


def _begin(
    run: "_Run", earlier: _Stage, *, overwrite: bool
) -> tuple[TrainingState, ClassificationTask]:
    """The state to train on from, and what it is to learn; the run folder is ready for them."""
    settings, dataset, stopped = run.settings, run.dataset, earlier == "stopped"
    torch.manual_seed(settings.seed)
    model = starting_model(settings, dataset, weights_follow=stopped)
    teacher = _fitting_model(settings.teacher, dataset)[1] if settings.teacher else None
    state = TrainingState(
        model, settings.training, seed=settings.seed, device=run.device, precision=run.precision
    )
    if stopped:
        state.restore(*load_checkpoint(run.folder / "checkpoint"))
        run.continue_from(state)
    else:
        make_out(run.folder, overwrite=overwrite or earlier == "begun")
        run.start()
    train = dataset.splits[Split.TRAIN]
    return state, ClassificationTask(train, state, classes=dataset.classes, teacher=teacher)


def starting_model(
    settings: RunSettings, dataset: Dataset, *, weights_follow: bool = False
) -> nn.Module:
    """The network as training finds it: fresh, pretrained, or with another run's weights.

    Args:
        settings: Which architecture, and whose weights.
        dataset: Whose image size and classes it takes.
        weights_follow: Whether a checkpoint's weights will be loaded into it.

    Raises:
        UsageError: If there is no such architecture.
        DataError: If `settings.start` is another architecture or has other classes.
        UnreachableError: If pretrained weights cannot be fetched.
    """
    model = loop.fresh_model(
        settings,
        image_size=dataset.image_size,
        num_classes=len(dataset.classes),
        weights_follow=weights_follow or bool(settings.start),
    )
    if settings.start and not weights_follow:
        info, started = _fitting_model(settings.start, dataset)
        try:
            model.load_state_dict(started.state_dict())
        except RuntimeError as error:
            raise DataError(
                f"{settings.start} is a '{info.model.name}' with the options {info.model.options}, "
                f"whose weights do not fit the '{settings.model.name}' to be trained; choose a "
                "model of the same architecture."
            ) from error
    if settings.training.freeze:
        model.requires_grad_(requires_grad=False)
        head_of(model).requires_grad_()
    return model


def _fitting_model(path: str, dataset: Dataset) -> tuple[ArtifactInfo, nn.Module]:
    """A trained network that takes these images and knows these classes."""
    info, model = load_model(Path(path))
    check_fit(info, dataset, path)
    return info, model


def _check_classes(settings: RunSettings, dataset: Dataset) -> None:
    for name in settings.training.augmentation.only_classes:
        if name not in dataset.classes.names:
            hint = did_you_mean(name, dataset.classes.names)
            raise UsageError(f"augmentation.only_classes: there is no class '{name}'; {hint}")


class _Run:
    """The run folder: what is written, and when."""

    def __init__(
        self,
        settings: RunSettings,
        dataset: Dataset,
        folder: Path,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.settings = settings
        self._config = settings.to_toml()
        self.dataset = dataset
        self.folder = folder
        self.device = device
        self.precision: Precision = precision

    def look_back(self) -> _Stage:
        """How far the run in the folder came; "begun" is not yet the end of an epoch.

        Raises:
            DataError: If it is another run than the one to resume, or cannot be resumed.
        """
        if not (self.folder / MARK).is_file():
            return "nothing"
        facts = read_json(self.folder / MARK)
        data, machine = facts.get("data"), facts.get("machine")
        if (
            not isinstance(data, dict)
            or not isinstance(machine, dict)
            or not {"precision", "models"} <= facts.keys()
        ):
            raise DataError(f"--resume: {self.folder} holds no run of 'hemascope train'.")
        config = self.folder / "config.toml"
        begun = {path.name for path in self.folder.iterdir()} <= _WRITTEN_FIRST
        if not config.is_file() and not begun:
            raise DataError(
                f"--resume: {config} is missing, so the run's settings are unknown; "
                "give --overwrite instead, or another --out."
            )
        differences = {
            "settings": config.is_file() and load_config(config).to_toml() != self._config,
            "data": data.get("md5") != self.dataset.md5,
            "weights in --start or --teacher": facts["models"] != self._models_used(),
            "device or precision": (machine.get("device"), facts["precision"])
            != (self.device.type, self.precision),
        }
        for what, differ in differences.items():
            if differ:
                raise DataError(
                    f"--resume: the run in {self.folder} was started with other {what}; give the "
                    "same command as then, or --overwrite instead of --resume."
                )
        if is_finished(self.folder):
            return "finished"
        if has_checkpoint(self.folder / "checkpoint"):
            return "stopped"
        if not begun or any((self.folder / "model").glob("*")):
            raise DataError(
                f"--resume: {self.folder} has no checkpoint to go on from; give --overwrite "
                "instead, or another --out."
            )
        return "begun"

    def start(self) -> None:
        facts = {
            **fingerprint(self.dataset, device=self.device.type),
            "precision": self.precision,
            "models": self._models_used(),
        }
        write_json(self.folder / MARK, facts)
        self._make_folders()
        write_text(self.folder / "config.toml", self._config)
        self.log(f"data: {self.dataset.title} (md5 of {self.dataset.md5_of} {self.dataset.md5})")
        self.log(f"command: {facts['command']}")
        self.log(f"date: {facts['date']}, device: {self.device.type}. {RESEARCH_USE_ONLY}")

    def _make_folders(self) -> None:
        for name in ("model", "figures", "checkpoint"):
            make_folder(self.folder / name)

    def log(self, line: str) -> None:
        append_line(self.folder / _LOG, line)

    def _models_used(self) -> dict[str, str]:
        """Which models the run begins with or learns from, by the SHA-256 of their weights."""
        used = {"start": self.settings.start, "teacher": self.settings.teacher}
        return {role: load_info(Path(path)).weights_sha256 for role, path in used.items() if path}

    def finish_epoch(self, state: TrainingState) -> str:
        """Saves what the epoch left, and gives its line of the log."""
        line = epoch_line(_row(state.history[-1]), self.settings.training.epochs)
        with uninterrupted():
            # The checkpoint is first, since `continue_from` can make the others from it.
            save_checkpoint(self.folder / "checkpoint", state.tensors(), state.history)
            self._save_model(state)
            self._write_history(state.history)
            self.log(line)
        return line

    def _save_model(self, state: TrainingState) -> None:
        """Replaces the model by the one of the last epoch, if that is the one to keep."""
        if not state.is_best:
            return
        weights = {
            name: tensor.detach().cpu().contiguous().numpy()
            for name, tensor in state.result.state_dict().items()
        }
        num_parameters = sum(p.numel() for p in state.result.parameters())
        info = self._info(state.history[-1], num_parameters)
        save_artifact(self.folder / "model", info, weights, seen=self._seen)

    @cached_property
    def _seen(self) -> NDArray[np.uint64] | None:
        """The hashes of all images that went into the weights, those of start and teacher too."""
        seen = [self.dataset.splits[Split.TRAIN].hashes]
        for path in (self.settings.start, self.settings.teacher):
            if path:
                earlier = load_seen(Path(path))
                if earlier is None:
                    return None
                seen.append(earlier)
        return np.unique(np.concatenate(seen))

    def _info(self, record: EpochRecord, num_parameters: int) -> ArtifactInfo:
        train = self.dataset.splits[Split.TRAIN]
        return ArtifactInfo(
            hemascope_version=__version__,
            model=self.settings.model,
            class_names=self.dataset.classes.names,
            preprocessing=Preprocessing(image_size=self.dataset.image_size),
            num_parameters=num_parameters,
            trained_on=TrainingData(
                title=self.dataset.title,
                md5=self.dataset.md5,
                num_images=len(train),
                channel_mean=self.dataset.channels.mean,
                channel_std=self.dataset.channels.std,
            ),
            settings=self.settings,
            epoch=record.epoch,
        )

    def continue_from(self, state: TrainingState) -> None:
        """Resumes the run: its checkpoint may be one epoch ahead of its other files."""
        self._make_folders()
        self._save_model(state)
        self._write_history(state.history)
        self.log(f"resumed after epoch {len(state.history)}")

    def _write_history(self, history: list[EpochRecord]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_HISTORY, "data"])
        for record in history:
            values = _row(record).values()
            cells = (f"{value:.6f}" if isinstance(value, float) else value for value in values)
            writer.writerow([*cells, self.dataset.title])
        write_text(self.folder / "history.csv", text.getvalue())

    def read_history(self) -> list[EpochRecord]:
        """The history of a finished run.

        Raises:
            DataError: If a part of the run is missing or damaged.
        """
        load_artifact(self.folder)
        columns = read_run(self.folder).history
        rows = np.stack(list(columns.values()), axis=1).tolist()
        return [_record(dict(zip(columns, row, strict=True))) for row in rows]


def _row(record: EpochRecord) -> dict[str, float | None]:
    """The columns of `history.csv` but the last; None where a figure was not measured."""
    values = {
        "epoch": record.epoch,
        "train_loss": record.train_loss,
        "train_seconds": record.seconds,
        **record.figures,
    }
    return {column: values.get(column) for column in _HISTORY}


def _record(row: dict[str, float]) -> EpochRecord:
    """What `_row` was made of."""
    return EpochRecord(
        epoch=int(row.pop("epoch")),
        train_loss=row.pop("train_loss"),
        seconds=row.pop("train_seconds"),
        figures={name: value for name, value in row.items() if not math.isnan(value)},
    )
