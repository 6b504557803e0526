"""Colors of images from elsewhere, fitted to those a network was trained on."""

import numpy as np
from numpy.typing import NDArray

from hemascope.settings.data import Colors

Images = NDArray[np.uint8]


def fit_colors(
    images: Images,
    colors: Colors,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Images:
    """Gives images (N, H, H, 3) the mean and standard deviation of each channel that are wanted.

    Args:
        images: The images.
        colors: "image" fits each image by itself, "group" all of them by one and the same change,
            which needs no label but all of the images; "none" changes nothing.
        mean: The means wanted, of pixels in [0, 1].
        std: The standard deviations wanted.

    Source: Reinhard et al., Color Transfer between Images, 2001, here in RGB.
    """
    if colors == "none":
        return images
    values = images.astype(np.float32) / 255
    axes = (1, 2) if colors == "image" else (0, 1, 2)
    centered = values - values.mean(axis=axes, keepdims=True)
    scale = np.array(std) / np.maximum(values.std(axis=axes, keepdims=True), 1e-3)
    return np.clip(np.rint(255 * (centered * scale + mean)), 0, 255).astype(np.uint8)
