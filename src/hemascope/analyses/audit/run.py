"""`hemascope audit`: copies, doubtful labels and flawed images in a data set."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hemascope.analyses.audit import find
from hemascope.analyses.audit.words import (
    Audit,
    AuditSettings,
    LabelIssue,
    TornGroup,
    audit_text,
    render_audit,
)
from hemascope.core.classes import Split
from hemascope.core.images import Dataset, LabeledImages, concatenate, stored
from hemascope.inference import predict
from hemascope.inference.torch_engine import TorchEngine, features, pick_device, pick_precision
from hemascope.metrics.statistics import wilson
from hemascope.models import build_model
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.provenance import Fingerprint, fingerprint, publish
from hemascope.training.loop import fit
from hemascope.training.state import TrainingState
from hemascope.training.task import ClassificationTask
from hemascope.workflows.plan import choose_settings
from hemascope.workflows.progress import Reporter
from hemascope.workflows.sources import load_data

_SIZE = 28  # pixels; larger images are compared, and learned, as thumbnails
_NUM_FOLDS = 3
_NUM_STEPS = 900  # of training in each fold: five epochs of BloodMNIST
_MOST_EPOCHS = 20
_PRESET = "hemanet-tiny"


def audit(data: DataSettings, output: Output, reporter: Reporter) -> str:
    """Looks for what may be wrong with a data set and writes audit.json and audit.html.

    Args:
        data: The data; damaged files are listed and left out.
        output: Gets the findings.
        reporter: Gets progress and notes.

    Returns:
        The findings in a few lines.

    Raises:
        DataError: If the data cannot be read.
        OutputError: If `output` cannot be written.
        UsageError: If there are so many images that an index is needed, and none is installed.
    """
    data = data.model_copy(update={"skip_bad": True})
    dataset = load_data(data, reporter, as_found=True)
    images = concatenate(list(dataset.splits.values()))
    dataset = _on(images, dataset)
    if len(images) > find.MOST_EXACT:
        find.require_index()  # said before anything that takes time
    facts = fingerprint(dataset, device="cpu")
    content = examine(dataset, images, facts, reporter)
    page = render_audit(content, dict(zip(images.ids, images.images, strict=True)))
    publish(output, facts, contents={"audit.json": content, "audit.html": page})
    return f"{audit_text(content)}\nPage: {output.folder / 'audit.html'}"


def examine(
    dataset: Dataset, images: LabeledImages, facts: Fingerprint, reporter: Reporter
) -> Audit:
    """Everything that is found in a data set.

    Args:
        dataset: The data.
        images: All images of its splits, in order.
        facts: What it is found with.
        reporter: Gets progress and notes.
    """
    splits = [split.value for split, part in dataset.splits.items() for _ in range(len(part))]
    pixels = find.thumbnails(images.images, _SIZE)
    small = LabeledImages(stored([pixels]), images.labels, images.ids)  # whose folds are no copies
    hashes = images.hashes
    exact = find.equal_groups(hashes)
    reporter.say("Cross-validating a small network ...")
    probs, embeddings = _cross_validate(small, _kept_together(images), dataset, reporter)
    reporter.say("Looking for duplicates ...")
    _, once, which = np.unique(hashes, return_index=True, return_inverse=True)
    candidates = [
        find.hash_pairs(find.perceptual_hashes(pixels)[once]),
        find.neighbor_pairs(embeddings[once]),
    ]
    near_once = find.near_pairs(pixels, once[np.concatenate(candidates)])
    copies = np.stack([np.arange(len(images)), once[which]], axis=1)
    together = find.joined_groups(len(images), np.concatenate([near_once, copies]))
    near = [group for group in together if len(set(hashes[group].tolist())) > 1]
    flaws = find.find_flaws(pixels, images.labels, images.sizes)
    counts = np.bincount(images.labels)
    accuracy = float((probs.argmax(axis=1) == images.labels).mean())
    judged = bool(np.sum(counts >= 2 * _NUM_FOLDS) > 1)
    # A network that only guesses would find errors everywhere.
    judged &= bool(wilson(accuracy, len(images))[0] > counts.max() / len(images))
    issues = find.label_issues(images.labels, probs, min_images=2 * _NUM_FOLDS)
    issues = issues if judged else issues[:0]
    singles = (issues.tolist(), flaws.blank, flaws.blurred, flaws.off_size)
    shown = sorted({i for group in together for i in group}.union(*singles))
    names = dataset.classes.names
    sources = _sources(images, splits)

    def ids(indices: Iterable[int]) -> list[str]:
        return [images.ids[i] for i in indices]

    return Audit(
        command=facts.command,
        date=facts.date,
        data=facts.data,
        settings=AuditSettings(find.NEAR_DISTANCE, find.NEAR_SHARE, _NUM_FOLDS),
        exact_duplicate_groups=[ids(group) for group in exact],
        near_duplicate_groups=[ids(group) for group in near],
        label_conflicts=[ids(g) for g in find.across(together, images.labels.tolist())],
        cross_split_groups=[ids(group) for group in find.across(together, splits)],
        label_issue_candidates=ids(issues),
        blank=ids(flaws.blank),
        blurred=ids(flaws.blurred),
        off_size=ids(flaws.off_size),
        label_issues=[
            LabelIssue(
                id=images.ids[i],
                label=names[images.labels[i]],
                suggested=names[int(probs[i].argmax())],
                probability=float(probs[i].max()),
            )
            for i in issues
        ],
        cross_validated_accuracy=accuracy if judged else None,
        groups_in_several_splits=sources[0],
        group_statement=sources[1],
        balance_statement=_balance(dataset, images.labels),
        labels={images.ids[i]: names[images.labels[i]] for i in shown},
        names={images.ids[i]: images.names[i] for i in shown} if images.names else {},
    )


def _on(images: LabeledImages, dataset: Dataset) -> Dataset:
    """The data with the pixels of `images`, all of its own in order, so that they are held once."""
    first, splits = 0, dict[Split, LabeledImages]()
    for split, part in dataset.splits.items():
        pixels = images.images[first : first + len(part)]
        splits[split] = replace(part, images=pixels)
        first += len(part)
    return replace(dataset, splits=splits)


def _kept_together(images: LabeledImages) -> NDArray[np.int64]:
    """A number for each image, the same for copies, and for images of one patient if known."""
    hashes: NDArray[np.int64] = np.unique(images.hashes, return_inverse=True)[1]
    if images.groups is None:
        return hashes
    groups: NDArray[np.int64] = np.unique(np.array(images.groups), return_inverse=True)[1]
    return groups


def _cross_validate(
    images: LabeledImages, together: NDArray[np.int64], dataset: Dataset, reporter: Reporter
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """What a network that has not seen an image says of it, and one network's features of all.

    Images that belong `together` are seen, or not, together.

    Returns:
        Probabilities (N, C) and embeddings (N, D).
    """
    device = pick_device("cpu")
    precision = pick_precision("auto", device)
    batch_size = choose_settings(_PRESET, None).training.batch_size
    num_batches = max(len(images) * (_NUM_FOLDS - 1) // _NUM_FOLDS // batch_size, 1)
    epochs = min(max(round(_NUM_STEPS / num_batches), 1), _MOST_EPOCHS)
    settings = choose_settings(_PRESET, None, {"training.epochs": epochs})
    fold = find.folds_of(images.labels, _NUM_FOLDS, together=together)
    probs = np.full((len(images), len(dataset.classes)), 1 / len(dataset.classes))
    embeddings: NDArray[np.float32] | None = None
    with reporter.steps("cross-validation", _NUM_FOLDS * epochs) as on_epoch:
        for number in range(_NUM_FOLDS):
            held, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            torch.manual_seed(number)
            model = build_model(
                settings.model,
                image_size=images.images.shape[1],
                num_classes=len(dataset.classes),
            )
            state = TrainingState(
                model, settings.training, seed=number, device=device, precision=precision
            )
            if len(held) and len(others):
                train, unseen = images.take(others), images.take(held)
                task = ClassificationTask(train, state, classes=dataset.classes)
                for _ in fit(state, task, unseen):
                    on_epoch()
                network = TorchEngine(state.result, device=device, precision=precision)
                probs[held] = predict(network, unseen, dataset.classes).probs
                del train, unseen, task  # before the next fold's are made
            if embeddings is None:
                embeddings = features(state.model, images.images, device=device)
    assert embeddings is not None  # noqa: S101 - there are folds
    return probs, embeddings


def _sources(images: LabeledImages, splits: Sequence[str]) -> tuple[list[TornGroup], str]:
    """What images come from, such as patients, and is in several splits; and a sentence on it."""
    if images.groups is None:
        return [], (
            "The data does not say which images come from the same patient or smear, so none of "
            "its splits can be shown to be free of images of the same patient (an .npz says it by "
            "arrays such as train_groups, a folder's file names by `group_from`)."
        )
    if len(set(splits)) == 1:
        number = len(set(images.groups))
        return [], f"The images come from {number:,} groups; the data is not split."
    found: dict[str, Counter[str]] = {}
    for group, split in zip(images.groups, splits, strict=True):
        found.setdefault(group, Counter())[split] += 1
    torn = [TornGroup(group, counts) for group, counts in sorted(found.items()) if len(counts) > 1]
    return torn, (
        f"Of {len(found):,} groups that images come from, {len(torn):,} have images in more than "
        "one split" + (": a leak." if torn else ".")
    )


def _balance(dataset: Dataset, labels: NDArray[np.int64]) -> str:
    counts = np.bincount(labels, minlength=len(dataset.classes))
    names = dataset.classes.names
    occurring = np.flatnonzero(counts)
    most, fewest = counts.argmax(), occurring[counts[occurring].argmin()]
    sentence = f"All classes have {counts[most]:,} images"
    if counts[most] > counts[fewest]:
        times = counts[most] / counts[fewest]
        sentence = (
            f"The largest class, {names[most]}, has {times:.1f} times as many images as the "
            f"smallest, {names[fewest]} ({counts[most]:,} and {counts[fewest]:,})"
        )
    if missing := [name for name, count in zip(names, counts, strict=True) if not count]:
        sentence += f"; no images of {', '.join(missing)}"
    if few := [
        f"{name} in {split.value}"
        for split in dataset.splits
        for name, count in dataset.class_counts(split).items()
        if count == 0 and name not in missing
    ]:
        sentence += f"; none of {', '.join(few)}"
    return sentence + "."
