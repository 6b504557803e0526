"""`hemascope evaluate`: a trained network on any data with its classes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from hemascope.core.errors import DataError, OutputError
from hemascope.core.fit import LaboratoryFit
from hemascope.core.framing import spread
from hemascope.core.images import Dataset, LabeledImages
from hemascope.core.predictions import Predictions
from hemascope.data.collections import collections
from hemascope.inference import Engine
from hemascope.inference.efficiency import latency_ms
from hemascope.inference.guard import COLORLESS, SWAPPED, Guard, are_colorless
from hemascope.inference.predictor import Predictor
from hemascope.metrics import evaluate_all
from hemascope.report.figures import caption_of, draw_evaluation
from hemascope.report.network import summarize
from hemascope.report.text import results_text, seen_sentence
from hemascope.settings.compute import Compute, OnnxPrecision
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.files import explained
from hemascope.store.model_folder import ArtifactInfo, load_guard
from hemascope.store.predictions import medmnist_name, write_medmnist
from hemascope.store.provenance import fingerprint, publish
from hemascope.store.run_folder import RunFolder, RunResults
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import Loaded, answers, count_seen, describe, load_engine
from hemascope.workflows.sources import SplitChoice, load_split

_MANY = 0.1  # of the images, whose colors are odd; of Tecom's eosinophils some seem swapped


def evaluate(
    path: Path,
    data: DataSettings,
    split: SplitChoice | None,
    *,
    compute: Compute,
    as_trained: bool = False,
    output: Output | None,
    medmnist_csv: Output | None = None,
    reporter: Reporter,
) -> str:
    """Evaluates a model on one split, or on all images, and writes the results if asked.

    Args:
        path: A run folder or its model/.
        data: The data.
        split: Which images of it; by default test, or all of data that has no splits.
        compute: How the model is asked.
        as_trained: Whether the last layer of an exported model stays as it is, where `predict`
            moves it to images unlike those of training.
        output: Gets the results, if given.
        medmnist_csv: A folder that gets the file that MedMNIST's evaluator reads, if given.
        reporter: Gets progress and notes.

    Returns:
        The results as text.

    Raises:
        UsageError: If the map does not fit the data and the model.
        DataError: If model and data do not fit together.
        OutputError: If results cannot be written.
    """
    loaded = load_engine(path, compute)
    info, engine = loaded.info, loaded.engine
    by_itself = as_trained or not info.onnx
    dataset, images, split = load_split(data, split, reporter, model=info, is_moved=not by_itself)
    num_seen = count_seen(path, images)
    warnings = _warnings(info, dataset)
    if sentence := seen_sentence(info.settings.name, num_seen):
        warnings.append(sentence)
    warnings += _color_warnings(loaded, images)
    num_views, is_moved = compute.num_views, False
    if by_itself:
        predictions = answers(engine, images, info.classes)
    else:
        answered = _as_predict(loaded, data, images, compute)
        predictions, is_moved = answered.predictions, bool(answered.moved)
        engine, num_views = answered.engine, answered.num_views
        warnings += answered.moved
    for warning in warnings:
        reporter.say(f"Warning: {warning}")
    results = RunResults(
        **dict(describe(info, size_bytes=loaded.size_bytes)),
        **dict(evaluate_all(predictions)),
        data=dataset.title,
        data_md5=dataset.md5,
        split=split,
        precision=loaded.precision,
        num_views=num_views,
        is_moved=is_moved,
        warnings=tuple(warnings),
        num_seen=num_seen,
        latency_ms_batch1=latency_ms(engine, images.images, batch_size=1),
        latency_ms_batch128=latency_ms(engine, images.images, batch_size=128),
    )
    text = results_text(results)
    if output is not None:
        folder = RunFolder(output.folder)
        publish(
            output,
            fingerprint(dataset, device=loaded.device.type),
            contents={
                folder.results_text.name: text,
                folder.predictions(split).name: predictions,
                folder.results.name: results,
            },
            draw=partial(
                draw_evaluation,
                summarize(info.settings, [results]),
                results.class_names,
                caption=caption_of(results, f"split {split}"),
            ),
        )
    if medmnist_csv is not None:
        name = medmnist_name(
            split,
            image_size=dataset.image_size,
            auc=results.auroc_ovr_macro or 0,
            acc=results.accuracy,
            run=f"{info.settings.name}-{info.settings.seed}",
        )
        path = medmnist_csv.folder / name
        _write_medmnist(path, predictions, dataset, overwrite=medmnist_csv.overwrite)
    return text


@dataclass(frozen=True, eq=False)
class _Answered:
    """What `predict` would say, by which network, and what was moved for that, in sentences."""

    predictions: Predictions
    engine: Engine
    num_views: int
    moved: list[str]


def _as_predict(
    loaded: Loaded, data: DataSettings, images: LabeledImages, compute: Compute
) -> _Answered:
    """What `predict` would say of each laboratory's images, and what it moved for that."""
    predictor = Predictor(
        loaded.path,
        precision=cast("OnnxPrecision", loaded.precision),
        views=compute.views,
        crop=data.crop,
        frame=data.frame,
    )
    logits = np.empty((len(images), len(loaded.info.classes)), dtype=np.float32)
    laboratories = np.array(images.laboratories or [""] * len(images))
    by_name = np.argsort(images.ids)
    said: list[str] = []
    last = predictor.layer  # of several laboratories, the last that was moved stands for its cost
    for laboratory in np.unique(laboratories):
        rows = by_name[laboratories[by_name] == laboratory]
        own, undecided = images.take(rows), predictor.spec.is_undecided
        moved = predictor.move(len(own), own.images.__getitem__) if undecided else None
        if layer := moved or predictor.layer:
            last = layer
            told = predictor.told(LaboratoryFit(layer=layer))
            said.append(" ".join(filter(None, [laboratory and f"{laboratory}:", told])))
        logits[rows] = answers(predictor.answering(layer), own, loaded.info.classes).logits
    predictions = Predictions(images.ids, logits, images.labels, loaded.info.classes)
    num_views = predictor.decision_of(last).num_views
    return _Answered(predictions, predictor.answering(last), num_views, said)


def _write_medmnist(
    path: Path, predictions: Predictions, dataset: Dataset, *, overwrite: bool
) -> None:
    known = {collection.classes for collection in collections().values()}
    every_class = len(np.unique(predictions.labels)) == len(predictions.classes)
    if predictions.classes.names not in known or not every_class:
        raise DataError(
            f"MedMNIST's evaluator judges the classes of its own collections, each of which must "
            f"occur; {dataset.source} has others: leave it out.",
            field="medmnist_csv",
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; add `overwrite` or choose another folder.")
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_medmnist(path, predictions)


def _color_warnings(loaded: Loaded, images: LabeledImages) -> list[str]:
    """What `predict` would note of the colors of many of the images."""
    info, count = loaded.info, len(images)
    colorless = int(are_colorless(images.images).sum()) if info.is_color else 0
    arrays = load_guard(loaded.path, info) if info.onnx else None
    is_swapped = Guard.of(arrays).is_swapped if arrays else lambda _: False
    looked_at = spread(range(count))
    swapped = sum(is_swapped(images.images[i]) for i in looked_at)
    found = ((colorless, count, COLORLESS), (swapped, len(looked_at), SWAPPED))
    return [f"{n:,} of {of:,} image(s): {note}." for n, of, note in found if n > _MANY * of]


def _warnings(info: ArtifactInfo, dataset: Dataset) -> list[str]:
    """What makes a figure on this data say less than it seems to."""
    another_split = info.trained_on.md5 != dataset.md5
    same_images = bool(dataset.collection) and info.trained_on.collection == dataset.collection
    if another_split and same_images and dataset.kind in ("official", "rebuilt"):
        return [
            "the model was trained on another split of the same images, and has seen about 70 % "
            "of these: this does not test it."
        ]
    return []
