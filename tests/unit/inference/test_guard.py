"""The guard: what is unlike training is set apart, and why."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.errors import DataError
from hemascope.data.rendered import render
from hemascope.inference.guard import Guard, are_colorless, fit_guard
from hemascope.store.model_folder import Head

Floats = NDArray[np.float32]


def features_of(images: NDArray[np.uint8]) -> Floats:
    """Stand-ins for a network's features: positive, and near for images that are alike."""
    coarse = images[:, ::7, ::7].reshape(len(images), -1).astype(np.float32)
    return np.concatenate([coarse, 255 - coarse], axis=1)


def share_apart(guard: Guard, images: NDArray[np.uint8]) -> float:
    return float(guard.apart(images, guard.distances(features_of(images))).mean())


@pytest.fixture(scope="module")
def cells() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    labels = np.arange(400) % 8
    return render(labels, seed=1), labels


@pytest.fixture(scope="module")
def guard(cells: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> Guard:
    images, labels = cells
    features = features_of(images)
    layer = Head(np.zeros((8, features.shape[1]), dtype=np.float32), np.zeros(8, dtype=np.float32))
    return fit_guard(
        features[:300], labels[:300], features[300:], labels[300:], images[300:], layer
    )


def relative(guard: Guard, features: NDArray[np.float32]) -> list[float]:
    return (guard.distances(features) / guard.threshold).tolist()


def test_few_of_val_and_all_noise_is_set_apart(guard: Guard) -> None:
    like = features_of(render(np.arange(200) % 8, seed=2))
    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28, 3), dtype=np.uint8)
    assert share_apart(guard, render(np.arange(200) % 8, seed=2)) < 0.1
    assert share_apart(guard, noise) == 1
    classes = (np.arange(200) % 8).tolist()
    assert guard.shift(relative(guard, features_of(noise)), [0] * 50).p_value < 1e-6
    assert guard.shift(relative(guard, like), classes).p_value > 1e-6


def test_images_whose_red_and_blue_are_swapped_are_set_apart(guard: Guard) -> None:
    cells = render(np.arange(80) % 8, seed=3)
    near = np.zeros(80, dtype=np.float32)
    swapped = np.ascontiguousarray(cells[..., ::-1])
    assert guard.apart(cells, near).mean() < 0.05
    assert guard.apart(swapped, near).mean() > 0.95
    told = [guard.is_swapped(image) for image in swapped]
    assert np.mean(told) > 0.9
    assert guard.warning(swapped[int(np.argmax(told))]) == "unusual color"
    assert not any(guard.is_swapped(image) for image in cells)
    older = {key: value for key, value in guard.arrays().items() if key != "hue"}
    assert Guard.of(older).apart(swapped, near).mean() > 0.95
    assert guard.adapted(swapped, features_of(swapped), np.full(80, -1)).hue < guard.hue


def test_a_folder_of_one_class_is_not_a_shift(
    cells: tuple[NDArray[np.uint8], NDArray[np.int64]], guard: Guard
) -> None:
    """Classes differ in how far their cells are from one another; here one by much."""
    images, labels = cells
    wide = replace(guard, val=guard.val.copy(), val_labels=labels[200:400] % 2)
    wide = replace(wide, val=guard.project(features_of(images[200:400])))
    odd = wide.val_labels == 1
    wide.val[odd] = wide.val[odd][:, ::-1]
    distances = wide.distances_of(wide.val) / wide.threshold
    assert np.median(distances[odd]) > 2 * np.median(distances[~odd])
    assert wide.shift(distances[odd].tolist(), [1] * 100).p_value > 0.9
    assert wide.shift(distances[odd].tolist(), [0] * 100).p_value < 1e-6


def test_an_adapted_guard_knows_its_laboratory_and_no_other(guard: Guard) -> None:
    """Cells of its laboratory that were not given to it are no shift; those of a third one are."""
    labels = np.arange(120) % 8
    cells = render(labels, seed=5)
    own, third = cells[..., [1, 2, 0]], 255 - cells
    of_own, of_third = features_of(own), features_of(third)

    def share_farther(guard: Guard, features: NDArray[np.float32], classes: list[int]) -> float:
        return guard.shift(relative(guard, features), classes).larger

    adapted = guard.adapted(own[:60], of_own[:60], np.full(60, -1))
    assert share_farther(guard, of_own[60:], labels[60:].tolist()) > 0.9
    assert share_farther(adapted, of_own[60:], labels[60:].tolist()) < 0.65
    assert share_farther(adapted, of_own[:60], labels[:60].tolist()) < 0.65  # whom it holds
    assert share_farther(adapted, of_third[60:], labels[60:].tolist()) > 0.9
    again = Guard.of(adapted.arrays())
    assert share_farther(again, of_own[60:], labels[60:].tolist()) < 0.65
    older = {name: value for name, value in guard.arrays().items() if name != "num_own"}
    assert Guard.of(older).num_own == 0


def test_it_is_the_same_after_it_was_stored(guard: Guard) -> None:
    features = features_of(render(np.arange(20) % 8, seed=2))
    stored = Guard.of(guard.arrays())
    np.testing.assert_allclose(stored.distances(features), guard.distances(features), atol=1e-3)
    with pytest.raises(DataError, match="guard"):
        Guard.of({"projection": guard.projection})


def test_what_is_odd_is_named(guard: Guard) -> None:
    flat = np.full((28, 28, 3), 200, dtype=np.uint8)
    assert guard.warning(flat) == "no cell"


def test_a_laboratory_is_no_longer_unlike(guard: Guard) -> None:
    green = render(np.arange(200) % 8, seed=4)[..., ::-1].copy()
    features = features_of(green)
    assert share_apart(guard, green[100:]) > 0.5
    adapted = guard.adapted(green[:100], features[:100], np.full(100, -1))
    assert share_apart(adapted, green[100:]) < 0.1
    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28, 3), dtype=np.uint8)
    assert share_apart(adapted, noise) == 1


@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize(
    ("dark", "light"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((0, 0, 0), (255, 230, 184)),  # sepia
        ((63, 0, 125), (252, 251, 253)),
        ((0, 30, 80), (230, 240, 255)),  # cyanotype
    ],
)
def test_gray_and_tinted_images_have_no_color(
    size: int, dark: tuple[int, int, int], light: tuple[int, int, int]
) -> None:
    cells = render(np.arange(24) % 8, seed=5, image_size=384)
    assert not are_colorless(np.stack([_small(Image.fromarray(one), size) for one in cells])).any()
    gray = cells.mean(axis=3, keepdims=True) / 255
    tinted = np.rint(np.array(dark) * (1 - gray) + np.array(light) * gray).astype(np.uint8)
    assert are_colorless(np.stack([_small(Image.fromarray(one), size) for one in tinted])).all()
    saved = [io.BytesIO() for _ in tinted]
    for one, file in zip(tinted, saved, strict=True):
        Image.fromarray(one).save(file, "JPEG", quality=90)
    assert are_colorless(np.stack([_small(Image.open(file), size) for file in saved])).all()


def test_images_of_one_color_are_not_gray() -> None:
    flat = np.full((2, 28, 28, 3), (200, 120, 160), dtype=np.uint8)
    assert not are_colorless(flat).any()
    assert are_colorless(np.full((2, 28, 28, 3), 128, dtype=np.uint8)).all()


def _small(image: Image.Image, size: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))
