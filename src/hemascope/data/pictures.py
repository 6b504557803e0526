"""Reads image files of any size, and makes images of a network's size of them."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")  # and none that starts a program
_MAX_PIXELS = 25_000_000  # a cell photograph is 0.13 megapixels; this stops image bombs
_SCAN, _MAX_SCANS = b"\xff\xda", 100  # a progressive JPEG has about ten
_GRAY, _PALETTE = ("1", "L", "LA", "La"), ("P", "PA")
_COLORS = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_EIGHT_BITS = frozenset({*_GRAY, *_PALETTE, *_COLORS})


class BadPictureError(ValueError):
    """Why a file is no image that can be used; without its name, which the caller knows."""


def read_rgb(file: Path | BinaryIO) -> tuple[Image.Image, bool]:
    """An image file as RGB pixels, and whether they had to be converted.

    Raises:
        BadPictureError: If it is no image, damaged, too large, or has more than 8 bits a channel.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _check_scans(image)
            return to_rgb(image)
    except Exception as error:  # whatever a decoder may raise on damaged bytes
        raise BadPictureError(_sentence(error)) from error


def _check_scans(image: Image.Image) -> None:
    """Refuses a JPEG file that would have every pixel worked on again and again, for hours."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if file is None or "progressive" not in image.info:
        return
    file.seek(0)
    if (num_scans := file.read().count(_SCAN)) > _MAX_SCANS:  # where it goes on, load() knows
        raise BadPictureError(f"{num_scans:,} scans of a progressive JPEG are too many")


def to_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """An image as RGB pixels, and whether they had to be converted.

    Raises:
        BadPictureError: If it is too large, or has more than 8 bits a channel.
    """
    if image.width * image.height > _MAX_PIXELS:
        raise BadPictureError(f"{image.width}x{image.height} pixels are too many")
    if image.mode not in _EIGHT_BITS:
        raise BadPictureError(f"mode {image.mode} is not 8 bits a channel, as needed")
    if image.mode != "RGB":
        return image.convert("RGB"), True
    image.load()
    return image, False


def middle(image: Image.Image, size: int, side: int) -> NDArray[np.uint8]:
    """The central square of `side` pixels of an RGB image, resized, shape (size, size, 3)."""
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    if image.size == (side, side) == (size, size):
        return np.asarray(image)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def _sentence(error: Exception) -> str:
    if isinstance(error, BadPictureError):
        return str(error)
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


import io
from dataclasses import dataclass

NUM_PREFIX_BYTES = 32


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    notes: tuple[str, ...] = ()


def read_picture(file) -> Picture:
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    image, conv = read_rgb(file)
    return Picture(image, ("converted to RGB",) if conv else ())


def to_picture(image) -> Picture:
    image, conv = to_rgb(image)
    return Picture(image, ("converted to RGB",) if conv else ())


def is_picture(prefix: bytes) -> bool:
    return prefix[:3] == b"\xff\xd8\xff" or prefix[:4] == b"\x89PNG"
