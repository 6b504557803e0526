"""Cross-validation: folds, laboratories or groups held out in turn; their mean and spread."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import Split
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.images import Dataset, LabeledImages, concatenate, pixels_md5
from hemascope.data.splits import folds, kept_apart, split_by_shares
from hemascope.inference.torch_engine import pick_device
from hemascope.metrics.summary import Spread, spread
from hemascope.report.text import markdown_table, seen_sentence
from hemascope.settings.output import Output
from hemascope.settings.run import RunSettings
from hemascope.store.files import MARK, claimed, make_out, write_json, write_text
from hemascope.store.provenance import fingerprint
from hemascope.workflows.progress import Reporter
from hemascope.workflows.sources import load_data
from hemascope.workflows.train import Watch, train

Scheme = Literal["laboratory", "group"] | int  # what is left out in turn, or how many folds
_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
}
_VAL_SHARE = 0.1  # of what a fold does not hold out


@dataclass(frozen=True)
class Fold:
    """What one fold found.

    Attributes:
        name: What was held out.
        num_test: Images it is judged by.
        figures: Its figures on them.
        left_out: Images of classes that it did not train on, by class; not judged.
        num_seen: How many of its images the network was trained on; None if that is not known.
    """

    name: str
    num_test: int
    figures: dict[str, float]
    left_out: dict[str, int]
    num_seen: int | None


def cross_validate(
    settings: RunSettings,
    output: Output,
    *,
    scheme: Scheme,
    reporter: Reporter,
    watch: Watch | None = None,
) -> str:
    """Trains one network for each fold, in a run folder of its own, and judges it by what it held.

    Groups are never on two sides of a fold, nor of its train and val.

    Args:
        settings: What to train, how, and on which data; splits that it has are not used.
        output: Gets a run folder for each fold, folds.json and folds.md.
        scheme: How many folds, or what is left out in turn.
        reporter: Gets progress and notes.
        watch: As `train`, for each fold.

    Returns:
        Mean and spread over the folds, and each fold, as text.

    Raises:
        DataError: If the data does not say what is to be left out, or there is too little of it.
    """
    dataset = load_data(settings.data, reporter, as_found=True)
    images = concatenate(list(dataset.splits.values()))
    held = held_out(images, scheme)
    if count := num_across(images, held.values()):
        reporter.say(
            f"Note: {count:,} groups are in several laboratories; what is not held out of a group "
            "that is held out in part is left out of training. If these are other patients or "
            "slides of the same name, give them different names."
        )
    out = output.folder
    with claimed(out):
        if not (output.resume and (out / MARK).is_file()):
            make_out(out, overwrite=output.overwrite)
            mark = fingerprint(dataset, device=pick_device(settings.device).type)
            write_json(out / MARK, mark)
        found: list[Fold] = []
        for (name, rows), folder in zip(held.items(), folder_names(list(held)), strict=True):
            data, left_out = fold_of(dataset, images, rows, name)
            own = Output(out / folder, resume=output.resume)
            run = train(settings, data, own, reporter, watch=watch)
            results = run.read_results()
            figures = {key: float(getattr(results, key)) for key in _FIGURES}
            num_test = len(data.splits[Split.TEST])
            found.append(Fold(name, num_test, figures, left_out, results.num_seen))
        means = {key: spread([fold.figures[key] for fold in found]) for key in _FIGURES}
        leak = _leak(settings.name, found)
        content: dict[str, object] = {
            "notice": RESEARCH_USE_ONLY,
            "data": dataset.title,
            "scheme": str(scheme),
            "folds": found,
            "mean": means,
            "warnings": [leak] if leak else [],
        }
        text = _text(dataset, kept_apart(images), scheme, found, means, leak)
        write_json(out / "folds.json", content)
        write_text(out / "folds.md", text + "\n")
    return text


def folder_names(names: Sequence[str]) -> list[str]:
    """A folder for each fold; a number tells names apart that differ in punctuation alone."""
    taken: dict[str, str] = {}
    for name in names:
        stem = folder = f"fold-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}"
        number = 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{stem}-{number}"
        taken[folder.casefold()] = folder
    return list(taken.values())


def held_out(images: LabeledImages, scheme: Scheme) -> dict[str, NDArray[np.intp]]:
    """The images that each fold holds out, by the fold's name."""
    if isinstance(scheme, int):
        fold = folds(images, scheme)
        return {str(k + 1): np.flatnonzero(fold == k) for k in range(scheme)}
    known = images.laboratories if scheme == "laboratory" else images.groups
    if known is None:
        ways = {"laboratory": "several sources", "group": "`group_from`"}
        how = f"a column '{scheme}', or {ways[scheme]}"
        raise DataError(f"the data does not say the {scheme} of its images; give {how}.")
    names = sorted(set(known))
    if len(names) < 2:
        raise DataError(f"there is one {scheme} only, {names[0]}; two are needed to leave one out.")
    keys = np.array(known)
    return {name: np.flatnonzero(keys == name) for name in names}


def num_across(images: LabeledImages, parts: Iterable[NDArray[np.intp]]) -> int:
    """How many groups have images in several of some parts."""
    groups = np.array(images.groups or images.ids)
    counts = Counter(group for rows in parts for group in set(groups[rows].tolist()))
    return sum(number > 1 for number in counts.values())


def fold_of(
    dataset: Dataset, images: LabeledImages, held: NDArray[np.intp], name: str
) -> tuple[Dataset, dict[str, int]]:
    """A fold's data: its train and val, and of what it holds out the classes that it trains on."""
    others = np.setdiff1d(np.arange(len(images)), held)
    if images.groups:
        groups = np.array(images.groups)
        others = others[~np.isin(groups[others], groups[held])]
    if not len(others):
        raise DataError(f"leaving out {name} leaves nothing to train on.")
    splits = split_by_shares(images.take(others), dataset.classes, {Split.VAL: _VAL_SHARE})
    splits[Split.TEST] = images.take(held)
    trained_on = np.unique(splits[Split.TRAIN].labels)
    unknown = splits[Split.TEST].labels
    unknown = unknown[~np.isin(unknown, trained_on)]
    counts = np.bincount(unknown, minlength=len(dataset.classes)).tolist()
    left_out = {n: count for n, count in zip(dataset.classes.names, counts, strict=True) if count}
    for split in (Split.VAL, Split.TEST):
        part = splits[split]
        splits[split] = part.take(np.flatnonzero(np.isin(part.labels, trained_on)))
        if not len(splits[split]):
            raise DataError(
                f"with {name} held out, no {split} image is of a class in train; give data of more "
                "groups."
            )
    title = f"{dataset.title}, {name} held out"
    ordered = {split: splits[split] for split in Split}
    md5 = pixels_md5(ordered)  # other data than the whole, and than folds of another number
    fold = replace(dataset, splits=ordered, title=title, is_split=True, md5=md5, md5_of="pixels")
    return fold, left_out


def _leak(name: str, found: Sequence[Fold]) -> str:
    """How many of all images were known to a network that was judged by them; empty if none."""
    known = [fold.num_seen for fold in found if fold.num_seen is not None]
    return seen_sentence(name, sum(known) if len(known) == len(found) else None)


def _text(
    dataset: Dataset,
    apart: str,
    scheme: Scheme,
    found: list[Fold],
    means: Mapping[str, Spread],
    leak: str,
) -> str:
    what = f"{scheme} folds" if isinstance(scheme, int) else f"each {scheme} left out in turn"
    rows = [["held out", "images", *(f"{label} (%)" for label in _FIGURES.values())]]
    for fold in found:
        cells = [f"{100 * fold.figures[key]:.1f}" for key in _FIGURES]
        rows.append([fold.name, f"{fold.num_test:,}", *cells])
    cells = [f"{100 * m.mean:.1f} ± {100 * (m.sd or 0):.1f}" for m in means.values()]
    rows.append([f"mean ± sd, n = {len(found)}", "", *cells])
    given = " The splits that the data has were not used." if dataset.is_split else ""
    lines = [f"{dataset.title}: {what}; {apart}.{given}", "", markdown_table(rows)]
    for fold in found:
        if fold.left_out:
            named = ", ".join(f"{name} ({count:,})" for name, count in fold.left_out.items())
            lines.append(f"\nWith {fold.name} held out, not judged: not trained on {named}.")
    if leak:
        lines.append(f"\n{leak}")
    return "\n".join([*lines, "", RESEARCH_USE_ONLY])
