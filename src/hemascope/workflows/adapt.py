"""`hemascope adapt`: an exported model fitted to a laboratory, with a few labeled cells or none."""

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.fit import LaboratoryFit
from hemascope.core.framing import Frame, find_cell, spread
from hemascope.core.images import (
    LabeledImages,
    channel_statistics,
    concatenate,
    symmetry,
)
from hemascope.core.predictions import Predictions, log_softmax
from hemascope.core.seen import Seen
from hemascope.data import load
from hemascope.data.inputs import check_inputs, items
from hemascope.data.shards import MANIFEST
from hemascope.data.source import Request
from hemascope.data.table import SUGGESTED
from hemascope.data.walk import PassedOver
from hemascope.inference.decisions import decide
from hemascope.inference.guard import Guard, balanced
from hemascope.inference.last_layer import (
    Cells,
    Kept,
    Rows,
    choose_cells,
    fit_head,
    folds_of,
    head_of,
    moved_layer,
)
from hemascope.inference.onnx_engine import OnnxEngine
from hemascope.inference.predictor import Predictor
from hemascope.metrics import METRICS
from hemascope.metrics.calibration import ece
from hemascope.metrics.comparison import compare_networks
from hemascope.metrics.summary import Estimate, estimate
from hemascope.metrics.uncertainty import fit_temperature
from hemascope.report.adapted import AFTER, BEFORE, Adapted, Judged, write_pages
from hemascope.settings.about import About, DataSource
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.files import csv_text, write_bytes, write_text
from hemascope.store.model_folder import (
    Calibration,
    Decision,
    Head,
    OnnxGraph,
    Tensors,
    TrainingData,
    find_artifact,
    load_head,
    load_seen,
    read_verified,
    save_artifact,
)
from hemascope.store.provenance import begun_out, provenance
from hemascope.store.run_folder import RunFolder
from hemascope.workflows.progress import Reporter

Images = NDArray[np.uint8]

_MOST = 5000  # unlabeled pictures that are looked at
_BATCH = 128
_LEAST_WITH_CELL = 0.1  # share of the pictures
_MOSTLY_APART = 0.5  # of the images: there is more to know than their color
_NUM_RESAMPLES = 2000
_NUM_VIEWS = 8
_MOST_OWN = 2000  # images of `own_data` that are shown to deeper layers
_MOST_FORGOTTEN = 0.005  # of the accuracy on val of `own_data`
_NEVER = 50.0  # below every logit: a class that is never predicted
_THUMBNAIL = 160  # pixels
_SUGGESTED = ("path", "label", *SUGGESTED)


@dataclass(frozen=True, eq=False)
class Laboratory:
    """The photographs of a laboratory, as a model sees them.

    Attributes:
        title: What they are called.
        images: Shape (N, H, H, 3).
        paths: What each photograph is called.
        frame: How they are framed, where that was decided by them.
        labeled: The same images with labels, where there are any.
        classes: What the labels mean.
        notes: What was noticed about them, sentences.
    """

    title: str
    images: Images
    paths: tuple[str, ...]
    frame: Frame | None
    labeled: LabeledImages | None
    classes: ClassSet
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """A new last layer, what its classes are, how it decides and does, and more of the network."""

    head: Head
    classes: ClassSet
    labels: NDArray[np.int64]
    decisions: tuple[Decision, ...]
    judged: Judged
    rows: Rows
    deepened: "Deepened | None"


@dataclass(frozen=True, eq=False)
class Own:
    """Images of the classes that a model is not to forget, labels in [0, C)."""

    train: LabeledImages
    val: LabeledImages


@dataclass(frozen=True, eq=False)
class Deepened:
    """A network whose last blocks were fitted, as a model folder keeps it.

    Attributes:
        weights: For PyTorch.
        graphs: What is to be said of its ONNX graphs, the recommended one last.
        contents: Those graphs.
        guard: Fitted to every other cell, or to `Own`.
        own_accuracy: On val of `Own`; None without.
    """

    weights: Tensors
    graphs: tuple[OnnxGraph, ...]
    contents: list[bytes]
    guard: Guard
    own_accuracy: float | None


class Deepens(Protocol):
    """What fits the last blocks of a network, with torch: `hemascope.workflows.deepen.Deeper`."""

    most_blocks: int

    def logits(self, blocks: int, fitted: Rows, judged: Rows) -> NDArray[np.float32]:
        """Logits (8, n, C) of some cells by a network whose last blocks were fitted to others."""
        ...

    def fitted(self, blocks: int, accuracy: float) -> Deepened:
        """The network fitted to all cells; `accuracy` is what cross-validation says of it."""
        ...


FitHead = Callable[[Rows], Head]
MakeDeeper = Callable[[Path, LabeledImages, FitHead, Own | None], Deepens]


def adapt(
    model: str,
    data: DataSettings,
    output: Output,
    *,
    unlabeled: bool,
    keep: bool,
    own_data: DataSettings | None = None,
    deeper: MakeDeeper | None = None,
    reporter: Reporter,
) -> str:
    """Writes a model folder fitted to a laboratory.

    Without labels: framing and guard, and, for a laboratory unlike those of training, the last
    layer moved to its cells. With some: a new last layer as well, on the same features,
    and as many of the last blocks as cross-validation supports, groups kept apart; temperature,
    sets and threshold are fitted to the answers of that.

    Args:
        model: An exported model or a packaged one.
        data: The laboratory's photographs.
        output: The new model folder.
        unlabeled: Whether labels are to be left aside; a folder of loose photographs has none.
        keep: Whether the old classes stay, held by stored features of training images.
        own_data: The images that the model was trained on, without which `keep` changes no more
            than the last layer.
        deeper: Fits the last blocks; None where torch is not installed.
        reporter: Gets progress and notes.

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
    if labeled := found.labeled:
        noted = _noted(base, found, keep=keep)
        if seen is not None and (known := int(seen.find(labeled).sum())):
            noted.append(
                f"{known:,} of these {len(labeled):,} images are among those that the model was "
                "trained on or adapted to: the figures before and after are too optimistic."
            )
        for note in noted:
            reporter.say(f"Note: {note}")
        found = replace(found, notes=(*found.notes, *noted))
        own = _own(base, own_data, reporter) if own_data and deeper else None

        def start(cells: LabeledImages, fit_head: FitHead) -> Deepens:
            if deeper is None:
                raise DataError("that needs torch, which the extra 'train' installs")
            if keep and own_data is None:
                raise DataError("give --own-data, the images that the model was trained on")
            return deeper(path, cells, fit_head, own)

        stacked = np.stack(views)
        fitted = _fit(base, guard, found, stacked, start, keep=keep, reporter=reporter)
        seen = Seen.joined((seen, Seen.of(labeled)))
    distances = guard.distances(views[0])
    before = _share(guard.apart(found.images, distances))
    if not found.labeled and before.value > _MOSTLY_APART:
        note = (
            f"{100 * before.value:.0f} % of these images are set apart as unlike training. From "
            "now on they count as usual, so wrong answers to such images are flagged less often: "
            "see that they are as they should be, or label a few cells."
        )
        reporter.say(f"Note: {note}")
        found = replace(found, notes=(*found.notes, note))
    deepened = fitted and fitted.deepened
    moved = None
    if not fitted:
        layer = base.engine.head or guard.last_layer
        moved = moved_layer(
            guard,
            layer,
            views[0][guard.show_cells(found.images)],
            base.decision_of().temperature,
        )
    features, rest = views[0], slice(None)
    if fitted and deepened:
        guard = deepened.guard
        features = OnnxEngine(deepened.contents[-1], origin="the graph").features(found.images)
        if deepened.own_accuracy is None:
            rest = slice(1, None, 2)  # the guard holds the other cells already
    elif fitted:
        names = fitted.classes.names
        of_old = np.array([names.index(n) if n in names else -1 for n in (*base.class_names, "")])
        guard = guard.relabeled(of_old, forget=set(names) <= set(base.class_names))
    labels = fitted.labels if fitted else np.full(len(features), -1)
    adapted = guard.adapted(found.images[rest], features[rest], labels[rest])
    apart = before, _share_apart(guard, found.images[rest], features[rest])
    statistics = channel_statistics(found.images)
    about = base.info.about
    source = DataSource(title=found.title, num_images=len(found.images))
    changes: dict[str, object] = {
        "about": About(license=about.license, sources=(*about.sources, source)),
        "image": base.spec.framed(found.frame) if found.frame else base.spec,
        "trained_on": TrainingData(
            title=f"{base.info.trained_on.title}; adapted to {found.title}",
            md5=base.info.trained_on.md5,
            num_images=base.info.trained_on.num_images,
            channel_mean=statistics.mean,
            channel_std=statistics.std,
        ),
    }
    if fitted or moved:
        name = base.info.settings.name.removesuffix("-adapted")[:50]
        changes["settings"] = base.info.settings.model_copy(update={"name": f"{name}-adapted"})
    if moved:  # maps are of the old last layer
        changes["onnx"] = tuple(g.model_copy(update={"has_maps": False}) for g in base.info.onnx)
    if fitted:
        one, views_of = fitted.decisions
        changes["calibration"] = Calibration(
            fitted_on=f"{found.title}, cross-validated",
            num_images=len(fitted.rows),
            temperature=one.temperature,
            temperature_views=views_of.temperature,
        )
        graphs = deepened.graphs if deepened else base.info.onnx
        has_maps = {} if deepened else {"has_maps": False}  # of the old last layer
        changes |= {
            "onnx": tuple(
                graph.model_copy(update={"decisions": fitted.decisions, **has_maps})
                for graph in graphs
            ),
            "recommended": graphs[-1].precision if deepened else base.info.recommended,
            "class_names": fitted.classes.names,
            "class_aliases": dict(fitted.classes.aliases),
        }
    info = base.info.model_copy(update=changes)
    weights = None
    moved_to = head_of(moved) if moved else load_head(path, base.info)
    head = fitted.head if fitted else moved_to
    if deepened:
        weights, contents, head = deepened.weights, deepened.contents, None
    else:
        contents = [read_verified(find_artifact(path), g.file, g.sha256) for g in base.info.onnx]
    result = Adapted(
        title=found.title,
        images=found.images,
        frame=found.frame,
        apart=apart,
        base=base.info,
        info=info,
        judged=fitted.judged if fitted else None,
        rows=fitted.rows if fitted else np.arange(0),
        moved=estimate(moved.num_changed / moved.num_images, moved.num_images) if moved else None,
        notes=found.notes,
    )
    facts = provenance()
    with begun_out(output, facts) as out:
        arrays = adapted.arrays()
        save_artifact(out, info, weights, seen=seen, graphs=contents, guard=arrays, head=head)
        write_pages(result, out, facts)
    return "\n".join(
        [
            f"{base.info.settings.name}, adapted to {found.title}: {output.folder}",
            *([found.frame.describe()] if found.frame else []),
            *result.lines(),
            f"Report: {RunFolder(output.folder).page}",
            f"Next: hemascope predict PATH... --model {output.folder}, or hemascope serve "
            f"--model {output.folder}",
            RESEARCH_USE_ONLY,
        ]
    )


def suggest(
    model: str, data: DataSettings, output: Output, *, count: int, reporter: Reporter
) -> str:
    """Writes a table of the photographs most worth labeling, to be filled in, with thumbnails.

    Returns:
        What to do with it, as text.

    Raises:
        DataError: If the model has no features or guard, or there is no photograph.
        OutputError: If `output` cannot be written.
    """
    base, _ = _base(model, data)
    found = _laboratory(base, data, unlabeled=True, reporter=reporter)
    if inside := [path for path in found.paths if not Path(path).is_file()]:
        raise DataError(
            f"{inside[0]} is not a file by itself, which a table could name: unpack or copy the "
            "images, and give their folder.",
            field="data",
        )
    answers = base.answer(found.images)
    probs = np.array([answer.probs for answer in answers])
    chosen = choose_cells(probs, base.engine.features(found.images), count)
    rows: list[list[str]] = [[*_SUGGESTED]]
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
            rows.append([path, "", said.predicted_class, f"{said.confidence:.4f}", name])
        write_text(out / "suggested.csv", csv_text(rows))
    return "\n".join(
        [
            f"{len(chosen)} of {len(found.images):,} images to label: {out / 'suggested.csv'}",
            "Fill in the column 'label', best for five or more cells of each class, and delete "
            "the rows that you leave out.",
            f"Next: hemascope adapt {model} --data {out / 'suggested.csv'} --out DIR",
            RESEARCH_USE_ONLY,
        ]
    )


def _base(model: str, data: DataSettings) -> tuple[Predictor, Guard]:
    """The model to adapt.

    Raises:
        DataError: If it gives no features.
    """
    base = Predictor(model, frame=data.frame, crop=data.crop, as_trained=True, threads=0)
    if base.guard is None:
        raise DataError(
            f"{model} gives no features to build on; export it again, if its network ends in one "
            "linear layer."
        )
    return base, base.guard


def _laboratory(
    base: Predictor, data: DataSettings, *, unlabeled: bool, reporter: Reporter
) -> Laboratory:
    """The photographs that settings name, labeled or not.

    Raises:
        DataError: If there is none, or no cell in any of them.
    """
    folders = [Path(source) for source in data.sources if Path(source).is_dir()]
    loose = [
        folder
        for folder in folders
        if not any(p.is_dir() for p in folder.iterdir()) and not (folder / MANIFEST).is_file()
    ]
    if loose and len(loose) < len(data.sources) and not unlabeled:
        raise DataError(
            f"{loose[0]} has no labels and the rest of the data has; give them one after the "
            "other, or add `unlabeled`.",
            field="data",
        )
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
            raise DataError(f"two classes of {dataset.title} are the same one: {', '.join(names)}.")
        notes: list[str] = []
        if own.groups and len(set(own.groups)) == 1:
            notes.append(
                f"all cells are of one group ({own.groups[0]}), so folds divide its cells: figures "
                "are of that group's cells, and better than on those of others."
            )
            own = replace(own, groups=None)
        _, first, which = np.unique(own.hashes, return_index=True, return_inverse=True)
        if len(first) < len(own):  # on both sides of a fold they would be known already
            others = int((own.labels != own.labels[first][which]).sum())
            notes.append(
                f"{len(own) - len(first):,} of {len(own):,} labeled images are copies of others "
                f"(equal pixels) and were left out; {others:,} of them had another label."
            )
            own = own.take(np.sort(first))
        if len(dataset.splits) > 1:
            parts = ", ".join(str(split) for split in dataset.splits)
            notes.append(f"the images of all splits are fitted to ({parts}); test on others.")
        for note in notes:
            reporter.say(f"Note: {note}")
        frame = dataset.frames[0] if len(dataset.frames) == 1 else None
        classes = ClassSet(names, dataset.classes.aliases if names == dataset.classes.names else {})
        notes = [*dataset.notes, *notes]
        found = Laboratory(dataset.title, own.images, own.ids, frame, own, classes, tuple(notes))
    if len(found.images) < 2:
        raise DataError(f"{found.title} has one image; give at least two.", field="data")
    looked_at = spread(list(found.images))
    with_cell = sum(bool(find_cell(Image.fromarray(image)).diameter) for image in looked_at)
    if with_cell < _LEAST_WITH_CELL * len(looked_at):
        raise DataError(
            f"no cell is found in {len(looked_at) - with_cell} of {len(looked_at)} images of "
            f"{found.title}; give images of single cells.",
            field="data",
        )
    return found


def _unlabeled(base: Predictor, data: DataSettings, reporter: Reporter) -> Laboratory:
    """Photographs of folders and files, at most a few thousand, spread evenly."""
    check_inputs(data.sources)
    passed = PassedOver()
    everything = list(items(data.sources, passed))
    looked_at = spread(everything, _MOST)
    frame = base.decide_frame(item.read for item in spread(looked_at))
    images, paths = list[Images](), list[str]()
    failed, notes = 0, Counter[str]()
    with reporter.counted("images", len(looked_at)) as advance:
        for start in range(0, len(looked_at), _BATCH):
            batch = looked_at[start : start + _BATCH]
            answered = base.answer_all([item.read for item in batch], LaboratoryFit(frame=frame))
            images.append(answered.images)
            paths += [batch[place].path for place in answered.places]
            failed += len(batch) - len(answered.places)
            notes.update(n for answer in answered.answers for n in answer.note.split("; ") if n)
            advance(len(batch))
    if not paths:
        raise DataError(f"no image of {data.title} can be read.", field="data")
    if failed:
        reporter.say(f"Note: {failed:,} images could not be read and were left out.")
    if len(looked_at) < len(everything):
        reporter.say(f"Note: {len(looked_at):,} of {len(everything):,} images were looked at.")
    for note in (*passed.notes(), *(f"{n:,} image(s): {note}." for note, n in notes.items())):
        reporter.say(f"Note: {note}")
    title = f"{', '.join(Path(source).name for source in data.sources)} (unlabeled)"
    return Laboratory(title, np.concatenate(images), tuple(paths), frame, None, base.info.classes)


def _fit(
    base: Predictor,
    guard: Guard,
    found: Laboratory,
    views: NDArray[np.float32],
    start: Callable[[LabeledImages, FitHead], Deepens],
    *,
    keep: bool,
    reporter: Reporter,
) -> Fitted:
    """The last layer for the labeled cells, or more, judged on cells it was not fitted to."""
    assert found.labeled is not None  # noqa: S101 - the caller has asked
    classes, old = found.classes, base.class_names
    if keep:
        more = tuple(name for name in classes.names if name not in old)
        classes = ClassSet((*old, *more), {**base.info.class_aliases, **classes.aliases})
    to_new = np.array([classes.names.index(name) for name in found.classes.names])
    own = replace(found.labeled, labels=to_new[found.labeled.labels])
    layer = base.engine.head or guard.last_layer
    scale = float(guard.restored(guard.kept).std(axis=0).mean())
    cells = Cells(layer, scale, views, own.labels)
    of_old = np.array([classes.names.index(n) if n in classes.names else -1 for n in old])
    kept = None
    if keep:
        known = guard.kept_labels >= 0
        features = guard.restored(guard.kept[known])
        kept = Kept(features, of_old[guard.kept_labels[known]])
    heads: dict[bytes, Head] = {}

    def fit(rows: Rows) -> Head:
        key = rows.tobytes()
        if key not in heads:
            heads[key] = fit_head(cells, rows, len(classes), kept)
        return heads[key]

    folds = folds_of(own.labels, own.groups)
    judged = _CrossValidated(own, classes, folds)
    of_head = judged(
        lambda rows, others: np.stack([fit(rows).logits(view[others]) for view in views])
    )
    best, blocks, deepened = of_head, 0, None
    try:
        network = start(own, fit)
    except DataError as error:
        said = f"deeper layers were not tried: {str(error).rstrip('.')}"
    else:
        while blocks < network.most_blocks:
            title = f"fitting the last {blocks + 1} block(s)"
            with reporter.steps(title, len(folds)) as on_step:
                tried = judged(partial(network.logits, blocks + 1), on_step)
            if not _is_better(tried[0], best[0]):
                break
            best, blocks = tried, blocks + 1
        said = "cross-validation supports fitting the last layer alone"
        if blocks:
            said = f"cross-validation supports fitting the last {blocks} block(s) as well"
            said += "; chosen by the folds that judge it, so its figures are slightly optimistic"
            deepened = network.fitted(blocks, METRICS["accuracy"](best[0]))
    head = fit(np.arange(len(own)))
    old_val = None
    if kept:
        known = guard.val_labels >= 0  # of classes that an earlier adaptation has kept
        of_val, labels = guard.restored(guard.val[known]), guard.val_labels[known]
        now = head.logits(of_val).argmax(1) == of_old[labels]
        before = layer.logits(of_val).argmax(1) == labels
        old_val = (float(before.mean()), float(now.mean()))
    if deepened and deepened.own_accuracy is not None:
        if deepened.own_accuracy < base.graph.val_accuracy - _MOST_FORGOTTEN:
            said += f", which forgets too much ({100 * deepened.own_accuracy:.1f} % on --own-data)"
            deepened, best = None, of_head
        else:
            old_val = (base.graph.val_accuracy, deepened.own_accuracy)
    plain, together = best
    decisions = decide(plain, num_views=1), decide(together, num_views=8)
    left_out = set(own.labels.tolist()) - set(plain.labels.tolist())
    wider = ClassSet((*classes.names, "another class"))
    never = np.full((len(plain.labels), 1), plain.logits.min() - _NEVER, dtype=np.float32)
    networks: dict[str, dict[int, Predictions]] = {}
    if (of_old >= 0).any():
        answers = base.answer(own.images[judged.rows])
        names = [old.index(a.predicted_class) for a in answers]
        places = np.where(of_old[names] < 0, len(classes), of_old[names])  # the last: none of these
        one_hot = np.eye(len(wider), dtype=np.float32)[places]
        networks[BEFORE] = {0: Predictions(plain.ids, one_hot, plain.labels, wider)}
    networks[AFTER] = {0: replace(plain, logits=np.hstack([plain.logits, never]), classes=wider)}
    return Fitted(
        head,
        classes,
        own.labels,
        decisions,
        Judged(
            answers=plain.scaled(decisions[0].temperature),
            not_judged=tuple(classes.names[label] for label in sorted(left_out)),
            num_not_judged=len(own) - len(judged.rows),
            num_groups=len(set(own.groups)) if own.groups else None,
            num_folds=len(folds),
            comparison=compare_networks(networks, num_resamples=_NUM_RESAMPLES),
            ece_after=ece(plain.scaled(decisions[0].temperature)),
            old_val=old_val,
            deeper=said,
            abstain_below=decisions[0].abstain_below,
        ),
        judged.rows,
        deepened,
    )


def _noted(base: Predictor, found: Laboratory, *, keep: bool) -> list[str]:
    """What labeled cells leave open, in sentences."""
    notes: list[str] = []
    gone = [name for name in base.class_names if name not in found.classes.names]
    if gone and not keep:
        notes.append(
            f"the adapted model no longer knows {', '.join(gone)}: such cells are set apart at "
            "best, or get another class; `keep` keeps these classes."
        )
    if unknown := [name for name in found.classes.names if name not in base.class_names]:
        before = "there is no figure for it before"
        if len(unknown) < len(found.classes.names):
            before = "before, all cells of these count as wrong"
        notes.append(f"the model knew no {', '.join(unknown)}: {before}.")
    if found.labeled and found.labeled.weights is not None:
        notes.append("the images' weights are not used: all classes weigh the same.")
    return notes


class _CrossValidated:
    """Predictions, of one view and of the mean over all, for cells that were not fitted to."""

    def __init__(
        self, cells: LabeledImages, classes: ClassSet, folds: list[tuple[Rows, Rows]]
    ) -> None:
        self._cells, self._classes, self._folds = cells, classes, folds
        self.rows = np.sort(np.concatenate([judged for _, judged in folds]))

    def __call__(
        self,
        logits_of: Callable[[Rows, Rows], NDArray[np.float32]],
        on_fold: Callable[[], None] = lambda: None,
    ) -> tuple[Predictions, Predictions]:
        shape = (_NUM_VIEWS, len(self._cells), len(self._classes))
        logits = np.zeros(shape, dtype=np.float32)
        for rows, judged in self._folds:
            logits[:, judged] = logits_of(rows, judged)
            on_fold()
        averaged = np.logaddexp.reduce([log_softmax(one) for one in logits]) - np.log(len(logits))
        own = self._cells.take(self.rows)
        plain, together = (
            Predictions(own.ids, found[self.rows].astype(np.float32), own.labels, self._classes)
            for found in (logits[0], averaged)
        )
        return plain, together


def _is_better(tried: Predictions, best: Predictions) -> bool:
    """Whether the true classes gain more than a standard error of probability, weighted alike."""
    gains = np.subtract(
        *(
            scaled.log_probs[np.arange(len(scaled.labels)), scaled.labels]
            for scaled in (one.scaled(fit_temperature(one)) for one in (tried, best))
        )
    )
    weights = 1 / np.bincount(best.labels)[best.labels]
    weights /= weights.sum()
    mean = weights @ gains
    return bool(mean > np.sqrt(weights**2 @ (gains - mean) ** 2))


def _own(base: Predictor, data: DataSettings, reporter: Reporter) -> Own:
    """The images that a model was trained on, as `deepen` uses them: some of train, and val."""
    request = Request(data, spec=base.info.image, classes=base.info.classes)
    dataset = load(request)
    for note in dataset.notes:
        reporter.say(f"Note: {note}")
    train, val = dataset.splits[Split.TRAIN], dataset.splits[Split.VAL]
    return Own(train.take(balanced(train.labels, _MOST_OWN)), val)


def _share(apart: NDArray[np.bool_]) -> Estimate:
    return estimate(float(apart.mean()), len(apart))


def _share_apart(guard: Guard, images: Images, features: NDArray[np.float32]) -> Estimate:
    """The share of every other photograph set apart by a guard adapted to those between them."""
    fitted, held_out = slice(0, None, 2), slice(1, None, 2)
    unknown = np.full(len(images[fitted]), -1)
    half = guard.adapted(images[fitted], features[fitted], unknown)
    return _share(half.apart(images[held_out], half.distances(features[held_out])))
