"""`hemascope train`: one network, one seed, one run folder."""

import contextlib
import shutil
from dataclasses import asdict
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
from hemascope.core.images import Dataset
from hemascope.inference.efficiency import peak_memory_bytes, reset_peak_memory
from hemascope.inference.torch_engine import load_model, pick_device, pick_precision
from hemascope.models import head_of
from hemascope.report.run_page import write_run_page
from hemascope.report.text import epoch_line, results_text
from hemascope.settings.run import Precision, RunSettings, load_config
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
    Preprocessing,
    TrainingData,
    load_artifact,
    load_info,
    load_seen,
    save_artifact,
)
from hemascope.store.provenance import BaseNetwork, fingerprint
from hemascope.store.run_folder import WRITTEN_FIRST, Costs, RunFolder
from hemascope.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from hemascope.training.loop import fit, fresh_model
from hemascope.training.state import EpochRecord, TrainingState
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import check_fit, write_results

_Stage = Literal["nothing", "begun", "stopped", "finished"]


def train(
    settings: RunSettings,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool,
    reporter: Reporter,
    resume: bool = False,
) -> Path:
    """Trains and evaluates one network; every stage leaves its file in the run folder `out`.

    After each epoch, history, model and checkpoint are written together: a run that is stopped at
    any point holds its last finished epoch, and `resume` goes on from there; on a CPU, to the same
    weights, to the bit, that it would have had.

    Args:
        settings: What to train and how.
        dataset: With all three splits.
        out: The run folder.
        overwrite: Whether an older run in `out` may be deleted.
        reporter: Whom to tell.
        resume: Whether to go on with the run in `out`, if there is one.

    Returns:
        The run folder.

    Raises:
        UsageError: If the settings cannot be carried out on this machine or data.
        DataError: If `settings.start` or `settings.teacher` is no fitting model, or the run in
            `out` is another one.
        DivergedError: If the loss is no longer a number.
        OutputError: If `out` may not be written to, or a file cannot be.
    """
    device = pick_device(settings.device)
    precision = pick_precision(settings.precision, device)
    _check_classes(settings, dataset)
    run = _Run(settings, dataset, out, device, precision)
    with claimed(out):
        earlier = run.look_back() if resume else "nothing"
        if earlier == "finished":
            run.finish_drawing()
        else:
            state, teacher = _begin(run, earlier, overwrite=overwrite)
            _go_through(run, state, teacher, reporter)
    return out


def _begin(
    run: "_Run", earlier: _Stage, *, overwrite: bool
) -> tuple[TrainingState, nn.Module | None]:
    """The state to train on from, and the teacher, if any; the run folder is ready for them."""
    settings, stopped = run.settings, earlier == "stopped"
    torch.manual_seed(settings.seed)
    model = starting_model(settings, run.dataset, weights_follow=stopped)
    teacher = _fitting_model(settings.teacher, run.dataset)[1] if settings.teacher else None
    state = TrainingState(model, settings.training, seed=settings.seed, device=run.device)
    if stopped:
        state.restore(*load_checkpoint(run.folder.checkpoint))
        run.go_on(state)
    else:
        make_out(run.folder.path, overwrite=overwrite or earlier == "begun")
        run.start()
    return state, teacher


def _go_through(
    run: "_Run", state: TrainingState, teacher: nn.Module | None, reporter: Reporter
) -> None:
    """From where the run stands to its end; each epoch is saved when it is done."""
    splits = run.dataset.splits
    settings = run.settings
    reset_peak_memory()
    num_batches = -(-len(splits[Split.TRAIN]) // settings.training.batch_size)
    label = f"{settings.name} seed {settings.seed}"
    num_steps = (settings.training.epochs - len(state.history)) * num_batches
    try:
        with reporter.steps(label, num_steps) as on_step:
            for record in fit(
                state,
                splits[Split.TRAIN],
                splits[Split.VAL],
                classes=run.dataset.classes,
                precision=run.precision,
                teacher=teacher,
                watched=splits[Split.TEST] if settings.training.test_every_epoch else None,
                on_step=on_step,
            ):
                run.finish_epoch(state)
                line = epoch_line(asdict(record), settings.training.epochs)
                reporter.say(f"{label}: {line}")
        run.finish(state.history, peak_memory_bytes())
        run.finish_drawing()
    except BaseException as error:
        # A full disk may refuse this line too; what stopped the run is the error to show.
        with contextlib.suppress(OutputError):
            run.log(f"stopped ({error!r}): what the epochs listed above left is kept")
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
    model = fresh_model(
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
        self.folder = RunFolder(folder)
        self.device = device
        self.precision: Precision = precision

    def look_back(self) -> _Stage:
        """How far the run in the folder came; "begun" is not yet the end of an epoch.

        Raises:
            DataError: If it is another run than the one to go on with, or cannot be gone on with.
        """
        if not self.folder.fingerprint.is_file():
            return "nothing"
        none = f"--resume: {self.folder} holds no run of 'hemascope train'"
        try:
            facts = self.folder.read_fingerprint()
        except DataError as error:
            raise DataError(f"{none} that can be resumed: {error}") from error
        if facts.precision is None or facts.models is None:
            raise DataError(f"{none}; choose another --out.")
        config = self.folder.config
        begun = {path.name for path in self.folder.path.iterdir()} <= WRITTEN_FIRST
        if not config.is_file() and not begun:
            raise DataError(
                f"--resume: {config} is missing, so that nobody knows how the run was trained; "
                "give --overwrite instead, or another --out."
            )
        differences = {
            "settings": config.is_file() and load_config(config).to_toml() != self._config,
            "data": facts.data.md5 != self.dataset.md5,
            "weights in --start or --teacher": facts.models != self._models_used(),
            "device or precision": (facts.machine.device, facts.precision)
            != (self.device.type, self.precision),
        }
        for what, differ in differences.items():
            if differ:
                raise DataError(
                    f"--resume: the run in {self.folder} was started with other {what}; give the "
                    "same command as then, or --overwrite instead of --resume."
                )
        if self.folder.is_finished:
            return "finished"
        if has_checkpoint(self.folder.checkpoint):
            return "stopped"
        if not begun or any(self.folder.model.glob("*")):
            raise DataError(
                f"--resume: {self.folder} has no checkpoint to go on from; give --overwrite "
                "instead, or another --out."
            )
        return "begun"

    def start(self) -> None:
        facts = fingerprint(
            self.dataset,
            device=self.device.type,
            precision=self.precision,
            models=self._models_used(),
            base=self._base(),
        )
        write_json(self.folder.fingerprint, facts)
        self._make_folders()
        write_text(self.folder.config, self._config)
        self.log(f"data: {self.dataset.title} (md5 of {self.dataset.md5_of} {self.dataset.md5})")
        self.log(f"command: {facts.command}")
        self.log(f"date: {facts.date}, device: {self.device.type}. {RESEARCH_USE_ONLY}")

    def _make_folders(self) -> None:
        for path in (self.folder.model, self.folder.figures, self.folder.checkpoint):
            make_folder(path)

    def log(self, line: str) -> None:
        append_line(self.folder.log, line)

    def _models_used(self) -> dict[str, str]:
        """Which models the run begins with or learns from, by the SHA-256 of their weights."""
        used = {"start": self.settings.start, "teacher": self.settings.teacher}
        return {role: load_info(Path(path)).weights_sha256 for role, path in used.items() if path}

    def _base(self) -> BaseNetwork | None:
        """What the run begins from, for its card."""
        if not self.settings.start:
            return None
        info = load_info(Path(self.settings.start))
        return BaseNetwork(
            name=info.settings.name,
            data=info.trained_on.title,
            num_images=info.trained_on.num_images,
            weights_sha256=info.weights_sha256,
        )

    def finish_epoch(self, state: TrainingState) -> None:
        with uninterrupted():
            # The checkpoint is first, since `go_on` can make the others from it.
            save_checkpoint(self.folder.checkpoint, state.tensors(), state.history)
            self._save_model(state)
            self._write_history(state.history)
            self.log(epoch_line(asdict(state.history[-1]), self.settings.training.epochs))

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
        save_artifact(self.folder.model, info, weights, seen=self._seen)

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

    def go_on(self, state: TrainingState) -> None:
        """Takes the run up: its checkpoint may be one epoch ahead of its other files."""
        self._make_folders()
        self._save_model(state)
        self._write_history(state.history)
        self.log(f"resumed after epoch {len(state.history)}")

    def _write_history(self, history: list[EpochRecord]) -> None:
        self.folder.write_history([asdict(record) for record in history], self.dataset.title)

    def finish(self, history: list[EpochRecord], peak_memory: int | None) -> None:
        """Evaluates the network that was kept; the test split is read for the run's one figure."""
        costs = Costs(
            epochs=len(history),
            train_seconds=sum(record.train_seconds for record in history),
            peak_memory_bytes=peak_memory,
        )
        text = write_results(
            self.folder,
            self.dataset,
            device=self.device,
            precision=self.precision,
            views=self.settings.views,
            costs=costs,
        )
        self.log(f"\n{text}")

    def finish_drawing(self) -> None:
        """Draws a run that has its results, and leaves nothing to resume.

        Raises:
            DataError: If a part of the run is missing or damaged.
        """
        load_artifact(self.folder.path)
        results = self.folder.read_results()
        write_text(self.folder.results_text, results_text(results))
        write_run_page(self.folder)
        shutil.rmtree(self.folder.checkpoint, ignore_errors=True)
