"""What a JPEG file does to the pixels that are put into it, without making one.

BloodMNIST's images went through libjpeg 9, which makes the color planes smaller and larger again
in the cosine domain; libjpeg-turbo, which Pillow brings along, does it in pixels, and at 28 pixels
that is another image. What a JPEG file loses, it loses by rounding: a few matrix products.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
_Plane = NDArray[np.float32]

# Source: ITU-T T.81, annex K: the tables that libjpeg scales by the quality.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# Source: JFIF 1.02: Y, Cb and Cr of R, G and B, and back.
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]],
    dtype=np.float32,
)
_TO_RGB = np.array(
    [[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]], dtype=np.float32
)
_MIDDLE, _HALF = np.float32(128), np.float32(0.5)
_BLOCK, _DOUBLE = 8, 16  # pixels of a block, and of one whose color is stored at half the size


def jpeg_round_trip(images: Images, quality: int) -> Images:
    """Images (N, H, W, 3) as they come back from JPEG files with colors at half the size (4:2:0).

    Args:
        images: RGB pixels.
        quality: From 1 to 100, in libjpeg's scale.

    Notes:
        libjpeg rounds inside its transforms, so that values differ from its own by 1 now and then.

    Source: ITU-T T.81; the scaling of color planes, libjpeg 7 and later (`jpeg_fdct_16x16`).
    """
    _, height, width, _ = images.shape
    margin = [(0, -side % _DOUBLE) for side in (height, width)]
    padded = np.pad(images, [(0, 0), *margin, (0, 0)], mode="edge").astype(np.float32)
    ycc = np.rint(padded @ _TO_YCC.T)
    ycc[..., 0] = _coded(ycc[..., 0] - _MIDDLE, _BLOCK, _steps(_LUMINANCE, quality)) + _MIDDLE
    for plane in (1, 2):
        ycc[..., plane] = _coded(ycc[..., plane], _DOUBLE, _steps(_CHROMINANCE, quality))
    rgb = np.clip(np.rint(ycc @ _TO_RGB.T), 0, 255)
    return rgb[:, :height, :width].astype(np.uint8)


def _coded(plane: _Plane, size: int, steps: _Plane) -> _Plane:
    """A plane (N, H, W) around 0 after its blocks of `size` pixels were stored as 8x8 numbers."""
    count, height, width = plane.shape
    shape = (count, height // size, size, width // size, size)
    blocks = plane.reshape(shape).swapaxes(2, 3)
    to = _cosines(size)[:_BLOCK]
    gain = np.float32(_BLOCK / size)  # a larger block has larger sums
    exact = to @ blocks @ to.T * (gain / steps)
    stored = np.copysign(np.floor(np.abs(exact) + _HALF), exact) * steps  # halves go outward
    restored = np.rint(to.T @ (stored / gain) @ to)
    limited = np.clip(restored, -_MIDDLE, _MIDDLE - 1)
    return limited.swapaxes(2, 3).reshape(plane.shape)


@cache
def _cosines(size: int) -> _Plane:
    """The orthonormal cosine transform (DCT-II) of `size` values, a row for each frequency."""
    frequency, place = np.ogrid[:size, :size]
    matrix = np.cos((2 * place + 1) * frequency * np.pi / (2 * size)) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _steps(table: tuple[int, ...], quality: int) -> _Plane:
    """By how much the stored numbers are rounded, shape (8, 8)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((np.array(table) * scale + 50) // 100, 1, 255)
    return steps.reshape(_BLOCK, _BLOCK).astype(np.float32)
