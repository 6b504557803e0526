"""A last layer moved to a laboratory without labels."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from hemascope.core.packaged import FOR_PHOTOGRAPHS
from hemascope.data.rendered import render
from hemascope.inference.last_layer import Kept, folds_of, moved_head
from hemascope.inference.predictor import Predictor
from hemascope.store.model_folder import Head

Floats = NDArray[np.float32]

_CLASSES, _FEATURES = 4, 12
_SHARES = (0.55, 0.3, 0.1, 0.05)


def draw(seed: int, shift: float, shares: tuple[float, ...] | None = None) -> Kept:
    """Cells around the classes' means, each class moved by `shift` in a direction of its own."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    means = 1.5 * fixed.normal(size=(_CLASSES, _FEATURES))
    moves = fixed.normal(size=(_CLASSES, _FEATURES))
    labels = rng.choice(_CLASSES, 1200, p=shares)
    found = means[labels] + shift * moves[labels] + rng.normal(size=(1200, _FEATURES))
    return Kept(found.astype(np.float32), labels)


def trained() -> tuple[Head, Kept]:
    known = draw(1, 0.0)
    means = np.array([known.features[known.labels == c].mean(axis=0) for c in range(_CLASSES)])
    return Head(np.float32(0.3) * means, np.float32(-0.15) * (means**2).sum(axis=1)), known


def accuracy(head: Head, cells: Kept) -> float:
    return float((head.logits(cells.features).argmax(axis=1) == cells.labels).mean())


@pytest.mark.parametrize("shares", [None, _SHARES])
def test_classes_are_followed_to_where_a_laboratory_has_them(
    shares: tuple[float, ...] | None,
) -> None:
    head, known = trained()
    cells = draw(2, 2.0, shares)
    moved = moved_head(head, known, cells.features, 0.7)
    assert accuracy(head, cells) < 0.8
    assert accuracy(moved, cells) > 0.95
    assert accuracy(moved, draw(3, 2.0, shares)) > 0.95
    before, after = (
        softmax(one.logits(cells.features) / 0.7, axis=1).max(axis=1).mean()
        for one in (head, moved)
    )
    assert after == pytest.approx(before, abs=1e-3)


def test_cells_as_in_training_and_cells_of_one_class_are_answered_as_before() -> None:
    head, known = trained()
    like = draw(2, 0.0)
    assert accuracy(moved_head(head, known, like.features, 0.7), like) > 0.99
    alone = Kept(like.features[like.labels == 2], like.labels[like.labels == 2])
    assert accuracy(moved_head(head, known, alone.features, 0.7), alone) > 0.99


def test_only_enough_cells_of_an_unlike_laboratory_move_a_layer() -> None:
    """Rendered cells are unlike real ones; hardly any noise shows a cell."""
    cells = render(np.arange(60) % 8, seed=1, image_size=64)
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
    every = np.concatenate([cells, noise])
    model = Predictor(FOR_PHOTOGRAPHS)
    layer = model.move(len(every), every.__getitem__)
    assert layer is not None
    assert 50 <= layer.num_images <= 65
    for few in (noise, cells[:40], np.concatenate([cells[:40], noise])):
        assert model.move(len(few), few.__getitem__) is None
    assert Predictor(FOR_PHOTOGRAPHS, as_trained=True).move(60, cells.__getitem__) is None


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides_of_a_fold_and_no_class_unknown_to_it(seed: int) -> None:
    """Ten patients; some classes are of two of them, one is of a single one."""
    rng = np.random.default_rng(seed)
    groups = [f"patient {i}" for i in rng.integers(0, 10, 120)]
    labels = rng.integers(0, 3, 120)
    of_two = np.isin(groups, ["patient 0", "patient 1"])
    labels[of_two & (rng.random(120) < 0.6)] = 3
    labels[np.flatnonzero(np.array(groups) == "patient 2")[:3]] = 4
    folds = folds_of(labels, groups)
    assert len(folds) == 5
    of_group = np.array(groups)
    for fit, judge in folds:
        assert not set(of_group[fit]) & set(of_group[judge])
        assert set(labels[judge]) <= set(labels[fit])
    judged = np.concatenate([judge for _, judge in folds])
    assert len(judged) == len(set(judged.tolist()))
    assert set(labels[judged]) == {0, 1, 2, 3}
    assert len(judged) == (labels != 4).sum()  # a way to divide them was found that loses none


def test_one_rare_class_does_not_make_all_folds_few() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2)
    assert len(folds_of(labels, None)) == 5
    apart = folds_of(np.array([0, 0, 1, 1]), ["a", "b", "c", "d"])
    assert sum(len(judge) for _, judge in apart) == 4  # {a, c} and {b, d}, not {a, b} and {c, d}
