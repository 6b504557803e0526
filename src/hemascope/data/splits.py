"""Splits data that has none, or not all: stratified by class, no group on two sides."""

import warnings
from collections.abc import Mapping, Sized

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError
from hemascope.core.images import LabeledImages, concatenate

Parts = Mapping[Split, LabeledImages]

_SEED = 0  # the split of a source is part of the data, not of a run
_SHARES = {Split.VAL: 0.1, Split.TEST: 0.2}  # BloodMNIST's own 7 : 1 : 2
_FOLDS = 10  # of groups: one for val, two for test
_DRAWS = 20  # of which the fairest split of groups is taken
_FAIR = (0, 0, 0.02)  # no class is missing anywhere, and the sizes are off by 2 % at most
FEWEST = 3  # images, or groups, of a class that can be split
_OFF = 1 / 3  # how far a split may be from its share, as a part of it, before it is said
_NAMED = 3  # groups in a sentence


def split_all(
    parts: Mapping[Split | None, LabeledImages], classes: ClassSet, *, skip_rare: bool
) -> tuple[dict[Split, LabeledImages], list[str]]:
    """All three splits: those that are there as they are, the others taken from what is left.

    What has no split is split 7 : 1 : 2; a missing val or test is taken out of train.

    Returns:
        The splits, and what was done, in sentences.

    Raises:
        DataError: If there is nothing to train on, a class is too small to be split and not to be
            left out, train lacks a class, or a group is in two splits.
    """
    notes: list[str] = []
    given = {split: part for split, part in parts.items() if split is not None}
    missing = [split for split in _SHARES if split not in given]
    source, how, shares = parts.get(None), "", _SHARES
    if source is not None:
        told = "The images without a split were split" if given else "The data has no splits: split"
        how = f"{told} 7:1:2 by class"
    elif Split.TRAIN not in given:
        found = ", ".join(given)
        raise DataError(f"there is a {found} split and no train split; nothing can be trained on.")
    elif missing:
        how = f"The data has no {' and '.join(missing)} split: taken out of train by class"
        source = given.pop(Split.TRAIN)
        left = sum(share for split, share in _SHARES.items() if split not in missing)
        shares = {split: _SHARES[split] / (1 - left) for split in missing}
    if source is not None:
        source, notes = _without_rare(source, classes, skip_rare=skip_rare)
        parted = split_by_shares(source, classes, shares)
        notes.append(f"{how} {_outcome(source, parted, shares)}.")
        for split, part in parted.items():
            given[split] = concatenate([given[split], part]) if split in given else part
    splits = {split: given[split] for split in Split}
    check_groups(splits)
    _check_train_has_all(splits, classes)
    return splits, notes


def split_by_shares(
    images: LabeledImages, classes: ClassSet, shares: Mapping[Split, float]
) -> dict[Split, LabeledImages]:
    """Splits off a share of each class, the rest being train; whole groups where there are any.

    Raises:
        DataError: If a class has too few images, or there are too few groups.
    """
    chosen = _chosen(images, classes, shares)
    return {split: images.take(np.sort(rows)) for split, rows in chosen.items()}


def planned(images: LabeledImages, classes: ClassSet) -> str:
    """How images without splits will be split, in words.

    Raises:
        DataError: If they cannot be.
    """
    _without_rare(images, classes, skip_rare=False)
    parts = _chosen(images, classes, _SHARES)
    return f"7:1:2 by class {_outcome(images, parts, _SHARES)}"


def _outcome(
    images: LabeledImages, parts: Mapping[Split, Sized], shares: Mapping[Split, float]
) -> str:
    """How many images each split got, and whether groups kept them from their shares."""
    meant = {**shares, Split.TRAIN: 1 - sum(shares.values())}
    sizes = {split: len(parts[split]) for split in Split if split in parts}
    text = f"({', '.join(f'{size:,} {split}' for split, size in sizes.items())})"
    text += f"; {kept_apart(images)}"
    off = (abs(size / len(images) / meant[split] - 1) for split, size in sizes.items())
    if images.groups and max(off) > _OFF:
        text += ", and are too few or too unequal for these shares"
    return text


def _chosen(
    images: LabeledImages, classes: ClassSet, shares: Mapping[Split, float]
) -> dict[Split, NDArray[np.intp]]:
    if images.groups is None:
        return _by_image(images, classes, shares)
    return _by_group(images, shares)


def check_groups(splits: Parts) -> None:
    """Refuses splits that have images of one group on two sides.

    Raises:
        DataError: If a group is in two splits; it is named.
    """
    seen: dict[str, Split] = {}
    torn: dict[str, str] = {}
    for split, part in splits.items():
        for group in set(part.groups or ()):
            if seen.setdefault(group, split) is not split:
                torn[group] = f"{group} ({seen[group]} and {split})"
    if torn:
        named = ", ".join([torn[group] for group in sorted(torn)][:_NAMED])
        raise DataError(
            f"{len(torn):,} group(s) have images in two splits: {named}; give each group to one "
            "split, or leave the splits out and let the groups be split."
        )


def _without_rare(
    images: LabeledImages, classes: ClassSet, *, skip_rare: bool
) -> tuple[LabeledImages, list[str]]:
    """The images of classes that are large enough to be split."""
    keys = images.groups or images.ids
    rare: dict[str, int] = {}
    kept = np.ones(len(images), dtype=np.bool_)
    for label, name in enumerate(classes.names):
        members = np.flatnonzero(images.labels == label)
        if 0 < len({keys[i] for i in members}) < FEWEST:
            rare[name] = len(members)
            kept[members] = False
    if not rare:
        return images, []
    unit = "groups" if images.groups else "images"
    named = ", ".join(f"{name} ({count} image(s))" for name, count in rare.items())
    if not skip_rare:
        raise DataError(
            f"classes with fewer than {FEWEST} {unit} cannot be split: {named}; add {unit}, or "
            "leave such classes out by `skip_rare`."
        )
    if not kept.any():
        raise DataError(f"no class has {FEWEST} {unit}, as splitting needs; add some.")
    note = f"Left out, with fewer than {FEWEST} {unit}: {named}."
    return images.take(np.flatnonzero(kept)), [note]


def _by_image(
    images: LabeledImages, classes: ClassSet, shares: Mapping[Split, float]
) -> dict[Split, NDArray[np.intp]]:
    rng = np.random.default_rng(_SEED)
    chosen: dict[Split, list[NDArray[np.intp]]] = {split: [] for split in (*shares, Split.TRAIN)}
    for label in range(len(classes)):
        members = rng.permutation(np.flatnonzero(images.labels == label))
        if not len(members):
            continue  # a class that this data does not have
        first = 0
        for split, share in shares.items():
            count = max(1, round(len(members) * share)) if len(members) >= FEWEST else 0
            chosen[split].append(members[first : first + count])
            first += count
        chosen[Split.TRAIN].append(members[first:])
    return {split: np.concatenate(rows) for split, rows in chosen.items()}


def _by_group(
    images: LabeledImages, shares: Mapping[Split, float]
) -> dict[Split, NDArray[np.intp]]:
    """Of several draws of folds of whole groups, the one whose splits have most classes."""
    count = max(min(_FOLDS, len(set(images.groups or ()))), FEWEST)
    drawn: list[tuple[tuple[int, int, float], dict[Split, NDArray[np.intp]]]] = []
    for seed in range(_DRAWS):
        chosen = _of_folds(folds(images, count, seed=seed), shares)
        drawn.append((_lack(images, chosen, shares), chosen))
        if drawn[-1][0] < _FAIR:  # of many groups the first one is, and a draw takes seconds
            break
    return min(drawn, key=lambda one: one[0])[1]


def folds(images: LabeledImages, count: int, *, seed: int = _SEED) -> NDArray[np.int64]:
    """Which fold each image is in, shape (N,): classes spread evenly, groups whole.

    Args:
        images: The images.
        count: How many folds; fewer, where the largest class has fewer images.
        seed: Of the draw.

    Raises:
        DataError: If there are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.array(images.groups or images.ids)
    num_groups = len(np.unique(groups))
    unit = "groups" if images.groups else "images"
    if num_groups < count:
        raise DataError(
            f"there are {num_groups} {unit}, too few for {count} parts that have none in common; "
            f"give data with more {unit}."
        )
    possible = min(count, int(np.bincount(images.labels).max()))
    splitter = StratifiedGroupKFold(max(possible, 2), shuffle=True, random_state=seed)
    fold = np.empty(len(images), dtype=np.int64)
    empty = np.empty((len(images), 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes rarer than there are folds
        for number, (_, held) in enumerate(splitter.split(empty, images.labels, groups)):
            fold[held] = number
    return fold


def _of_folds(
    fold: NDArray[np.int64], shares: Mapping[Split, float]
) -> dict[Split, NDArray[np.intp]]:
    """Folds as splits: as many for each as its share comes to, at least one."""
    total, first = int(fold.max()) + 1, 0
    chosen: dict[Split, NDArray[np.intp]] = {}
    for split, share in shares.items():
        count = max(1, round(total * share))
        chosen[split] = np.flatnonzero((fold >= first) & (fold < first + count))
        first += count
    chosen[Split.TRAIN] = np.flatnonzero(fold >= first)
    return chosen


def _lack(
    images: LabeledImages, chosen: Mapping[Split, NDArray[np.intp]], shares: Mapping[Split, float]
) -> tuple[int, int, float]:
    """How far splits are from wanted ones: classes missing in train, in any, and the sizes."""
    has = {split: set(images.labels[rows].tolist()) for split, rows in chosen.items()}
    everything = set(images.labels.tolist())
    missing = sum(len(everything - own) for own in has.values())
    off = sum(abs(len(chosen[s]) / len(images) - share) for s, share in shares.items())
    return len(everything - has[Split.TRAIN]), missing, off


def _check_train_has_all(splits: Parts, classes: ClassSet) -> None:
    trained_on = set(splits[Split.TRAIN].labels.tolist())
    for split in (Split.VAL, Split.TEST):
        for label in sorted(set(splits[split].labels.tolist()) - trained_on):
            raise DataError(
                f"train has no image of the class '{classes.names[label]}', which {split} has; add "
                f"some to train, or remove the class."
            )


def kept_apart(images: LabeledImages) -> str:
    """What to say of patients or slides on two sides of a split of images."""
    if images.groups:
        return f"the {len(set(images.groups)):,} groups were kept apart"
    return "whether images of one patient or slide are in two splits cannot be known"
