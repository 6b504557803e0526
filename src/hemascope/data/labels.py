"""What the labels of one or several sources mean together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError, UsageError, did_you_mean
from hemascope.core.images import LabeledImages
from hemascope.data.collections import BLOOD_CELLS, collection, with_aliases
from hemascope.data.source import Request, Source
from hemascope.data.splits import FEWEST

_LEFT_OUT = -1


def reconciled(sources: Sequence[Source], request: Request) -> tuple[list[Source], ClassSet]:
    """Sources whose labels all index one class set, and that set.

    That set is a model's, where the data is read for one; else what the request names; else the
    sources' own: where all are names of BloodMNIST's classes, in any spelling, these in its order.

    Raises:
        DataError: If a class is none of those wanted, or two sources each have one that the other
            lacks and no known collection has both.
        UsageError: If the map names a class that does not occur.
    """
    renamed = _renaming(sources, request.settings.map)
    names = [[renamed[name] for name in s.classes.names if renamed[name]] for s in sources]
    wanted = _wanted(sources, names, request)
    read = [_relabeled(source, renamed, wanted, request) for source in sources]
    if not any(source.parts for source in read):
        raise UsageError("the map leaves all images out.", field="map")
    return read, wanted


def _renaming(sources: Sequence[Source], mapping: Mapping[str, str]) -> dict[str, str]:
    """For each name of a class in the data, what it is to be called; "" leaves its images out."""
    own = {name: name for source in sources for name in source.classes.names}
    for name, target in mapping.items():
        this = ClassSet((name,))
        spellings = [other for other in own if this.index(other) is not None]
        if not spellings:
            hint = did_you_mean(name, own)
            raise UsageError(f"the data has no class '{name}'; {hint}", field="map")
        own |= {other: target for other in spellings if other == name or other not in mapping}
    return own


def _wanted(
    sources: Sequence[Source], names: Sequence[Sequence[str]], request: Request
) -> ClassSet:
    if known := request.classes or request.named:
        return known
    if len({source.collection for source in sources}) == 1 and sources[0].collection:
        return collection(sources[0].collection).class_set
    if len(sources) == 1 and sources[0].ordered:
        return with_aliases(tuple(dict.fromkeys(names[0])))
    labels = {BLOOD_CELLS.index(name) for own in names for name in own}
    if None not in labels:
        return BLOOD_CELLS.only({label for label in labels if label is not None})
    largest = _distinct(max(names, key=lambda own: len(set(own))))
    for own in names:
        if unknown := sorted({name for name in own if largest.index(name) is None}):
            raise DataError(
                f"the classes of {request.settings.title} cannot be reconciled: "
                f"{' against '.join(', '.join(sorted(set(own))) for own in names)}; in question: "
                f"{', '.join(unknown)}. Say which is which by `map`, or name all classes by "
                "`classes`.",
                field="data",
            )
    return largest


def _distinct(names: Sequence[str]) -> ClassSet:
    """A class for each name, one for names that mean the same, in any spelling."""
    # BloodMNIST's own names come first, lest an abbreviation of one be kept in its place.
    every = with_aliases(tuple(sorted(set(names), key=lambda n: (n not in BLOOD_CELLS.names, n))))
    again = every.repeated()
    return with_aliases(tuple(sorted(name for name in every.names if name not in again)))


def _relabeled(
    source: Source, renamed: Mapping[str, str], wanted: ClassSet, request: Request
) -> Source:
    """A source with labels of the classes wanted, without the images that are left out.

    Raises:
        DataError: If a class of its images is none of those wanted.
    """
    labels = np.concatenate([part.labels for part in source.parts.values()])
    counts = np.bincount(labels, minlength=len(source.classes))
    fewest = FEWEST if request.settings.skip_rare else 1  # a run's rare classes are not its model's
    targets = np.full(len(source.classes), _LEFT_OUT)
    unknown: list[str] = []
    aliases: list[str] = []
    for label, (name, count) in enumerate(zip(source.classes.names, counts, strict=True)):
        target = renamed[name]
        index = wanted.index(target) if target else None
        if index is not None:
            targets[label] = index
            if wanted.names[index] != name and count:
                aliases.append(f"{name} → {wanted.names[index]}")
        elif target and count >= fewest:
            unknown.append(target)
    if unknown:
        whose = "the model knows" if request.classes else "asked for are"
        hint = did_you_mean(unknown[0], wanted.names)
        raise DataError(
            f"{source.path} has the classes {', '.join(source.classes.names)}, {whose} "
            f"{', '.join(wanted.names)}; in question: {', '.join(unknown)}"
            f"{f' ({hint})' if hint.startswith('did') else ''}. Say by `map` which class each one "
            "is, or leave it out there.",
            field="" if request.classes else "classes",
        )
    parts: dict[Split | None, LabeledImages] = {}
    for split, part in source.parts.items():
        labels = targets[part.labels]
        kept = np.flatnonzero(labels != _LEFT_OUT)
        if len(kept):
            whole = part if len(kept) == len(part) else part.take(kept)
            parts[split] = replace(whole, labels=labels[kept])
    num_left_out = int(counts[targets == _LEFT_OUT].sum())
    notes = list(source.notes)
    if aliases:
        notes.append(f"Class names read as: {', '.join(aliases)}.")
    if num_left_out:
        notes.append(f"{num_left_out:,} image(s) of classes that are not wanted were left out.")
    return replace(source, parts=parts, notes=tuple(notes))
