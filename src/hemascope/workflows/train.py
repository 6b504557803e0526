"""`hemascope train`: one network, one seed, one run folder."""

import contextlib
import csv
import io
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn

from hemascope import __version__
from hemascope.artifact import (
    ArtifactInfo,
    Preprocessing,
    TrainingData,
    load_info,
    save_artifact,
)
from hemascope.config import Precision, RunSettings, load_config
from hemascope.core import Split
from hemascope.data.dataset import Dataset
from hemascope.errors import RESEARCH_USE_ONLY, DataError, OutputError, UsageError, did_you_mean
from hemascope.files import (
    MARK,
    append_line,
    make_folder,
    make_out,
    read_json,
    uninterrupted,
    write_json,
    write_text,
)
from hemascope.inference.efficiency import peak_memory_bytes, reset_peak_memory
from hemascope.inference.torch_engine import load_model, pick_device, pick_precision
from hemascope.models import build_model, check_model, head_of
from hemascope.report.figures import draw_run
from hemascope.report.runs import read_run
from hemascope.report.text import epoch_line
from hemascope.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from hemascope.training.loop import fit, initialize
from hemascope.training.state import EpochRecord, TrainingState
from hemascope.workflows.environment import fingerprint
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import check_fit, write_results


def train(
    settings: RunSettings,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool,
    reporter: Reporter,
    resume: bool = False,
    model: nn.Module | None = None,
) -> Path:
    """Trains and evaluates one network; every stage leaves its file in the run folder `out`.

    After each epoch, history, model and checkpoint are written together: a run that is stopped at
    any point holds its last finished epoch, and `resume` goes on from there to the same weights, to
    the bit, that it would have had.

    Args:
        settings: What to train and how.
        dataset: With all three splits.
        out: The run folder.
        overwrite: Whether an older run in `out` may be deleted.
        reporter: Whom to tell.
        resume: Whether to go on with the run in `out`, if there is one.
        model: The network to begin with, instead of a fresh one of `settings.model`.

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
    torch.manual_seed(settings.seed)
    model = model or starting_model(settings, dataset)
    teacher = _fitting_model(settings.teacher, dataset)[1] if settings.teacher else None
    state = TrainingState(model, settings.training, seed=settings.seed, device=device)
    run = _Run(settings, dataset, out, precision)
    if resume and (out / MARK).is_file():
        run.check_same()
        if (out / "results.json").is_file():  # killed while it was drawn, perhaps
            draw_run(read_run(out))
            run.forget_checkpoint()
            return out
    if resume and has_checkpoint(out / "checkpoint"):
        state.restore(*load_checkpoint(out / "checkpoint"))
        run.log(f"resumed after epoch {len(state.history)}")
    else:
        run.start(device, overwrite=overwrite or resume)
    reset_peak_memory()
    num_batches = -(-len(dataset.splits[Split.TRAIN]) // settings.training.batch_size)
    label = f"{settings.name} seed {settings.seed}"
    num_steps = (settings.training.epochs - len(state.history)) * num_batches
    try:
        with reporter.steps(label, num_steps) as on_step:
            for record in fit(
                state,
                dataset.splits[Split.TRAIN],
                dataset.splits[Split.VAL],
                classes=dataset.classes,
                precision=precision,
                teacher=teacher,
                watched=dataset.splits[Split.TEST] if settings.training.test_every_epoch else None,
                on_step=on_step,
            ):
                run.finish_epoch(state)
                line = epoch_line(asdict(record), settings.training.epochs)
                reporter.say(f"{label}: {line}")
        run.finish(state.history, device, peak_memory_bytes())
        draw_run(read_run(out))
        run.forget_checkpoint()
    except BaseException as error:
        # A full disk may refuse this line too; what stopped the run is the error to show.
        with contextlib.suppress(OutputError):
            run.log(f"stopped ({error!r}): model/ holds the last epoch listed above")
        raise
    return out


def starting_model(settings: RunSettings, dataset: Dataset) -> nn.Module:
    """The network as training finds it: fresh, pretrained, or with another run's weights.

    Raises:
        UsageError: If there is no such architecture.
        DataError: If `settings.start` is another architecture or has other classes.
        UnreachableError: If pretrained weights cannot be fetched.
    """
    size, count = dataset.image_size, len(dataset.classes)
    if settings.start:
        info, model = _fitting_model(settings.start, dataset)
        if (info.model.name, check_model(info.model)) != (
            settings.model.name,
            check_model(settings.model),
        ):
            raise DataError(
                f"{settings.start} is a '{info.model.name}' with the options {info.model.options}, "
                f"not the '{settings.model.name}' to be trained; choose a model of the same "
                "architecture."
            )
    else:
        model = build_model(settings.model, image_size=size, num_classes=count)
        if settings.training.init == "he" and "/" not in settings.model.name:
            initialize(model)  # a library's architectures have initializations of their own
    if settings.training.freeze:
        model.requires_grad_(requires_grad=False)
        head_of(model).requires_grad_()
    return model


def _fitting_model(path: str, dataset: Dataset) -> tuple[ArtifactInfo, nn.Module]:
    """A trained network that takes these images and knows these classes."""
    info, model = load_model(Path(path))
    check_fit(info, dataset)
    return info, model


def _check_classes(settings: RunSettings, dataset: Dataset) -> None:
    for name in settings.training.augmentation.only_classes:
        if name not in dataset.classes.names:
            hint = did_you_mean(name, dataset.classes.names)
            raise UsageError(f"augmentation.only_classes: there is no class '{name}'; {hint}")


class _Run:
    """The run folder: what is written, and when."""

    def __init__(
        self, settings: RunSettings, dataset: Dataset, folder: Path, precision: Precision
    ) -> None:
        self._settings = settings
        self._dataset = dataset
        self._folder = folder
        self._precision: Precision = precision

    def check_same(self) -> None:
        """Refuses to go on with a run of other settings, data or precision.

        Raises:
            DataError: If it is one.
        """
        config = self._folder / "config.toml"
        if not config.is_file():
            raise DataError(f"--resume: {self._folder} holds no run of 'hemascope train'.")
        facts = read_json(self._folder / MARK, needed=("data", "precision", "models"))
        differences = {
            "settings": load_config(config) != self._settings,
            "data": facts["data"].get("md5") != self._dataset.md5,
            "precision": facts["precision"] != self._precision,
            "weights in --start or --teacher": facts["models"] != self._models_used(),
        }
        for what, differ in differences.items():
            if differ:
                raise DataError(
                    f"--resume: the run in {self._folder} was started with other {what}; give the "
                    "same command as then, or --overwrite."
                )

    def start(self, device: torch.device, *, overwrite: bool) -> None:
        make_out(self._folder, overwrite=overwrite)
        facts = {
            **fingerprint(self._dataset, device=device.type),
            "precision": self._precision,
            "models": self._models_used(),
        }
        write_json(self._folder / MARK, facts)
        for name in ("model", "figures", "checkpoint"):
            make_folder(self._folder / name)
        write_text(self._folder / "config.toml", self._settings.to_toml())
        self.log(f"data: {self._dataset.title} (md5 of {self._dataset.md5_of} {self._dataset.md5})")
        self.log(f"command: {facts['command']}")
        self.log(f"date: {facts['date']}, device: {device.type}. {RESEARCH_USE_ONLY}")

    def log(self, line: str) -> None:
        append_line(self._folder / "training.log", line)

    def _models_used(self) -> dict[str, str]:
        """Which models the run begins with or learns from, by the SHA-256 of their weights."""
        used = {"start": self._settings.start, "teacher": self._settings.teacher}
        return {role: load_info(Path(path)).weights_sha256 for role, path in used.items() if path}

    def finish_epoch(self, state: TrainingState) -> None:
        record = state.history[-1]
        with uninterrupted():
            if state.is_best:
                weights = {
                    name: tensor.detach().cpu().contiguous().numpy()
                    for name, tensor in state.result.state_dict().items()
                }
                info = self._info(record, sum(p.numel() for p in state.result.parameters()))
                save_artifact(self._folder / "model", info, weights)
            write_text(self._folder / "history.csv", self._history_csv(state.history))
            save_checkpoint(self._folder / "checkpoint", state.tensors(), state.history)
            self.log(epoch_line(asdict(record), self._settings.training.epochs))

    def _info(self, record: EpochRecord, num_parameters: int) -> ArtifactInfo:
        train = self._dataset.splits[Split.TRAIN]
        return ArtifactInfo(
            hemascope_version=__version__,
            model=self._settings.model,
            class_names=self._dataset.classes.names,
            preprocessing=Preprocessing(image_size=self._dataset.image_size),
            num_parameters=num_parameters,
            trained_on=TrainingData(
                title=self._dataset.title, md5=self._dataset.md5, num_images=len(train)
            ),
            settings=self._settings,
            epoch=record.epoch,
        )

    def _history_csv(self, history: list[EpochRecord]) -> str:
        text = io.StringIO()
        columns = [field.name for field in fields(EpochRecord)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*columns, "data"])
        for record in history:
            values = asdict(record).values()
            cells = (f"{value:.6f}" if isinstance(value, float) else value for value in values)
            writer.writerow([*cells, self._dataset.title])
        return text.getvalue()

    def finish(
        self, history: list[EpochRecord], device: torch.device, peak_memory: int | None
    ) -> None:
        """Evaluates the network that was kept; the test split is read for the run's one figure."""
        results = {
            "epochs": len(history),
            "train_seconds": sum(record.train_seconds for record in history),
            "peak_memory_bytes": peak_memory,
        }
        text = write_results(
            self._folder,
            self._dataset,
            device=device,
            precision=self._precision,
            views=self._settings.views,
            more=results,
        )
        self.log(f"\n{text}")

    def forget_checkpoint(self) -> None:
        """A finished run is not resumed."""
        shutil.rmtree(self._folder / "checkpoint", ignore_errors=True)
