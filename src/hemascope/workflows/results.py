"""What a finished network gets to know of itself: predictions and figures on val and test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError, UsageError
from hemascope.core.images import Dataset, LabeledImages
from hemascope.core.predictions import Predictions
from hemascope.inference import Engine, predict
from hemascope.inference.efficiency import latency_ms
from hemascope.inference.onnx_engine import load_onnx
from hemascope.inference.torch_engine import TorchEngine, load_model, pick_device, pick_precision
from hemascope.inference.views import ViewsEngine
from hemascope.metrics import evaluate_all
from hemascope.metrics.uncertainty import fit_temperature
from hemascope.report.figures import caption_of, confident_errors, draw_errors
from hemascope.report.text import results_text
from hemascope.settings.compute import Compute, OnnxPrecision, Precision
from hemascope.store.model_folder import (
    ArtifactInfo,
    Calibration,
    find_artifact,
    load_info,
    load_seen,
    size_of_weights,
    update_info,
)
from hemascope.store.predictions import write_predictions
from hemascope.store.run_folder import (
    Costs,
    FiguresWithViews,
    NetworkFacts,
    RunFolder,
    RunResults,
)

_NUM_ERRORS = 24  # shown of a run


def write_results(
    folder: RunFolder,
    dataset: Dataset,
    *,
    device: torch.device,
    precision: Precision,
    views: int,
    costs: Costs,
) -> str:
    """Evaluates the model in `folder`, on val and once on test, and writes the results beside it.

    The temperature that val asks for becomes part of the model; the predictions are saved as they
    are without it.

    Returns:
        The results as text.

    Raises:
        OutputError: If a file cannot be written.
    """
    info, model = load_model(folder.path)
    val = dataset.splits[Split.VAL]
    engine: Engine = TorchEngine(model, device=device, precision=precision)
    images = dataset.splits[Split.TEST].images
    on_val, on_test = _predict_and_save(folder, engine, dataset, views=False)
    on_plain_test = on_test
    calibration = Calibration(
        fitted_on=f"{dataset.title}, split {Split.VAL.value}",
        num_images=len(val),
        temperature=fit_temperature(on_val),
    )
    results = RunResults(
        **dict(describe(info, size_bytes=size_of_weights(folder.path, info))),
        **dict(evaluate_all(on_test)),
        **dict(costs),
        data=dataset.title,
        data_md5=dataset.md5,
        split=Split.TEST.value,
        precision=precision,
        num_seen=count_seen(folder.path, dataset.splits[Split.TEST]),
        num_seen_val=count_seen(folder.path, val),
        latency_ms_batch1=latency_ms(engine, images, batch_size=1),
        latency_ms_batch128=latency_ms(engine, images, batch_size=128),
    )
    if views > 1:
        engine = ViewsEngine(engine)
        on_val, on_test = _predict_and_save(folder, engine, dataset, views=True)
        figures = FiguresWithViews(num_views=views, **dict(evaluate_all(on_test)))
        results = results.model_copy(update={"with_views": figures})
        with_views = {"temperature_views": fit_temperature(on_val)}
        calibration = calibration.model_copy(update=with_views)
    update_info(find_artifact(folder.path), info.model_copy(update={"calibration": calibration}))
    chosen = confident_errors(on_plain_test, _NUM_ERRORS)
    if len(chosen):
        caption = caption_of(results, f"seed {results.seed}, split {Split.TEST.value}")
        draw_errors(on_plain_test, chosen, images, folder, caption)
    text = results_text(results)
    folder.write_results(results, text)
    return text


@dataclass(frozen=True)
class Loaded:
    """A trained network, ready to be asked."""

    path: Path
    info: ArtifactInfo
    engine: Engine
    device: torch.device
    precision: Precision | OnnxPrecision
    size_bytes: int


def load_engine(path: Path, compute: Compute) -> Loaded:
    """The network in a run or model folder, by default in what it was trained in; or exported.

    Raises:
        UsageError: If this machine, or the model, does not have the device or precision.
        DataError: If there is no whole model.
    """
    precision: Precision | OnnxPrecision
    engine: Engine
    if load_info(path).onnx:
        if compute.device not in ("auto", "cpu"):
            raise UsageError(
                f"it is {compute.device}; exported models run on the CPU: leave it out.",
                field="device",
            )
        if compute.precision == "bf16":
            raise UsageError("bf16 is for PyTorch; exported models have others.", field="precision")
        wanted = None if compute.precision == "auto" else compute.precision
        info, graph, engine = load_onnx(path, wanted)
        device, precision, size_bytes = torch.device("cpu"), graph.precision, graph.size_bytes
    else:
        device = pick_device(compute.device)
        info, model = load_model(path)
        precision = torch_precision(compute, [info], device)
        engine = TorchEngine(model, device=device, precision=precision)
        size_bytes = size_of_weights(path, info)
    if compute.num_views > 1:
        engine = ViewsEngine(engine)
    return Loaded(path, info, engine, device, precision, size_bytes)


def torch_precision(
    compute: Compute, infos: Sequence[ArtifactInfo], device: torch.device
) -> Precision:
    """What PyTorch computes in: as asked, else what the models were trained in where possible.

    Raises:
        UsageError: If it is only for exported models, or this machine does not have it.
    """
    precision = compute.precision
    if precision in ("fp16", "int8"):
        raise UsageError(
            f"{precision} is for exported models: export this one first.", field="precision"
        )
    usual = "fp32" if all(info.settings.precision == "fp32" for info in infos) else "auto"
    return pick_precision(precision or usual, device)


def describe(info: ArtifactInfo, *, size_bytes: int) -> NetworkFacts:
    """What the results say of the network itself."""
    return NetworkFacts(
        name=info.settings.name,
        seed=info.settings.seed,
        trained_on=info.trained_on.title,
        class_names=info.class_names,
        num_parameters=info.num_parameters,
        size_bytes=size_bytes,
    )


def count_seen(path: Path, images: LabeledImages) -> int | None:
    """How many images the model at `path` was trained on (`Seen.find`); None if unknown."""
    seen = load_seen(path)
    return None if seen is None else int(seen.find(images).sum())


def answers(engine: Engine, images: LabeledImages, classes: ClassSet) -> Predictions:
    """What a finished network says of some images.

    Raises:
        DataError: If it does not answer with finite numbers.
    """
    predictions = predict(engine, images, classes)
    if not np.isfinite(predictions.logits).all():
        raise DataError(
            "the model answers some images with numbers that are not finite: it is damaged, or "
            "training ruined it; train it again."
        )
    return predictions


def check_same_input(info: ArtifactInfo, first: ArtifactInfo, path: str | Path) -> None:
    """Holds a model to another that the data was read for.

    Raises:
        DataError: If their classes or images differ.
    """
    if info.class_names != first.class_names or info.image != first.image:
        raise DataError(
            f"the model {path} has the classes {', '.join(info.class_names)} and images of "
            f"{info.image.size} pixels ({info.image!r}), {first.settings.name} has "
            f"{', '.join(first.class_names)} and {first.image!r}; choose models of the same data."
        )


def _predict_and_save(
    folder: RunFolder, engine: Engine, dataset: Dataset, *, views: bool
) -> tuple[Predictions, Predictions]:
    """Predictions on val and on test, each saved."""
    both: list[Predictions] = []
    for split in (Split.VAL, Split.TEST):
        predictions = answers(engine, dataset.splits[split], dataset.classes)
        write_predictions(folder.predictions(split, views=views), predictions)
        both.append(predictions)
    return both[0], both[1]
