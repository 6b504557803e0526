"""Splits and folds: no group on two sides, whatever the groups."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import DataError
from hemascope.core.images import Dataset, LabeledImages
from hemascope.data.splits import FEWEST, folds, planned, split_all
from hemascope.workflows import folds as cross

CLASSES = ClassSet(("a", "b", "c"))


def _images(
    labels: list[int], groups: list[str] | None = None, laboratories: list[str] | None = None
) -> LabeledImages:
    count = len(labels)
    pixels: NDArray[np.uint8] = np.zeros((count, 8, 8, 3), np.uint8)
    return LabeledImages(
        pixels,
        np.array(labels, dtype=np.int64),
        tuple(map(str, range(count))),
        groups=None if groups is None else tuple(groups),
        laboratories=None if laboratories is None else tuple(laboratories),
    )


def _split(images: LabeledImages, *, skip_rare: bool = False) -> dict[Split, LabeledImages]:
    return split_all({None: images}, CLASSES, skip_rare=skip_rare)[0]


def _overlap(parts: dict[Split, LabeledImages]) -> set[str]:
    sets = [set(part.groups or ()) for part in parts.values()]
    return {g for i, own in enumerate(sets) for other in sets[:i] for g in own & other}


@given(
    labels=st.lists(st.integers(0, 2), min_size=12, max_size=60),
    num_groups=st.integers(3, 20),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_no_group_is_in_two_splits_and_no_image_is_lost(
    labels: list[int], num_groups: int, seed: int
) -> None:
    drawn = np.random.default_rng(seed).integers(num_groups, size=len(labels))
    images = _images(labels, [f"g{i}" for i in drawn])
    try:
        parts = _split(images, skip_rare=True)
    except DataError:  # said in a sentence: no class in enough groups, or train would lack one
        assume(False)
        return
    assert not _overlap(parts)
    assert all(len(part) for part in parts.values())
    keys = {label: {drawn[i] for i in np.flatnonzero(images.labels == label)} for label in range(3)}
    kept = {str(i) for i, label in enumerate(labels) if len(keys[label]) >= FEWEST}
    assert sorted(i for part in parts.values() for i in part.ids) == sorted(kept)


@given(
    count=st.integers(2, 5),
    groups=st.lists(st.integers(0, 12), min_size=20, max_size=60),
)
@settings(max_examples=40, deadline=None)
def test_no_group_is_in_two_folds_and_every_fold_has_images(count: int, groups: list[int]) -> None:
    assume(len(set(groups)) >= count)
    fold = folds(_images([i % 2 for i in range(len(groups))], [str(g) for g in groups]), count)
    assert set(fold) == set(range(count))
    for group in set(groups):
        assert len(set(fold[np.array(groups) == group])) == 1


@pytest.mark.parametrize("scheme", ["laboratory", "group", 3])
def test_no_group_is_on_two_sides_of_what_is_held_out(scheme: cross.Scheme) -> None:
    groups = [f"g{i // 5}" for i in range(90)]
    images = _images(
        [i % 3 for i in range(90)], groups, [("n", "e", "s")[i // 30] for i in range(90)]
    )
    dataset = Dataset("t", {Split.TEST: images}, CLASSES, "t", "0" * 32)
    held = cross.held_out(images, scheme)
    assert sorted(np.concatenate(list(held.values())).tolist()) == list(range(90))
    for name, rows in held.items():
        data, left_out = cross.fold_of(dataset, images, rows, name)
        assert not _overlap(dict(data.splits))
        assert not left_out
        assert sum(len(part) for part in data.splits.values()) == 90
        assert set(data.splits[Split.TEST].ids) == {str(row) for row in rows}


def test_a_group_of_two_laboratories_is_not_trained_on_where_a_part_is_held_out() -> None:
    groups = [f"g{i // 5}" for i in range(60)]
    groups[40] = "g0"
    images = _images([i % 3 for i in range(60)], groups, ["n"] * 30 + ["e"] * 30)
    dataset = Dataset("t", {Split.TEST: images}, CLASSES, "t", "0" * 32)
    held = cross.held_out(images, "laboratory")
    assert cross.num_across(images, held.values()) == 1
    data, _ = cross.fold_of(dataset, images, held["n"], "n")
    assert not _overlap(dict(data.splits))
    assert sum(len(part) for part in data.splits.values()) == 59


def test_a_class_that_only_what_is_held_out_has_is_counted_and_left_out() -> None:
    labels = [i % 2 for i in range(40)] + [2] * 5
    images = _images(labels, laboratories=["n"] * 20 + ["s"] * 25)
    dataset = Dataset("t", {Split.TEST: images}, CLASSES, "t", "0" * 32)
    rows = cross.held_out(images, "laboratory")["s"]
    data, left_out = cross.fold_of(dataset, images, rows, "s")
    assert left_out == {"c": 5}
    assert set(data.splits[Split.TEST].labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("group", "does not say the group of its images; give a column 'group', or `group_from`"),
        ("laboratory", "there is one laboratory only, n; two are needed"),
        (30, "there are 20 images, too few for 30 parts"),
    ],
)
def test_too_little_to_be_held_out(scheme: cross.Scheme, message: str) -> None:
    images = _images([0, 1] * 10, laboratories=["n"] * 20)
    with pytest.raises(DataError, match=message):
        cross.held_out(images, scheme)


def test_too_few_groups_are_said() -> None:
    with pytest.raises(DataError, match=r"fewer than 3 groups cannot be split: a .*, b "):
        _split(_images([0, 1] * 10, ["p", "q"] * 10))
    with pytest.raises(DataError, match="there are 3 groups, too few for 4 parts"):
        folds(_images([0, 1] * 10, [f"g{i % 3}" for i in range(20)]), 4)


def test_a_group_in_two_given_splits_is_named() -> None:
    parts: dict[Split | None, LabeledImages] = {
        Split.TRAIN: _images([0, 1, 2], ["p1", "p2", "p3"]),
        Split.VAL: _images([0], ["p4"]),
        Split.TEST: _images([0, 1], ["p2", "p5"]),
    }
    with pytest.raises(DataError, match=r"1 group\(s\).*: p2 \(train and test\)"):
        split_all(parts, CLASSES, skip_rare=False)


def test_groups_of_given_splits_are_not_torn_by_images_without_a_split() -> None:
    given_parts: dict[Split | None, LabeledImages] = {
        split: _images([0, 1, 2] * 2, [f"{split}{i}" for i in range(6)]) for split in Split
    }
    groups = [f"{('train', 'val', 'test')[i // 3 % 3]}{i % 6}" for i in range(36)]
    more = _images([0, 1, 2] * 12, groups)
    with pytest.raises(DataError, match=r"group\(s\) have images in two splits"):
        split_all({**given_parts, None: more}, CLASSES, skip_rare=False)


def test_rare_classes_are_refused_or_left_out_and_said() -> None:
    images = _images([0] * 10 + [1] * 10 + [2] * 2)
    with pytest.raises(DataError, match=r"fewer than 3 images.*: c \(2 image\(s\)\).*`skip_rare`"):
        _split(images)
    parts, notes = split_all({None: images}, CLASSES, skip_rare=True)
    assert sum(len(part) for part in parts.values()) == 20
    assert "Left out, with fewer than 3 images: c (2 image(s))." in notes
    with pytest.raises(DataError, match="no class has 3 images"):
        _split(_images([0, 1, 2]), skip_rare=True)


def test_a_class_that_train_lacks_is_named() -> None:
    parts: dict[Split | None, LabeledImages] = {
        Split.TRAIN: _images([0, 1]),
        Split.VAL: _images([0, 1]),
        Split.TEST: _images([2]),
    }
    with pytest.raises(DataError, match="train has no image of the class 'c', which test has"):
        split_all(parts, CLASSES, skip_rare=False)


def test_whether_groups_were_kept_apart_is_said() -> None:
    groups = [f"g{i // 2}" for i in range(30)]
    images = _images([0, 1, 2] * 10, groups)
    parts, notes = split_all({None: images}, CLASSES, skip_rare=False)
    sizes = ", ".join(f"{len(part)} {split}" for split, part in parts.items())
    said = f"7:1:2 by class ({sizes}); the 15 groups were kept apart"
    assert notes == [f"The data has no splits: split {said}."]
    assert planned(images, CLASSES) == said
    _, notes = split_all({None: _images([0, 1, 2] * 10)}, CLASSES, skip_rare=False)
    assert notes[0].endswith("cannot be known.")


def test_groups_that_are_too_few_for_the_shares_are_said() -> None:
    """A laboratory sent cells of three patients: thirds are not 7:1:2."""
    images = _images([0, 1, 2] * 20, [f"g{i // 20}" for i in range(60)])
    _, [note] = split_all({None: images}, CLASSES, skip_rare=False)
    assert note.startswith(
        "The data has no splits: split 7:1:2 by class (20 train, 20 val, 20 test)"
    )
    assert note.endswith(
        "the 3 groups were kept apart, and are too few or too unequal for these shares."
    )


def test_the_sizes_of_grouped_splits_are_near_7_1_2() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(50, size=1000)]
    parts = _split(_images(rng.integers(3, size=1000).tolist(), groups))
    shares = [len(parts[split]) / 1000 for split in Split]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.03)


def test_folds_whose_names_differ_in_punctuation_alone_have_folders_of_their_own() -> None:
    names = ["a b", "a-b", "a-b-2", "A/B", "c"]
    made = cross.folder_names(names)
    assert made == ["fold-a-b", "fold-a-b-2", "fold-a-b-2-2", "fold-A-B-3", "fold-c"]
