"""`hemascope train`: one network, one seed, one run folder."""

import contextlib
import csv
import io
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hemascope import __version__
from hemascope.artifact import ArtifactInfo, Preprocessing, TrainingData, save_artifact
from hemascope.config import RunSettings
from hemascope.core import Split
from hemascope.data.dataset import Dataset
from hemascope.errors import RESEARCH_USE_ONLY, OutputError
from hemascope.files import (
    MARK,
    append_line,
    make_folder,
    make_out,
    uninterrupted,
    write_json,
    write_text,
)
from hemascope.inference import predict
from hemascope.inference.efficiency import latency_ms, peak_memory_bytes, reset_peak_memory
from hemascope.inference.saved import write_predictions
from hemascope.inference.torch_engine import TorchPredictor, pick_device
from hemascope.metrics import evaluate_all
from hemascope.models import build_model
from hemascope.report.figures import draw_run
from hemascope.report.runs import read_run
from hemascope.report.text import epoch_line, results_text
from hemascope.training.loop import EpochRecord, fit, initialize
from hemascope.workflows.environment import fingerprint
from hemascope.workflows.progress import Reporter


def train(
    settings: RunSettings, dataset: Dataset, out: Path, *, overwrite: bool, reporter: Reporter
) -> Path:
    """Trains and evaluates one network; every stage leaves its file in the run folder `out`.

    After each epoch, history and model are written together: a run that is stopped at any point
    holds its last finished epoch.

    Returns:
        The run folder.

    Raises:
        UsageError: If the settings cannot be carried out on this machine.
        DivergedError: If the loss is no longer a number.
        OutputError: If `out` may not be written to, or a file cannot be.
    """
    device = pick_device(settings.device)
    torch.manual_seed(settings.seed)
    model = build_model(
        settings.model, image_size=dataset.image_size, num_classes=len(dataset.classes)
    )
    if settings.training.init == "he":
        initialize(model)
    run = _Run(settings, dataset, out, model)
    run.start(device, overwrite=overwrite)
    reset_peak_memory()
    num_batches = -(-len(dataset.splits[Split.TRAIN]) // settings.training.batch_size)
    label = f"{settings.name} seed {settings.seed}"
    try:
        with reporter.steps(label, settings.training.epochs * num_batches) as on_step:
            for record in fit(
                model,
                dataset.splits[Split.TRAIN],
                dataset.splits[Split.VAL],
                settings.training,
                classes=dataset.classes,
                seed=settings.seed,
                device=device,
                precision=settings.precision,
                watched=dataset.splits[Split.TEST] if settings.training.test_every_epoch else None,
                on_step=on_step,
            ):
                run.finish_epoch(record)
                reporter.say(f"{label}: {run.epoch_line()}")
        peak_memory = peak_memory_bytes()
        predictor = TorchPredictor(model, device=device, precision=settings.precision)
        run.finish(predictor, peak_memory)
        draw_run(read_run(out))
    except BaseException as error:
        # A full disk may refuse this line too; what stopped the run is the error to show.
        with contextlib.suppress(OutputError):
            run.log(f"stopped ({error!r}): model/ holds the last epoch listed above")
        raise
    return out


class _Run:
    """The run folder: what is written, and when."""

    def __init__(
        self, settings: RunSettings, dataset: Dataset, folder: Path, model: nn.Module
    ) -> None:
        self._settings = settings
        self._dataset = dataset
        self._folder = folder
        self._model = model
        self._history: list[EpochRecord] = []
        self._size_bytes = 0

    def start(self, device: torch.device, *, overwrite: bool) -> None:
        make_out(self._folder, overwrite=overwrite)
        facts = fingerprint(self._dataset, device=device.type)
        write_json(self._folder / MARK, facts)
        for name in ("model", "figures"):
            make_folder(self._folder / name)
        write_text(self._folder / "config.toml", self._settings.to_toml())
        self.log(f"data: {self._dataset.title} (md5 of {self._dataset.md5_of} {self._dataset.md5})")
        self.log(f"command: {facts['command']}")
        self.log(f"date: {facts['date']}, device: {device.type}. {RESEARCH_USE_ONLY}")

    def log(self, line: str) -> None:
        append_line(self._folder / "training.log", line)

    def epoch_line(self) -> str:
        return epoch_line(asdict(self._history[-1]), self._settings.training.epochs)

    def finish_epoch(self, record: EpochRecord) -> None:
        self._history.append(record)
        weights = {
            name: tensor.detach().cpu().contiguous().numpy()
            for name, tensor in self._model.state_dict().items()
        }
        with uninterrupted():
            self._size_bytes = save_artifact(self._folder / "model", self._info(record), weights)
            write_text(self._folder / "history.csv", self._history_csv())
            self.log(self.epoch_line())

    def _info(self, record: EpochRecord) -> ArtifactInfo:
        train = self._dataset.splits[Split.TRAIN]
        return ArtifactInfo(
            hemascope_version=__version__,
            model=self._settings.model,
            class_names=self._dataset.classes.names,
            preprocessing=Preprocessing(image_size=self._dataset.image_size),
            num_parameters=self._num_parameters(),
            trained_on=TrainingData(
                title=self._dataset.title, md5=self._dataset.md5, num_images=len(train)
            ),
            settings=self._settings,
            epoch=record.epoch,
        )

    def _num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._model.parameters())

    def _history_csv(self) -> str:
        text = io.StringIO()
        columns = [field.name for field in fields(EpochRecord)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*columns, "data"])
        for record in self._history:
            values = asdict(record).values()
            cells = (f"{value:.6f}" if isinstance(value, float) else value for value in values)
            writer.writerow([*cells, self._dataset.title])
        return text.getvalue()

    def finish(self, predictor: TorchPredictor, peak_memory: int | None) -> None:
        """Evaluates the last epoch's network; the test split is read for the run's one figure."""
        classes, splits = self._dataset.classes, self._dataset.splits
        on_test = predict(predictor, splits[Split.TEST], classes)
        write_predictions(
            self._folder / "predictions-val.csv", predict(predictor, splits[Split.VAL], classes)
        )
        write_predictions(self._folder / "predictions-test.csv", on_test)
        images = splits[Split.TEST].images
        results: dict[str, Any] = {
            "notice": RESEARCH_USE_ONLY,
            "data": self._dataset.title,
            "split": Split.TEST.value,
            "name": self._settings.name,
            "seed": self._settings.seed,
            "precision": self._settings.precision,
            "epochs": len(self._history),
            "class_names": list(classes.names),
            **evaluate_all(on_test),
            "num_parameters": self._num_parameters(),
            "size_bytes": self._size_bytes,
            "train_seconds": sum(record.train_seconds for record in self._history),
            "latency_ms_batch1": latency_ms(predictor, images, batch_size=1),
            "latency_ms_batch128": latency_ms(predictor, images, batch_size=128),
            "peak_memory_bytes": peak_memory,
        }
        write_json(self._folder / "results.json", results)
        text = results_text(results)
        write_text(self._folder / "results.txt", text)
        self.log(f"\n{text}")
