"""`hemascope adapt`: an exported model fitted to a laboratory, with a few labeled cells or none."""

import csv
import io
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.classes import ClassSet
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.framing import Frame, find_cell, spread
from hemascope.core.images import (
    LabeledImages,
    channel_statistics,
    concatenate,
    look_alike,
    symmetry,
)
from hemascope.core.predictions import Predictions, log_softmax
from hemascope.data import load
from hemascope.data.inputs import items
from hemascope.data.source import Request
from hemascope.data.walk import PassedOver
from hemascope.inference.decisions import decide
from hemascope.inference.guard import Guard
from hemascope.inference.last_layer import Cells, Kept, choose_cells, fit_head, folds_of
from hemascope.inference.predictor import Predictor
from hemascope.metrics.calibration import ece
from hemascope.metrics.statistics import Bootstrap
from hemascope.report.adapted import Judged, card_text, judged_lines
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.files import write_bytes, write_text
from hemascope.store.model_folder import (
    Decision,
    Head,
    TrainingData,
    all_seen,
    find_artifact,
    load_head,
    load_seen,
    read_verified,
    save_artifact,
)
from hemascope.store.provenance import begun_out, provenance
from hemascope.workflows.progress import Reporter

Images = NDArray[np.uint8]

_MOST = 5000  # unlabeled pictures that are looked at
_BATCH = 128
_LEAST_WITH_CELL = 0.1  # share of the pictures
_NUM_RESAMPLES = 2000
_NUM_VIEWS = 8
_THUMBNAIL = 160  # pixels
_SUGGESTED = ("path", "label", "predicted_class", "confidence", "thumbnail")


@dataclass(frozen=True, eq=False)
class Laboratory:
    """The pictures of a laboratory, as a model sees them.

    Attributes:
        title: What they are called.
        images: Shape (N, H, H, 3).
        paths: What each picture is called.
        frame: How they are framed, where that was decided by them.
        labeled: The same images with labels, where there are any.
        classes: What the labels mean.
    """

    title: str
    images: Images
    paths: tuple[str, ...]
    frame: Frame | None
    labeled: LabeledImages | None
    classes: ClassSet


@dataclass(frozen=True, eq=False)
class Fitted:
    """A new last layer, what its classes are, and how it decides and does."""

    head: Head
    classes: ClassSet
    decisions: tuple[Decision, ...]
    judged: Judged


def adapt(
    model: str,
    data: DataSettings,
    output: Output,
    *,
    unlabeled: bool,
    keep: bool,
    reporter: Reporter,
) -> str:
    """Writes a model folder fitted to a laboratory.

    Without labels: framing and guard. With some: a new last layer as well, on the same features,
    judged by cross-validation with groups kept apart, and temperature, sets and threshold fitted to
    the answers of that.

    Args:
        model: An exported model or a packaged one.
        data: The laboratory's pictures.
        output: The new model folder.
        unlabeled: Whether labels are to be left aside; a folder of loose pictures has none.
        keep: Whether the old classes stay, held by stored features of training images.
        reporter: Whom to tell.

    Returns:
        What came out, as text.

    Raises:
        DataError: If the model has no features or guard, or the data are too few.
        OutputError: If `output` cannot be written.
    """
    base, guard = _base(model, data)
    path = Path(model)
    found = _laboratory(base, data, unlabeled=unlabeled, reporter=reporter)
    num_views = _NUM_VIEWS if found.labeled else 1
    views: list[NDArray[np.float32]] = []
    with reporter.steps("computing features", num_views) as on_step:
        for view in range(num_views):
            views.append(base.engine.features(symmetry(found.images, view)))
            on_step()
    seen = load_seen(path)
    fitted = None
    if found.labeled:
        if seen is not None and (known := int(look_alike(found.labeled.looks, seen).sum())):
            reporter.say(
                f"Note: {known:,} of these {len(found.images):,} images are among those that the "
                "model was trained on: the figures of before are too good."
            )
        fitted = _fit(base, guard, found, np.stack(views), keep=keep)
        seen = all_seen(seen, found.labeled.looks)
    adapted = _adapted_guard(guard, base, found, views[0], fitted)
    apart = _shares_apart(guard, found.images, views[0])
    statistics = channel_statistics(found.images)
    changes: dict[str, object] = {
        "image": base.spec.framed(found.frame) if found.frame else base.spec,
        "trained_on": TrainingData(
            title=f"{base.info.trained_on.title}; adapted to {found.title}",
            md5=base.info.trained_on.md5,
            num_images=base.info.trained_on.num_images,
            channel_mean=statistics.mean,
            channel_std=statistics.std,
        ),
    }
    if fitted:
        graphs = [
            graph.model_copy(update={"decisions": fitted.decisions, "has_maps": False})
            for graph in base.info.onnx
        ]
        changes |= {
            "onnx": tuple(graphs),
            "class_names": fitted.classes.names,
            "class_aliases": dict(fitted.classes.aliases),
        }
    info = base.info.model_copy(update=changes)
    contents = [read_verified(find_artifact(path), g.file, g.sha256) for g in base.info.onnx]
    head = fitted.head if fitted else load_head(path, base.info)
    lines = judged_lines(fitted.judged if fitted else None, len(found.images), apart)
    with begun_out(output, provenance()) as out:
        arrays = adapted.arrays()
        save_artifact(out, info, None, seen=seen, graphs=contents, guard=arrays, head=head)
        write_text(out / "MODEL_CARD.md", card_text(info, base.info, found.title, lines))
    return "\n".join(
        [
            f"{base.info.settings.name}, adapted to {found.title}: {output.folder}",
            *([found.frame.describe()] if found.frame else []),
            *lines,
            f"Next: hemascope predict PATH... --model {output.folder}",
            RESEARCH_USE_ONLY,
        ]
    )


def suggest(
    model: str, data: DataSettings, output: Output, *, count: int, reporter: Reporter
) -> str:
    """Writes a table of the pictures most worth labeling, to be filled in, with thumbnails.

    Returns:
        What to do with it, as text.

    Raises:
        DataError: If the model has no features or guard, or there is no picture.
        OutputError: If `output` cannot be written.
    """
    base, _ = _base(model, data)
    found = _laboratory(base, data, unlabeled=True, reporter=reporter)
    answers = base.answer(found.images)
    probs = np.array([answer.probs for answer in answers])
    chosen = choose_cells(probs, base.engine.features(found.images), count)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_SUGGESTED)
    with begun_out(output, provenance()) as out:
        (out / "thumbnails").mkdir()
        for number, i in enumerate(chosen):
            name = f"thumbnails/{number:04d}.png"
            picture = Image.fromarray(found.images[i]).resize((_THUMBNAIL, _THUMBNAIL))
            with io.BytesIO() as file:
                picture.save(file, "PNG")
                write_bytes(out / name, file.getvalue())
            path = str(Path(found.paths[i]).absolute())
            said = answers[i]
            writer.writerow([path, "", said.predicted_class, f"{said.confidence:.4f}", name])
        write_text(out / "suggested.csv", table.getvalue())
    return "\n".join(
        [
            f"{len(chosen)} of {len(found.images):,} pictures to label: {out / 'suggested.csv'}",
            "Fill in the column 'label' and delete the rows that you leave out.",
            f"Next: hemascope adapt {model} --data {out / 'suggested.csv'} --out DIR",
            RESEARCH_USE_ONLY,
        ]
    )


def _base(model: str, data: DataSettings) -> tuple[Predictor, Guard]:
    """The model to adapt.

    Raises:
        DataError: If it gives no features.
    """
    base = Predictor(model, frame=data.frame, crop=data.crop, threads=0)
    if base.guard is None:
        raise DataError(
            f"{model} gives no features to build on; export it again, if its network ends in one "
            "linear layer."
        )
    return base, base.guard


def _laboratory(
    base: Predictor, data: DataSettings, *, unlabeled: bool, reporter: Reporter
) -> Laboratory:
    """The pictures that settings name, labeled or not.

    Raises:
        DataError: If there is none, or no cell in any of them.
    """
    folders = [Path(source) for source in data.sources if Path(source).is_dir()]
    loose = [folder for folder in folders if not any(p.is_dir() for p in folder.iterdir())]
    if unlabeled or loose:
        found = _unlabeled(base, data, reporter)
    else:
        dataset = load(Request(data, spec=base.info.image, as_found=True))
        for note in dataset.notes:
            reporter.say(f"Note: {note}")
        own = concatenate(list(dataset.splits.values()))
        names = tuple(
            name if (label := base.info.classes.index(name)) is None else base.class_names[label]
            for name in dataset.classes.names
        )
        if len(set(names)) < len(names):
            raise DataError(f"two classes of {dataset.title} mean the same: {', '.join(names)}.")
        frame = dataset.frames[0] if len(dataset.frames) == 1 else None
        classes = ClassSet(names, dataset.classes.aliases if names == dataset.classes.names else {})
        found = Laboratory(dataset.title, own.images, own.ids, frame, own, classes)
    looked_at = spread(list(found.images))
    with_cell = sum(bool(find_cell(Image.fromarray(image)).diameter) for image in looked_at)
    if with_cell < _LEAST_WITH_CELL * len(looked_at):
        raise DataError(
            f"no cell is found in {len(looked_at) - with_cell} of {len(looked_at)} pictures of "
            f"{found.title}; give pictures of single cells.",
            field="data",
        )
    return found


def _unlabeled(base: Predictor, data: DataSettings, reporter: Reporter) -> Laboratory:
    """Pictures of folders and files, at most a few thousand, spread evenly."""
    passed = PassedOver()
    everything = list(items(data.sources, passed))
    step = max(len(everything) / _MOST, 1)
    looked_at = [everything[int(i * step)] for i in range(min(len(everything), _MOST))]
    frame = base.decide_frame(item.read for item in spread(looked_at))
    images, paths = list[Images](), list[str]()
    failed, notes = 0, Counter[str]()
    with reporter.counted("pictures", len(looked_at)) as advance:
        for start in range(0, len(looked_at), _BATCH):
            batch = looked_at[start : start + _BATCH]
            answered = base.answer_all([item.read for item in batch], frame)
            images.append(answered.images)
            paths += [batch[place].path for place in answered.places]
            failed += len(batch) - len(answered.places)
            notes.update(n for answer in answered.answers for n in answer.note.split("; ") if n)
            advance(len(batch))
    if not paths:
        raise DataError(f"no picture of {data.title} can be read.", field="data")
    if failed:
        reporter.say(f"Note: {failed:,} pictures could not be read and were left out.")
    if len(looked_at) < len(everything):
        reporter.say(f"Note: {len(looked_at):,} of {len(everything):,} pictures were looked at.")
    for note in (*passed.notes(), *(f"{n:,} image(s): {note}." for note, n in notes.items())):
        reporter.say(f"Note: {note}")
    title = f"{', '.join(Path(source).name for source in data.sources)} (unlabeled)"
    return Laboratory(title, np.concatenate(images), tuple(paths), frame, None, base.info.classes)


def _fit(
    base: Predictor, guard: Guard, found: Laboratory, views: NDArray[np.float32], *, keep: bool
) -> Fitted:
    """The last layer for the labeled cells, judged on cells it was not fitted to."""
    own = found.labeled
    assert own is not None  # noqa: S101 - the caller has asked
    classes, old = found.classes, base.class_names
    if keep:
        more = tuple(name for name in classes.names if name not in old)
        classes = ClassSet((*old, *more), {**base.info.class_aliases, **classes.aliases})
    to_new = np.array([classes.names.index(name) for name in found.classes.names])
    layer = base.engine.head or Head(guard.weights, guard.biases)
    scale = float(guard.restored(guard.kept).std(axis=0).mean())
    cells = Cells(layer, scale, views, to_new[own.labels])
    of_old = np.array([classes.names.index(n) if n in classes.names else -1 for n in old])
    kept = None
    if keep:
        known = guard.kept_labels >= 0
        features = guard.restored(guard.kept[known])
        kept = Kept(features, of_old[guard.kept_labels[known]])
    fit = partial(fit_head, cells, num_classes=len(classes), kept=kept)
    folds = folds_of(own.labels, own.groups)
    logits = np.zeros((len(views), len(own), len(classes)), dtype=np.float32)
    for rows, judged in folds:
        head = fit(rows)
        for view, features in enumerate(views):
            logits[view, judged] = head.logits(features[judged])
    rows = np.sort(np.concatenate([judged for _, judged in folds]))
    judged_cells = own.take(rows)
    ids, labels = judged_cells.ids, cells.labels[rows]
    left_out = set(cells.labels.tolist()) - set(labels.tolist())
    averaged = np.logaddexp.reduce([log_softmax(one) for one in logits]) - np.log(len(views))
    plain = Predictions(ids, logits[0][rows], labels, classes)
    together = Predictions(ids, averaged[rows].astype(np.float32), labels, classes)
    decisions = decide(plain, num_views=1), decide(together, num_views=8)
    head = fit(np.arange(len(own)))
    bootstrap = Bootstrap(labels, len(classes) + 1, num_resamples=_NUM_RESAMPLES)
    accuracy = "balanced_accuracy"
    before = None
    if (of_old >= 0).any():
        said = [old.index(a.predicted_class) for a in base.answer(judged_cells.images)]
        places = np.where(of_old[said] < 0, len(classes), of_old[said])  # the last: none of these
        one_hot = np.eye(len(classes) + 1, dtype=np.float32)[places]
        wider = ClassSet((*classes.names, "another class"))
        answered = Predictions(ids, one_hot, labels, wider)
        before = bootstrap([answered]).interval(accuracy)
    after = Bootstrap(labels, len(classes), num_resamples=_NUM_RESAMPLES)([plain])
    old_val = None
    if kept:
        right = head.logits(guard.restored(guard.val)).argmax(1) == of_old[guard.val_labels]
        old_val = (base.graph.val_accuracy, float(right.mean()))
    return Fitted(
        head,
        classes,
        decisions,
        Judged(
            num_cells=len(rows),
            not_judged=tuple(classes.names[label] for label in sorted(left_out)),
            num_groups=len(set(own.groups)) if own.groups else None,
            num_folds=len(folds),
            before=before,
            after=after.interval(accuracy),
            ece_after=ece(plain.scaled(decisions[0].temperature)),
            old_val=old_val,
        ),
    )


def _shares_apart(
    guard: Guard, images: Images, features: NDArray[np.float32]
) -> tuple[float, float]:
    """The share of pictures set apart now, and by a guard adapted to the other half of them."""
    fitted, held_out = slice(0, None, 2), slice(1, None, 2)
    unknown = np.full(len(images[fitted]), -1)
    half = guard.adapted(images[fitted], features[fitted], unknown)
    before = guard.apart(images, guard.distances(features))
    after = half.apart(images[held_out], half.distances(features[held_out]))
    return float(before.mean()), float(after.mean())


def _adapted_guard(
    guard: Guard,
    base: Predictor,
    found: Laboratory,
    features: NDArray[np.float32],
    fitted: Fitted | None,
) -> Guard:
    """The guard for the laboratory; its labels are those of the new classes, -1 for none."""
    if not fitted or found.labeled is None:
        return guard.adapted(found.images, features, np.full(len(features), -1))
    names = fitted.classes.names
    of_old = np.array([names.index(n) if n in names else -1 for n in (*base.class_names, "")])
    of_own = np.array([names.index(name) for name in found.classes.names])
    guard = replace(
        guard, kept_labels=of_old[guard.kept_labels], val_labels=of_old[guard.val_labels]
    )
    return guard.adapted(found.images, features, of_own[found.labeled.labels])
