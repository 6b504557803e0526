"""What the labels of one or several sources mean together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError, UsageError, did_you_mean
from hemascope.core.images import LabeledImages
from hemascope.data.collections import collection
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
    if not any(part for source in read for part in source.parts.values()):
        raise UsageError("the map leaves all images out.", field="map")
    return read, wanted


def _renaming(sources: Sequence[Source], mapping: Mapping[str, str]) -> dict[str, str]:
    """For each name of a class in the data, what it is to be called; "" leaves its images out."""
    own = {name: name for source in sources for name in source.classes.names}
    classes = ClassSet(tuple(own))
    for name, target in mapping.items():
        label = classes.index(name)
        if label is None:
            hint = did_you_mean(name, own)
            raise UsageError(f"the data has no class '{name}'; {hint}", field="map")
        own[classes.names[label]] = target
    return own


def _wanted(
    sources: Sequence[Source], names: Sequence[Sequence[str]], request: Request
) -> ClassSet:
    asked = request.settings
    if request.classes:
        return request.classes
    if asked.collection:
        return collection(asked.collection).class_set
    if asked.classes:
        return _with_aliases(asked.classes)
    if len({source.collection for source in sources}) == 1 and sources[0].collection:
        return collection(sources[0].collection).class_set
    if len(sources) == 1 and sources[0].ordered:
        return _with_aliases(tuple(dict.fromkeys(names[0])))
    blood = collection("bloodmnist").class_set
    labels = {blood.index(name) for own in names for name in own}
    if None not in labels:
        return blood.only({label for label in labels if label is not None})
    largest = ClassSet(tuple(sorted(set(max(names, key=lambda own: len(set(own)))))))
    for own in names:
        if unknown := sorted({name for name in own if largest.index(name) is None}):
            raise DataError(
                f"the classes of {asked.title} cannot be reconciled: "
                f"{' against '.join(', '.join(sorted(set(own))) for own in names)}; in question: "
                f"{', '.join(unknown)}. Say which is which by `map`, or name all classes by "
                "`classes`.",
                field="data",
            )
    return largest


def _with_aliases(names: tuple[str, ...]) -> ClassSet:
    """Classes with the usual other names of those that are BloodMNIST's."""
    known = collection("bloodmnist").aliases
    return ClassSet(names, {alias: name for alias, name in known.items() if name in names})


def _relabeled(
    source: Source, renamed: Mapping[str, str], wanted: ClassSet, request: Request
) -> Source:
    """A source with labels of the classes wanted, without the images that are left out.

    Raises:
        DataError: If a class of its images is none of those wanted.
    """
    occurring = {label for part in source.parts.values() for label in np.unique(part.labels)}
    targets = np.full(len(source.classes), _LEFT_OUT)
    unknown: list[str] = []
    aliases: list[str] = []
    for label, name in enumerate(source.classes.names):
        target = renamed[name]
        index = wanted.index(target) if target else None
        if index is not None:
            targets[label] = index
            if wanted.names[index] != name and label in occurring:
                aliases.append(f"{name} → {wanted.names[index]}")
        elif target and label in occurring and not _is_rare(source, label, request):
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
    num_left_out = 0
    for split, part in source.parts.items():
        labels = targets[part.labels]
        kept = np.flatnonzero(labels != _LEFT_OUT)
        num_left_out += len(part) - len(kept)
        if len(kept) == len(part):
            parts[split] = replace(part, labels=labels)
        elif len(kept):
            parts[split] = replace(part.take(kept), labels=labels[kept])
    notes = list(source.notes)
    if aliases:
        notes.append(f"Class names read as: {', '.join(aliases)}.")
    if num_left_out:
        notes.append(f"{num_left_out:,} image(s) of classes that are not wanted were left out.")
    return replace(source, parts=parts, notes=tuple(notes))


def _is_rare(source: Source, label: int, request: Request) -> bool:
    """Whether a class is one that the run whose model this is left out as too small."""
    count = sum(int((part.labels == label).sum()) for part in source.parts.values())
    return request.settings.skip_rare and count < FEWEST
