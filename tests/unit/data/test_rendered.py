"""Rendered cells: reproducible, the same at every size, colored and shaped like blood cells."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemascope.data.rendered import CHUNK, render

BASO, EOS, ERYTHRO, IG, LYMPH, MONO, NEUTRO, PLATELET = range(8)
PER_CLASS = 60
# Images per class in BloodMNIST's training split, and the whole split's RGB mean and deviation.
BLOODMNIST_MIX = np.array([852, 2181, 1085, 2026, 849, 993, 2330, 1643])
BLOODMNIST_MEAN = np.array([0.794, 0.659, 0.696])
BLOODMNIST_STD = np.array([0.216, 0.242, 0.118])
NUCLEUS_BELOW, CELL_BELOW = 115, 185  # mean of RGB: nuclei are darker, cytoplasm lies between


@pytest.fixture(scope="module")
def by_class() -> NDArray[np.float64]:
    """Give (8, PER_CLASS, 28, 28, 3) images to measure."""
    images = render(np.repeat(np.arange(8), PER_CLASS), seed=5)
    return images.reshape(8, PER_CLASS, 28, 28, 3).astype(np.float64)


def nuclei(images: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark dark pixels near the center, where the cell that the label names lies."""
    offset = np.arange(28) - 13.5
    near = np.hypot(offset, offset[:, None]) < 11
    return (images.mean(-1) < NUCLEUS_BELOW) & near


def spread(mask: NDArray[np.bool_]) -> float:
    """Second moment of a mask over that of a disc of the same area: 1 for a disc."""
    rows, columns = np.nonzero(mask)
    return 2 * np.pi * float(rows.var() + columns.var()) / rows.size


def test_same_seed_gives_the_same_images_and_another_seed_does_not() -> None:
    labels = np.arange(8)
    first = render(labels, seed=1)
    np.testing.assert_array_equal(first, render(labels, seed=1))
    different = np.abs(first.astype(int) - render(labels, seed=2)).mean(axis=(1, 2, 3))
    assert different.min() > 8


@pytest.mark.parametrize("size", [8, 28, 61, 128])
def test_images_are_rgb_bytes_of_the_asked_size(size: int) -> None:
    images = render(np.array([0, 7]), seed=0, image_size=size)
    assert images.shape == (2, size, size, 3)
    assert images.dtype == np.uint8
    assert images.std(axis=(1, 2)).min() > 5


def test_images_have_been_through_jpeg_at_quality_75() -> None:
    # A second pass at the same quality changes little (0.9 on average); after no pass, or one at
    # quality 95, it changes over 5.
    for image in render(np.arange(8), seed=0):
        memory = io.BytesIO()
        Image.fromarray(image).save(memory, format="JPEG", quality=75)
        again = np.asarray(Image.open(memory)).astype(float)
        assert np.abs(again - image).mean() < 3


def test_no_labels_give_no_images() -> None:
    assert render(np.zeros(0, np.int64), seed=0).shape == (0, 28, 28, 3)


def test_another_size_shows_the_same_cell() -> None:
    labels = np.arange(16) % 8
    small = render(labels, seed=3).astype(float)
    large = render(labels, seed=3, image_size=56).reshape(16, 28, 2, 28, 2, 3).mean(axis=(2, 4))
    apart = np.abs(small[:, None] - large[None]).mean(axis=(2, 3, 4))
    assert np.diag(apart).max() < 9
    assert apart[~np.eye(16, dtype=bool)].min() > 14


def test_a_prefix_of_the_labels_gives_a_prefix_of_the_images() -> None:
    labels = np.random.default_rng(0).integers(0, 8, 600)
    many = render(labels, seed=4)
    for count in (1, 10, CHUNK, CHUNK + 1):
        np.testing.assert_array_equal(render(labels[:count], seed=4), many[:count])


def test_a_label_changes_its_own_image_only() -> None:
    labels = np.full(12, NEUTRO)
    changed = labels.copy()
    changed[5] = PLATELET
    same = (render(labels, seed=0) == render(changed, seed=0)).all(axis=(1, 2, 3))
    assert same.sum() == 11
    assert not same[5]


def test_cells_of_one_class_differ_from_one_another(by_class: NDArray[np.float64]) -> None:
    assert by_class.std(axis=1).mean(axis=(1, 2, 3)).min() > 15


def test_channel_statistics_are_near_bloodmnist() -> None:
    labels = np.repeat(np.arange(8), BLOODMNIST_MIX // 16)
    pixels = render(labels, seed=6).reshape(-1, 3) / 255
    np.testing.assert_allclose(pixels.mean(0), BLOODMNIST_MEAN, atol=0.03)
    np.testing.assert_allclose(pixels.std(0), BLOODMNIST_STD, atol=0.04)


def test_platelets_have_the_least_dark_stain(by_class: NDArray[np.float64]) -> None:
    dark = nuclei(by_class).mean(axis=(1, 2, 3))
    assert dark.argmin() == PLATELET
    assert dark[PLATELET] < 0.5 * np.delete(dark, PLATELET).min()


def test_nuclei_grow_from_erythroblast_to_lymphocyte_to_precursor(
    by_class: NDArray[np.float64],
) -> None:
    area = nuclei(by_class).sum(axis=(2, 3)).mean(1)
    assert area[ERYTHRO] < 0.8 * area[LYMPH]
    assert area[LYMPH] < 0.8 * area[IG]


def test_erythroblast_nuclei_are_the_densest(by_class: NDArray[np.float64]) -> None:
    brightness = [by_class[c][nuclei(by_class[c])].mean() for c in range(8)]
    assert int(np.argmin(brightness)) == ERYTHRO


def test_eosinophils_have_the_most_orange_cytoplasm(by_class: NDArray[np.float64]) -> None:
    center = by_class[:PLATELET, :, 7:21, 7:21]  # around a platelet there would be red cells
    gray = center.mean(-1)
    cytoplasm = (gray >= NUCLEUS_BELOW) & (gray < CELL_BELOW)
    red_over_blue = center[..., 0] - center[..., 2]
    orange = np.array([red_over_blue[c][cytoplasm[c]].mean() for c in range(PLATELET)])
    assert orange.argmax() == EOS
    assert orange[EOS] > orange[NEUTRO] + 10


def test_granulocyte_nuclei_are_lobed_and_lymphocyte_nuclei_round(
    by_class: NDArray[np.float64],
) -> None:
    shape = {c: np.median([spread(m) for m in nuclei(by_class[c])]) for c in (EOS, LYMPH, NEUTRO)}
    assert shape[LYMPH] < 1.15
    assert min(shape[EOS], shape[NEUTRO]) > shape[LYMPH] + 0.1


def test_basophils_are_dark_all_over(by_class: NDArray[np.float64]) -> None:
    dark = nuclei(by_class).sum(axis=(2, 3)).mean(1)
    assert dark.argmax() == BASO
    assert dark[BASO] > 1.1 * dark[IG]


def test_monocytes_are_larger_than_lymphocytes(by_class: NDArray[np.float64]) -> None:
    stained = (by_class[..., 2] - by_class[..., 1] > 25).sum(axis=(2, 3)).mean(1)
    assert stained[MONO] > 1.4 * stained[LYMPH]


@pytest.mark.parametrize(
    ("labels", "seed", "size", "message"),
    [
        (np.array([[0, 1]]), 0, 28, "one-dimensional"),
        (np.array([0.5]), 0, 28, "integer"),
        (np.array([0, 8]), 0, 28, "0-7"),
        (np.array([-1, 3]), 0, 28, "0-7"),
        (np.array([1]), 0, 7, "image_size"),
        (np.array([1]), -1, 28, "seed"),
    ],
)
def test_bad_input_is_refused_by_name(
    labels: NDArray[np.int64], seed: int, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        render(labels, seed=seed, image_size=size)
