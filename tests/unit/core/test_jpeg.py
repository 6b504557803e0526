"""The JPEG round trip without a file, against Pillow's where both mean the same."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.jpeg import jpeg_round_trip
from hemascope.data.rendered import render


def test_gray_images_come_back_as_from_a_file() -> None:
    """Where there is no color, nothing depends on how color planes are made smaller."""
    images = np.repeat(render(np.arange(8), seed=0)[..., :1], 3, axis=3)
    for quality in (30, 75, 95):
        ours = jpeg_round_trip(images, quality).astype(int)
        theirs = np.stack([_through_a_file(image, quality) for image in images])
        difference = np.abs(ours - theirs)
        assert difference.mean() < 0.2  # libjpeg rounds inside its transforms,
        assert (difference > 1).mean() < 0.05  # and sometimes a stored number goes the other way
        assert np.abs(images.astype(int) - theirs).mean() > 2 * difference.mean()


def _through_a_file(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        return np.asarray(read.convert("RGB"))


def test_one_by_one_or_together_and_any_size() -> None:
    images = render(np.arange(5), seed=1)
    together = jpeg_round_trip(images, 75)
    for image, expected in zip(images, together, strict=True):
        assert np.array_equal(jpeg_round_trip(image[None], 75)[0], expected)
    assert (together != images).any()
    plain = np.full((1, 11, 30, 3), 93, np.uint8)
    assert np.array_equal(jpeg_round_trip(plain, 75), plain)
    assert jpeg_round_trip(images[:0], 75).shape == (0, 28, 28, 3)
