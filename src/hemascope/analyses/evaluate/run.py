"""`hemascope evaluate`: a trained network on any data with its classes."""

from pathlib import Path
from typing import Any

import numpy as np

from hemascope.analyses.transfer.run import mapped, shown, try_colors
from hemascope.analyses.transfer.words import Transfer, transfer_text
from hemascope.core.classes import BLOOD_CELLS
from hemascope.core.errors import DataError, OutputError, UsageError
from hemascope.core.images import Dataset
from hemascope.core.predictions import Predictions
from hemascope.data.npz import OFFICIAL_MD5, REBUILT_MD5
from hemascope.inference.efficiency import latency_ms
from hemascope.metrics import evaluate_all
from hemascope.report.figures import caption_of, draw_evaluation
from hemascope.report.statistics import draw_comparison
from hemascope.report.text import results_text, seen_sentence
from hemascope.settings.run import AnyPrecision, Device, TransferMap, load_toml
from hemascope.store.files import MARK, explained, made_out, make_folder, write_json, write_text
from hemascope.store.model_folder import ArtifactInfo
from hemascope.store.predictions import medmnist_name, write_medmnist, write_predictions
from hemascope.store.provenance import fingerprint
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import answers, check_fit, count_seen, describe, load_engine
from hemascope.workflows.sources import SplitChoice, load_split


def evaluate(
    path: Path,
    source: str,
    split: SplitChoice,
    *,
    out: Path | None,
    device: Device,
    precision: AnyPrecision | None,
    views: int,
    map_file: Path | None = None,
    medmnist_csv: Path | None = None,
    overwrite: bool,
    reporter: Reporter,
) -> str:
    """Evaluates a model on one split, or on all images, and writes the results if asked.

    Args:
        path: A run folder or its model/.
        source: The data.
        split: Which images of it.
        out: Gets the results, if given.
        device: Where to compute.
        precision: What in; by default what the model was trained in.
        views: How many views of each image.
        map_file: Says which classes of the data are which of the model's (`TransferMap`), for
            cells of another laboratory.
        medmnist_csv: A folder that gets the file that MedMNIST's evaluator reads, if given.
        overwrite: Whether older results may be replaced.
        reporter: Whom to tell.

    Returns:
        The results as text.

    Raises:
        UsageError: If the map does not fit the data and the model.
        DataError: If model and data do not fit together.
        OutputError: If results cannot be written.
    """
    settings = load_toml(map_file, TransferMap) if map_file else None
    if settings and settings.crop < 1 and not Path(source).is_dir():
        raise UsageError(f"{map_file}: crop is for folders of images; {source} is none.")
    loaded = load_engine(path, device=device, precision=precision, views=views)
    info, engine = loaded.info, loaded.engine
    dataset, images = load_split(
        source,
        split,
        reporter,
        image_size=info.preprocessing.image_size,
        crop=settings.crop if settings else 1.0,
    )
    check_fit(info, dataset, path, mapped=settings is not None)
    num_seen = count_seen(path, images)
    transfer: Transfer | None = None
    if settings and map_file:
        transfer = try_colors(
            engine, images, dataset.classes, settings, info, origin=map_file, views=views
        )
        images = shown(images, settings, settings.colors, info)
        images = mapped(images, dataset.classes, info.classes, settings, map_file)
    warnings = _warnings(info, dataset)
    if sentence := seen_sentence(info.settings.name, num_seen):
        warnings.append(sentence)
    for warning in warnings:
        reporter.say(f"Warning: {warning}")
    predictions = answers(engine, images, info.classes)
    results: dict[str, Any] = {
        **describe(info, size_bytes=loaded.size_bytes),
        "data": dataset.title,
        "data_md5": dataset.md5,
        "split": split,
        "precision": loaded.precision,
        "num_views": views,
        "warnings": warnings,
        "num_seen": num_seen,
        **evaluate_all(predictions),
        "latency_ms_batch1": latency_ms(engine, images.images, batch_size=1),
        "latency_ms_batch128": latency_ms(engine, images.images, batch_size=128),
    }
    text = results_text(results)
    if transfer is not None:
        text += "\n" + transfer_text(transfer) + "\n"
    if out is not None:
        with made_out(out, overwrite=overwrite):
            write_json(out / MARK, fingerprint(dataset, device=loaded.device.type))
            write_json(out / "results.json", results)
            write_text(out / "results.txt", text)
            write_predictions(out / f"predictions-{split}.csv", predictions)
            figures = make_folder(out / "figures")
            caption = caption_of(results, f"split {split}")
            draw_evaluation(results, figures, caption)
            if transfer is not None:
                write_json(out / "transfer.json", transfer)
                draw_comparison(transfer.comparison, figures, caption)
    if medmnist_csv is not None:
        name = medmnist_name(
            split,
            image_size=dataset.image_size,
            auc=results["auroc_ovr_macro"] or 0,
            acc=results["accuracy"],
            run=f"{info.settings.name}-{info.settings.seed}",
        )
        _write_medmnist(medmnist_csv / name, predictions, overwrite=overwrite)
    return text


def _write_medmnist(path: Path, predictions: Predictions, *, overwrite: bool) -> None:
    every_class = len(np.unique(predictions.labels)) == len(BLOOD_CELLS)
    if predictions.classes != BLOOD_CELLS or not every_class:
        raise DataError(
            "--medmnist-csv: MedMNIST's evaluator judges BloodMNIST's eight classes, each of which "
            "must occur; give such data or leave it out."
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; add --overwrite or choose another folder.")
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_medmnist(path, predictions)


def _warnings(info: ArtifactInfo, dataset: Dataset) -> list[str]:
    """What makes a figure on this data say less than it seems to."""
    another_split = info.trained_on.md5 != dataset.md5
    trained_on_bloodmnist = info.trained_on.md5 in (OFFICIAL_MD5, REBUILT_MD5)
    if another_split and trained_on_bloodmnist and dataset.kind in ("official", "rebuilt"):
        return [
            "the model was trained on another split of the same images, and has seen about 70 % "
            "of these: this is no test of it."
        ]
    return []
