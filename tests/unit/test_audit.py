"""What an audit finds in images made for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemascope.analyses.audit import find as audit
from hemascope.data.rendered import render


@pytest.fixture(scope="module")
def cells() -> NDArray[np.uint8]:
    return render(np.arange(40) % 8, seed=5)


def test_equal_groups_hold_every_repeated_image_once() -> None:
    hashes = np.array([7, 3, 7, 9, 3, 7], dtype=np.uint64)
    assert audit.equal_groups(hashes) == [[0, 2, 5], [1, 4]]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_turned_mirrored_and_shifted_copy_is_near(
    cells: NDArray[np.uint8], turns: int, mirrored: bool
) -> None:
    turned = np.rot90(cells[:, ::-1] if mirrored else cells, turns, axes=(1, 2))
    moved = np.roll(turned, (1, -2), axis=(1, 2))
    assert audit.aligned_distance(cells, moved).max() == 0


def test_smaller_images_are_shifted_by_less() -> None:
    """At 14 pixels, one pixel is what two are at 28."""
    small = render(np.arange(40) % 8, seed=5, image_size=14)
    assert audit.aligned_distance(small, np.roll(small, 1, axis=1)).max() == 0
    assert audit.aligned_distance(small, np.roll(small, 2, axis=1)).min() > 0


def test_different_cells_are_not_near(cells: NDArray[np.uint8]) -> None:
    others = render(np.arange(40) % 8, seed=6)
    pairs = np.stack([np.arange(40), np.arange(40) + 40], axis=1)
    assert len(audit.near_pairs(np.concatenate([cells, others]), pairs)) == 0


def test_a_noisy_copy_is_found_by_hash_and_by_embedding(cells: NDArray[np.uint8]) -> None:
    noise = np.random.default_rng(0).normal(0, 3, cells.shape)
    copies = np.clip(cells + noise, 0, 255).astype(np.uint8)
    images = np.concatenate([cells, copies])
    by_hash = audit.hash_pairs(audit.perceptual_hashes(images))
    by_embedding = audit.neighbor_pairs(images.reshape(80, -1).astype(np.float32))
    for candidates in (by_hash, by_embedding):
        found = {tuple(pair) for pair in audit.near_pairs(images, candidates).tolist()}
        assert len(found & {(i, i + 40) for i in range(40)}) >= 36


def test_pairs_that_hang_together_make_one_group() -> None:
    assert audit.joined_groups(6, np.array([[0, 3], [3, 5], [1, 2]])) == [[0, 3, 5], [1, 2]]


def test_a_wrong_label_is_doubtful_and_a_rare_class_is_left_alone() -> None:
    labels = np.repeat([0, 1, 2], [20, 20, 1])
    probs = np.full((41, 3), 0.05)
    probs[np.arange(41), labels] = 0.9
    probs[3] = [0.02, 0.96, 0.02]  # sure of another class than its label
    probs[40] = [0.9, 0.05, 0.05]
    assert audit.label_issues(labels, probs, min_images=6).tolist() == [3]


def test_flaws() -> None:
    labels = np.arange(320) % 8
    images = render(labels, seed=5)
    images[4] = 200
    smooth = np.repeat(np.linspace(90, 200, 28), 28).reshape(28, 28, 1)
    images[9] = smooth.astype(np.uint8)
    sizes = np.full((320, 2), 360)
    sizes[11] = (366, 369)
    flaws = audit.find_flaws(images, labels, sizes)
    assert flaws.blank == [4]
    assert 9 in flaws.blurred
    assert len(flaws.blurred) < 10
    assert flaws.off_size == [11]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 4))
def test_folds_spread_every_class_evenly(labels: list[int], num_folds: int) -> None:
    array = np.array(labels)
    fold = audit.folds_of(array, num_folds)
    for label in set(labels):
        counts = np.bincount(fold[array == label], minlength=num_folds)
        assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 20))
def test_folds_keep_together_what_belongs_together(labels: list[int], num_groups: int) -> None:
    together = np.arange(len(labels)) % (num_groups + 1)
    fold = audit.folds_of(np.array(labels), 3, together=together)
    assert all(len(set(fold[together == group])) == 1 for group in set(together.tolist()))


def test_folds_spread_classes_that_come_in_groups() -> None:
    """Nine patients with cells of one class each: every fold has a patient of every class."""
    together = np.repeat(np.arange(9), 10)
    fold = audit.folds_of(together % 3, 3, together=together)
    assert {(f, c) for f, c in zip(fold.tolist(), (together % 3).tolist(), strict=True)} == {
        (f, c) for f in range(3) for c in range(3)
    }


def test_neighbors_are_the_nearest_by_cosine() -> None:
    embeddings = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    centered = embeddings - embeddings.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    cosine = centered @ centered.T - 2 * np.eye(40)
    nearest = {(min(i, j), max(i, j)) for i in range(40) for j in np.argsort(-cosine[i])[:3]}
    found = audit.neighbor_pairs(embeddings, k=3)
    assert {(int(i), int(j)) for i, j in found} == nearest
    assert audit.neighbor_pairs(embeddings[:1]).shape == (0, 2)


def test_across_keeps_what_is_torn() -> None:
    kinds = ["train", "train", "test", "val"]
    assert audit.across([[0, 1], [1, 2], [2, 3]], kinds) == [[1, 2], [2, 3]]


def test_bands_find_every_pair_of_hashes() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, size=400, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, size=(200, 6)).astype(np.uint64)
    hashes[:200] = hashes[200:] ^ np.bitwise_xor.reduce(flips, axis=1)
    every = np.argwhere(np.triu(np.bitwise_count(hashes[:, None] ^ hashes) <= 6, k=1))
    assert len(every) >= 200
    assert audit.hash_pairs(hashes).tolist() == every.tolist()


def test_the_index_finds_the_neighbors_that_all_pairs_give(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch")
    embeddings = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    every = set(map(tuple, audit.neighbor_pairs(embeddings).tolist()))
    monkeypatch.setattr(audit, "MOST_EXACT", 0)
    found = set(map(tuple, audit.neighbor_pairs(embeddings).tolist()))
    assert len(every & found) >= 0.99 * len(every)
