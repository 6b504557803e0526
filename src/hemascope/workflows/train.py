"""`hemascope train`: one network, one seed, one run folder."""

import contextlib
import math
import shutil
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
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
from hemascope.core.seen import Seen
from hemascope.data import located
from hemascope.inference.efficiency import peak_memory_bytes, reset_peak_memory
from hemascope.inference.torch_engine import load_model, pick_device, pick_precision
from hemascope.models import check_model, head_of
from hemascope.report.run_page import write_run_page
from hemascope.report.text import epoch_line, results_text
from hemascope.settings.compute import Precision
from hemascope.settings.output import Output
from hemascope.settings.run import RunSettings, load_config
from hemascope.store.files import (
    append_line,
    claimed,
    make_folder,
    make_out,
    uninterrupted,
    write_json,
    write_text,
)
from hemascope.store.model_folder import (
    ArtifactInfo,
    TrainingData,
    load_artifact,
    load_info,
    load_seen,
    save_artifact,
)
from hemascope.store.provenance import BaseNetwork, fingerprint
from hemascope.store.run_folder import WRITTEN_FIRST, Costs, RunFolder
from hemascope.training import loop, parallel
from hemascope.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from hemascope.training.state import EpochRecord, TrainingState
from hemascope.training.task import ClassificationTask
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import write_results
from hemascope.workflows.sources import load_data

_Stage = Literal["nothing", "begun", "stopped", "finished"]
# The columns of history.csv; another one says which data it was.
_HISTORY = (
    *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("test_loss", "test_accuracy", "test_f1_weighted", "train_seconds"),
)
_OF_TRAINING = ("dropout", "pretrained")  # options that a trained network does not depend on


def train_and_tell(
    settings: RunSettings, output: Output, reporter: Reporter, watch: "Watch | None" = None
) -> str | None:
    """Reads the data that the settings name and trains on it; see `train`.

    Returns:
        The results as text, where the report is, and what can be done next; None in a process that
        only helps.

    Raises:
        DataError: If the processes of a group have different data or settings.
    """
    with parallel.joined(settings.device):
        dataset = load_data(settings.data, reporter)
        parallel.check_same(data=dataset.md5, settings=_without_places(settings))
        folder = train(settings, dataset, output, reporter, watch=watch)
        if parallel.rank():
            return None
    text = folder.results_text.read_text("utf-8")
    return f"{text}\nReport: {folder.page}\nNext: hemascope export {folder} --out MODEL"


def train(
    settings: RunSettings,
    dataset: Dataset,
    output: Output,
    reporter: Reporter,
    *,
    watch: "Watch | None" = None,
) -> RunFolder:
    """Trains one network and evaluates it: `fit`, then `finish`.

    Args:
        settings: What to train and how.
        dataset: With all three splits.
        output: The run folder.
        reporter: Gets progress and notes.
        watch: As `fit`; called once more when the results are there.

    Returns:
        The run folder.

    Raises:
        UsageError: As `fit`.
        DataError: As `fit`.
        DivergedError: As `fit`.
        OutputError: As `fit`.
    """
    watched = {"test": dataset.splits[Split.TEST]} if settings.training.test_every_epoch else None
    with _claimed(output.folder):
        run = fit(settings, dataset, output, reporter, watched=watched, watch=watch)
        if not parallel.rank():
            finish(run, dataset)
            if watch:
                watch(run)
    return run.folder


def fit(
    settings: RunSettings,
    dataset: Dataset,
    output: Output,
    reporter: Reporter,
    *,
    watched: Mapping[str, LabeledImages] | None = None,
    watch: "Watch | None" = None,
) -> "TrainingRun":
    """Trains one network without the test split, so a search may call it as often as it likes.

    After each epoch, history, model and checkpoint are written together: a run that is stopped at
    any point holds its last finished epoch, and can be resumed from there; on a CPU, to the
    same weights, to the bit, that it would have had. In a group of processes, each calls it, and
    the first one writes.

    Args:
        settings: What to train and how.
        dataset: Its train and val splits are used, and no other is looked at.
        output: The run folder; a finished run that is to be resumed is kept.
        reporter: Gets progress and notes.
        watched: Further images to evaluate each epoch, by the name of their split; nothing is
            chosen by them.
        watch: Called after each epoch that was saved; what it raises ends the training.

    Raises:
        UsageError: If the settings cannot be carried out on this machine or data.
        DataError: If `settings.start` or `settings.teacher` is not a fitting model, or the run in
            the folder is another one.
        DivergedError: If the loss is no longer a number.
        OutputError: If the folder may not be written to, or a file cannot be.
    """
    for name in settings.training.augmentation.only_classes:
        if name not in dataset.classes.names:
            hint = did_you_mean(name, dataset.classes.names)
            raise UsageError(f"augmentation.only_classes: there is no class '{name}'; {hint}")
    if settings.training.by_laboratory and dataset.splits[Split.TRAIN].laboratories is None:
        reporter.say("Note: the data name no laboratories: `by_laboratory` draws by class alone.")
    if settings.teacher and load_info(Path(settings.teacher)).image != dataset.spec:
        reporter.say(
            "Note: the teacher's images were cropped or framed otherwise than these: where cells "
            "look different, it errs more often, and teaches that."
        )
    device = pick_device(settings.device)
    known = {split: dataset.splits[split] for split in (Split.TRAIN, Split.VAL)}
    sources = tuple(map(located, settings.data.sources))  # so that it is found from anywhere
    data = settings.data.model_copy(update={"sources": sources})
    run = TrainingRun(
        RunFolder(output.folder),
        settings.model_copy(update={"image": dataset.spec, "data": data}),
        replace(dataset, splits=known),
        device,
        pick_precision(settings.precision, device),
    )
    with _claimed(output.folder):
        earlier: _Stage = parallel.from_first(run.look_back) if output.resume else "nothing"
        if earlier == "finished":
            run.history = parallel.from_first(run.read_history)
            return run
        state, task, note = run.begin(earlier, overwrite=output.overwrite)
        if note:
            reporter.say(note)
        run.history = state.history
        reset_peak_memory()
        label = f"{settings.name} seed {settings.seed}"
        num_batches = -(-len(task) // settings.training.batch_size)
        num_steps = (settings.training.epochs - len(state.history)) * num_batches
        with _logged(run.folder), reporter.steps(label, num_steps) as on_step:
            for _ in loop.fit(state, task, known[Split.VAL], watched=watched, on_step=on_step):
                if not parallel.rank():
                    reporter.say(f"{label}: {run.finish_epoch(state)}")
                    if watch:
                        watch(run)
        run.peak_memory_bytes = peak_memory_bytes()
        return run


def finish(run: "TrainingRun", dataset: Dataset) -> None:
    """Evaluates the network that `fit` kept and draws the run; the only reader of the test split.

    A run that has its results already is only drawn again. Nothing is left to resume.

    Args:
        run: What `fit` returned.
        dataset: The same data, with its test split.

    Raises:
        DataError: If a part of the run is missing or damaged.
        OutputError: If a file cannot be written.
    """
    folder = run.folder
    with claimed(folder.path), _logged(folder):
        if not folder.is_finished:
            facts = folder.read_fingerprint()
            if facts.data.md5 != dataset.md5:
                raise DataError(
                    f"{folder} was trained on other data than {dataset.source}; give the data that "
                    "it was trained on."
                )
            facts = facts.model_copy(update={"data": dataset.describe()})
            write_json(folder.fingerprint, facts)
            text = write_results(
                folder,
                dataset,
                device=run.device,
                precision=run.precision,
                views=run.settings.views,
                costs=Costs(
                    epochs=len(run.history),
                    train_seconds=sum(record.seconds for record in run.history),
                    peak_memory_bytes=run.peak_memory_bytes,
                ),
            )
            append_line(folder.log, f"\n{text}")
        write_text(folder.results_text, results_text(folder.read_results()))
        write_run_page(folder)
        shutil.rmtree(folder.checkpoint, ignore_errors=True)


def _claimed(folder: Path) -> contextlib.AbstractContextManager[None]:
    """`claimed` by the first process of a group; the others write nothing."""
    return contextlib.nullcontext() if parallel.rank() else claimed(folder)


@contextlib.contextmanager
def _logged(folder: RunFolder) -> Generator[None]:
    """Notes in the run's log what stopped it."""
    try:
        yield
    except BaseException as error:
        if parallel.rank():
            raise
        # A full disk may refuse this line too; what stopped the run is the error to show.
        with contextlib.suppress(OutputError):
            append_line(
                folder.log,
                f"stopped ({error!r}): the results of the epochs listed above are kept",
            )
        raise


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
        info, started = _trained(settings.start, dataset)
        weights = started.state_dict()
        head = getattr(model, "head_layer", None)
        if head and info.classes != dataset.classes:  # a new last layer
            own = model.state_dict().items()
            weights |= {name: value for name, value in own if name.startswith(f"{head}.")}
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(
                f"{settings.start} is a '{info.model.name}' with the options {info.model.options}, "
                f"whose weights do not fit the '{settings.model.name}' to be trained; choose a "
                "model of the same architecture."
            ) from error
        own, theirs = check_model(settings.model), check_model(info.model)
        other = [one for one in theirs if own.get(one) != theirs[one] and one not in _OF_TRAINING]
        if other:  # the weights fit, and would mean something else
            listed = ", ".join(f"{one} {theirs[one]}" for one in other)
            raise DataError(
                f"{settings.start} was trained with the model option(s) {listed}, which are others "
                "here; choose the preset that it was trained by."
            )
    if settings.training.freeze:
        model.requires_grad_(requires_grad=False)
        head_of(model).requires_grad_()
    return model


def _trained(path: str, dataset: Dataset) -> tuple[ArtifactInfo, nn.Module]:
    """A trained network that takes images of this size.

    Raises:
        DataError: If it takes another size.
    """
    info, model = load_model(Path(path))
    if info.image.size != dataset.image_size:
        raise DataError(
            f"the model {path} takes images of {info.image.size} pixels, the data has "
            f"{dataset.image_size}; give `image_size` {info.image.size}, or another model."
        )
    return info, model


def _teacher(path: str, dataset: Dataset) -> nn.Module:
    """A trained network that knows these classes."""
    info, model = _trained(path, dataset)
    if info.classes != dataset.classes:
        raise DataError(
            f"the teacher {path} knows {', '.join(info.class_names)}, the data has "
            f"{', '.join(dataset.classes.names)}; a teacher needs the same classes."
        )
    return model


def _without_places(settings: RunSettings) -> str:
    """Settings as TOML without where the data lies: it may have moved, and its md5 tells it."""
    data = settings.data.model_copy(update={"sources": ()})
    return settings.model_copy(update={"data": data}).to_toml()


@dataclass(eq=False)
class TrainingRun:
    """A run folder and the training that fills it: what is written, and when.

    Attributes:
        folder: The run folder.
        settings: What is trained and how.
        dataset: Its train and val splits.
        device: Where.
        precision: In what.
        history: Every epoch so far, as in `history.csv`.
        peak_memory_bytes: Of this process while training; None where it is not known.
    """

    folder: RunFolder
    settings: RunSettings
    dataset: Dataset
    device: torch.device
    precision: Precision
    history: list[EpochRecord] = field(default_factory=list[EpochRecord])
    peak_memory_bytes: int | None = None

    def look_back(self) -> _Stage:
        """How far the run in the folder came; "begun" is not yet the end of an epoch.

        Raises:
            DataError: If it is another run than the one to resume, or cannot be resumed.
        """
        folder, config = self.folder, self.folder.config
        if not folder.fingerprint.is_file():
            return "nothing"
        none = f"{folder} holds no run of 'hemascope train'"
        try:
            facts = folder.read_fingerprint()
        except DataError as error:
            raise _cannot_resume(f"{none} that can be resumed: {error}") from error
        if facts.precision is None or facts.models is None:
            raise _cannot_resume(f"{none}; choose another `out`.")
        begun = {path.name for path in folder.path.iterdir()} <= WRITTEN_FIRST
        if not config.is_file() and not begun:
            raise _cannot_resume(
                f"{config} is missing, so the run's settings are unknown; give `overwrite` "
                "instead, or another `out`."
            )
        differences = {
            "settings": config.is_file()
            and _without_places(load_config(config)) != _without_places(self.settings),
            "data": facts.data.md5 != self.dataset.md5,
            "weights in `start` or `teacher`": facts.models != self._models_used(),
            "device or precision": (facts.machine.device, facts.precision)
            != (self.device.type, self.precision),
        }
        for what, differ in differences.items():
            if differ:
                raise _cannot_resume(
                    f"the run in {folder} was started with other {what}; give the same command as "
                    "then, or `overwrite` instead."
                )
        if folder.is_finished:
            return "finished"
        if has_checkpoint(folder.checkpoint):
            return "stopped"
        if not begun or any(folder.model.glob("*")):
            raise _cannot_resume(
                f"{folder} has no checkpoint to resume from; give `overwrite` instead, or another "
                "`out`."
            )
        return "begun"

    def begin(
        self, earlier: _Stage, *, overwrite: bool
    ) -> tuple[TrainingState, ClassificationTask, str]:
        """The state to train on from, what it is to learn, a note; the run folder is ready."""
        settings, dataset, stopped = self.settings, self.dataset, earlier == "stopped"
        torch.manual_seed(settings.seed)
        model = starting_model(settings, dataset, weights_follow=stopped)
        model, note = parallel.synchronized(model, self.device)
        teacher = _teacher(settings.teacher, dataset) if settings.teacher else None
        state = TrainingState(
            model,
            settings.training,
            seed=settings.seed,
            device=self.device,
            precision=self.precision,
        )
        if stopped:
            state.restore(*parallel.from_first(lambda: load_checkpoint(self.folder.checkpoint)))
        if parallel.rank():
            pass  # the first process alone writes
        elif stopped:
            self._make_folders()
            self._save(state)  # the checkpoint may be one epoch ahead of the other files
            self._log(f"resumed after epoch {len(state.history)}")
        else:
            make_out(self.folder.path, overwrite=overwrite or earlier == "begun")
            self._start()
        train = dataset.splits[Split.TRAIN]
        task = ClassificationTask(
            train, state, classes=dataset.classes, teacher=teacher, weights=train.weights
        )
        return state, task, note

    def _start(self) -> None:
        start, base = self.settings.start, None
        if start:  # what the run begins from, for its card
            info = load_info(Path(start))
            base = BaseNetwork(
                name=info.settings.name,
                data=info.trained_on.title,
                num_images=info.trained_on.num_images,
                weights_sha256=info.weights_sha256,
            )
        facts = fingerprint(
            self.dataset,
            device=self.device.type,
            precision=self.precision,
            models=self._models_used(),
            base=base,
        )
        write_json(self.folder.fingerprint, facts)
        self._make_folders()
        write_text(self.folder.config, self.settings.to_toml())
        self._log(f"data: {self.dataset.title} (md5 of {self.dataset.md5_of} {self.dataset.md5})")
        self._log(f"command: {facts.command}")
        count = f"{parallel.size()} processes on " if parallel.size() > 1 else ""
        self._log(f"date: {facts.date}, device: {count}{self.device.type}. {RESEARCH_USE_ONLY}")

    def _make_folders(self) -> None:
        for path in (self.folder.model, self.folder.figures, self.folder.checkpoint):
            make_folder(path)

    def _log(self, line: str) -> None:
        append_line(self.folder.log, line)

    def _models_used(self) -> dict[str, str]:
        """Which models the run begins with or learns from, by the SHA-256 of their weights."""
        used = {"start": self.settings.start, "teacher": self.settings.teacher}
        return {role: load_info(Path(path)).weights_sha256 for role, path in used.items() if path}

    def finish_epoch(self, state: TrainingState) -> str:
        """Saves what the epoch left, and gives its line of the log."""
        line = epoch_line(_row(state.history[-1]), self.settings.training.epochs)
        with uninterrupted():
            # The checkpoint is first, since `begin` can make the others from it.
            save_checkpoint(self.folder.checkpoint, state.tensors(), state.history)
            self._save(state)
            self._log(line)
        return line

    def _save(self, state: TrainingState) -> None:
        """Replaces the history, and the model if that of the last epoch is the one to keep."""
        if state.is_best:
            model = state.result
            weights = {
                name: tensor.detach().cpu().contiguous().numpy()
                for name, tensor in model.state_dict().items()
            }
            num_parameters = sum(p.numel() for p in model.parameters())
            info = self._info(state.history[-1].epoch, num_parameters)
            save_artifact(self.folder.model, info, weights, seen=self._seen)
        self.folder.write_history([_row(record) for record in state.history], self.dataset.title)

    @cached_property
    def _seen(self) -> Seen | None:
        """What tells all images that went into the weights, those of start and teacher too."""
        paths = [path for path in (self.settings.start, self.settings.teacher) if path]
        own = Seen.of(self.dataset.splits[Split.TRAIN])
        return Seen.joined((own, *(load_seen(Path(path)) for path in paths)))

    def _info(self, epoch: int, num_parameters: int) -> ArtifactInfo:
        dataset = self.dataset
        return ArtifactInfo(
            hemascope_version=__version__,
            model=self.settings.model,
            class_names=dataset.classes.names,
            class_aliases=dict(dataset.classes.aliases),
            image=dataset.spec,
            num_parameters=num_parameters,
            trained_on=TrainingData(
                title=dataset.title,
                md5=dataset.md5,
                collection=dataset.collection,
                num_images=len(dataset.splits[Split.TRAIN]),
                channel_mean=dataset.channels.mean,
                channel_std=dataset.channels.std,
            ),
            settings=self.settings,
            epoch=epoch,
        )

    def read_history(self) -> list[EpochRecord]:
        """The history of a finished run.

        Raises:
            DataError: If a part of the run is missing or damaged.
        """
        load_artifact(self.folder.path)
        columns = self.folder.read_history().columns
        rows = np.stack(list(columns.values()), axis=1).tolist()
        return [_record(dict(zip(columns, row, strict=True))) for row in rows]


Watch = Callable[[TrainingRun], None]


def _cannot_resume(message: str) -> DataError:
    return DataError(message, field="resume")


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
