"""Corrupted images: worse with every severity, the same with the same seed, never broken."""

import numpy as np
import pytest

from hemascope.core.images import channel_statistics
from hemascope.core.jpeg import jpeg_round_trip
from hemascope.data.colors import fit_colors
from hemascope.data.corruptions import CORRUPTIONS, corrupted
from hemascope.data.rendered import render
from hemascope.settings.data import Colors

IMAGES = render(np.arange(48) % 8, seed=4)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_changes_more(name: str) -> None:
    found = [images for n, _, images in corrupted(IMAGES) if n == name]
    assert len(found) == 5
    assert all(images.shape == IMAGES.shape and images.dtype == np.uint8 for images in found)
    change = [np.abs(images.astype(float) - IMAGES).mean() for images in found]
    assert change == sorted(change)
    assert change[0] > 0


@pytest.mark.parametrize("level", CORRUPTIONS["bubbles"].levels)
def test_bubbles_are_as_large_for_the_cell_in_larger_images(level: float) -> None:
    change: list[float] = []
    for times in (1, 4):
        images = IMAGES.repeat(times, axis=1).repeat(times, axis=2)
        corrupt = CORRUPTIONS["bubbles"].apply(images, level, np.random.default_rng(0))
        change.append(np.abs(corrupt.astype(float) - images).mean())
    assert change[1] == pytest.approx(change[0], rel=0.05)


def test_the_same_seed_gives_the_same_images() -> None:
    for (_, _, one), (_, _, other) in zip(corrupted(IMAGES), corrupted(IMAGES), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_jpeg_of_high_quality_changes_little() -> None:
    change = np.abs(jpeg_round_trip(IMAGES, 95).astype(float) - IMAGES).mean()
    assert 0 < change < 3


@pytest.mark.parametrize("colors", ["image", "group"])
def test_fitted_colors_have_the_statistics_wanted(colors: Colors) -> None:
    mean, std = (0.6, 0.5, 0.55), (0.1, 0.12, 0.08)
    fitted = fit_colors(IMAGES, colors, mean=mean, std=std)
    found = channel_statistics(fitted)
    np.testing.assert_allclose(found.mean, mean, atol=0.01)
    np.testing.assert_allclose(found.std, std, atol=0.01)


def test_colors_left_alone_are_left_alone() -> None:
    assert fit_colors(IMAGES, "none", mean=(0, 0, 0), std=(1, 1, 1)) is IMAGES
