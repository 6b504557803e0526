"""What goes wrong with photographs of cells, in five severities, at the size the network sees.

Lengths are in 28ths of the image's side: pixels, where it has 28. BloodMNIST shrinks the central
200 pixels of a photograph to 28, so that one of them is 7.1 pixels of the photograph. Only noise
and JPEG act on single pixels and on blocks of eight, whatever the size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.jpeg import jpeg_round_trip

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]

NUM_SEVERITIES = 5

# Optical density of hematoxylin, eosin and DAB in R, G and B.
# Source: Ruifrok & Johnston, Quantification of histochemical staining, 2001.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_BUBBLE_RADII = (2.0, 4.5)


@dataclass(frozen=True)
class Corruption:
    """One way in which photographs get worse.

    Attributes:
        unit: What the numbers in `levels` are.
        levels: From the mildest to the worst.
        apply: Images (N, H, H, 3), level and random numbers to images.
    """

    unit: str
    levels: tuple[float, float, float, float, float]
    apply: Callable[[Images, float, np.random.Generator], Images]


def corrupted(images: Images) -> Iterator[tuple[str, int, Images]]:
    """Every corruption of RGB images (N, H, H, 3): its name, severity from 1 to 5, and the images.

    The same images come out each time.
    """
    for number, (name, corruption) in enumerate(CORRUPTIONS.items()):
        for severity, level in enumerate(corruption.levels, start=1):
            rng = np.random.default_rng((0, number, severity))
            yield name, severity, corruption.apply(images, level, rng)


def _to_images(values: NDArray[np.floating]) -> Images:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _either_way(count: int, level: float, rng: np.random.Generator) -> Floats:
    """`level` for half of the images and 1 / `level` for the others, shape (N, 1, 1, 1)."""
    return np.where(rng.random((count, 1, 1, 1)) < 0.5, level, 1 / level).astype(np.float32)


def _noise(images: Images, level: float, rng: np.random.Generator) -> Images:
    return _to_images(images + rng.normal(0, level, images.shape).astype(np.float32))


def _blur(images: Images, level: float, _rng: np.random.Generator) -> Images:
    from scipy.ndimage import gaussian_filter

    sigma = level * images.shape[1] / 28
    return _to_images(
        gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="nearest")
    )


def _brightness(images: Images, level: float, rng: np.random.Generator) -> Images:
    return _to_images(images * _either_way(len(images), level, rng))


def _contrast(images: Images, level: float, rng: np.random.Generator) -> Images:
    middle = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    return _to_images(middle + (images - middle) * _either_way(len(images), level, rng))


def _saturation(images: Images, level: float, rng: np.random.Generator) -> Images:
    gray = images.mean(axis=3, keepdims=True, dtype=np.float32)
    return _to_images(gray + (images - gray) * _either_way(len(images), level, rng))


def _stain(images: Images, level: float, rng: np.random.Generator) -> Images:
    density = -np.log((images.astype(np.float32) + 1) / 256)
    amounts = density @ np.linalg.inv(_STAINS).astype(np.float32)
    factors = np.exp(rng.uniform(-level, level, (len(images), 1, 1, 3))).astype(np.float32)
    return _to_images(256 * np.exp(-(amounts * factors) @ _STAINS.astype(np.float32)) - 1)


def _pixelate(images: Images, level: float, _rng: np.random.Generator) -> Images:
    size = images.shape[1]
    fewer = max(round(size * level), 1)

    def pixelated(image: Images) -> Images:
        small = Image.fromarray(image).resize((fewer, fewer), Image.Resampling.BOX)
        return np.asarray(small.resize((size, size), Image.Resampling.NEAREST))

    return np.stack([pixelated(image) for image in images])


def _jpeg(images: Images, level: float, _rng: np.random.Generator) -> Images:
    return jpeg_round_trip(images, int(level))


def _bubbles(images: Images, level: float, rng: np.random.Generator) -> Images:
    """Bright discs with a dark rim, as of air or of drops on the glass."""
    count, size = images.shape[:2]
    values = images.astype(np.float32)
    place = np.arange(size)
    for _ in range(int(level)):
        row, column = rng.uniform(0, size, (2, count, 1, 1))
        radius = rng.uniform(*_BUBBLE_RADII, (count, 1, 1)) * size / 28
        distance = np.hypot(place[:, None] - row, place - column) / radius
        inside = np.clip((1 - distance) * radius, 0, 1)[..., None]
        rim = np.exp(-(((distance - 1) * radius * 28 / size) ** 2))[..., None]
        values = values + inside * 0.7 * (245 - values)
        values = values * (1 - 0.55 * rim)
    return _to_images(values)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption("standard deviation, gray levels", (5, 10, 15, 22, 30), _noise),
    "blur": Corruption("standard deviation, 28ths", (0.4, 0.6, 0.8, 1.0, 1.3), _blur),
    "brightness": Corruption("factor, or one over it", (1.08, 1.16, 1.25, 1.4, 1.6), _brightness),
    "contrast": Corruption("factor, or one over it", (1.15, 1.3, 1.5, 1.75, 2.1), _contrast),
    "saturation": Corruption("factor, or one over it", (1.2, 1.5, 1.9, 2.5, 3.5), _saturation),
    "stain": Corruption("largest change of log density", (0.1, 0.2, 0.3, 0.45, 0.6), _stain),
    "pixelate": Corruption("share of the pixels a side", (0.8, 0.65, 0.55, 0.45, 0.36), _pixelate),
    "jpeg": Corruption("quality", (65, 50, 35, 22, 12), _jpeg),
    "bubbles": Corruption("bubbles", (1, 2, 3, 4, 6), _bubbles),
}
