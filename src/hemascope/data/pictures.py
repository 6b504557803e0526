"""The one reader of pictures: files of any ordinary kind as a person sees them in a viewer."""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff"),
        *(".webp", ".gif", ".avif", ".jp2", ".ppm", ".pgm"),
    }
)
NUM_PREFIX_BYTES = 32
# And none that starts a program.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000", "PPM")
_MAX_PIXELS = 25_000_000  # a cell photograph is 0.13 megapixels; this stops image bombs
_MAX_BYTES = 200_000_000
_SCAN, _MAX_SCANS = b"\xff\xda", 100  # a progressive JPEG has about ten
_ORIENTATION, _UPRIGHT = 0x0112, 1
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_BITS, _PLANAR, _APART = 258, 284, 2
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # their sizes in bytes
_DEPTHS = (8, 10, 12, 14, 16)  # bits of the cameras whose values are stored in 16
_SAME_COLOR = 2  # gray levels by which a profile that is sRGB in all but name may differ
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B"}  # of a 16-bit number on this (little-endian) machine
_ALPHA = ("RGBA", "LA", "PA")


class BadPictureError(ValueError):
    """Why a file is not a picture that can be used; without its name, which the caller knows."""


@dataclass(frozen=True)
class Picture:
    """A picture as a person sees it in an ordinary viewer.

    Attributes:
        image: In RGB, loaded.
        notes: What was converted, in a few words each.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def read_picture(file: Path | BinaryIO | bytes) -> Picture:
    """Reads a picture from a file, a binary stream or bytes.

    Raises:
        BadPictureError: If it is not a picture, damaged, too large, or cannot be shown rightly.
        OSError: If the file cannot be read.
    """
    if isinstance(file, Path):
        if (num_bytes := file.stat().st_size) > _MAX_BYTES:
            raise BadPictureError(f"file too large ({num_bytes / 1e6:.0f} MB; limit 200 MB)")
        content = file.read_bytes()
    else:
        content = file if isinstance(file, bytes) else file.read(_MAX_BYTES)
    if not content:
        raise BadPictureError("file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_scans(image, content)
            return _shown(image, content)
    except Exception as error:  # whatever a decoder may raise on damaged bytes
        raise BadPictureError(_sentence(error)) from error


def to_picture(image: Image.Image) -> Picture:
    """A PIL image of any mode, opened lazily or loaded, as a picture.

    Raises:
        BadPictureError: As `read_picture`.
    """
    content = None
    try:
        if isinstance(image, ImageFile.ImageFile) and image.tile and image.fp:
            image.fp.seek(0)
            content = image.fp.read()
        return _shown(image, content)
    except Exception as error:  # as above
        raise BadPictureError(_sentence(error)) from error


def is_picture(prefix: bytes) -> bool:
    """Whether a file whose first 32 bytes these are is of a format that is read here."""
    if prefix.startswith(b"BM"):  # as some texts do
        return int.from_bytes(prefix[14:18], "little") in _BMP_HEADERS
    if prefix.startswith(b"P"):
        return False
    Image.init()
    accepts = (Image.OPEN[name][1] for name in _FORMATS if name in Image.OPEN)
    return bool(prefix) and any(accept and accept(prefix) is True for accept in accepts)


def _shown(image: Image.Image, content: bytes | None) -> Picture:
    """The picture that a viewer shows, from an image that is not yet decoded."""
    if image.width * image.height > _MAX_PIXELS:
        raise BadPictureError(
            f"image too large ({image.width}x{image.height} pixels; limit 25 megapixels)"
        )
    raw = _raw_mode(image)  # first of all: a PNG is decoded when its orientation is asked for
    notes: list[str] = []
    if note := _first_of_several(image):
        notes.append(note)
    if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
        notes.append("turned upright as its orientation tag says")
    profile = image.info.get("icc_profile")
    shown, deep_note = _eight_bits(image, raw, content)
    if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:  # a TIFF is turned when loaded
        orientation = Image.Exif()
        orientation[_ORIENTATION] = image.getexif()[_ORIENTATION]
        shown.info["exif"] = orientation.tobytes()
        shown = ImageOps.exif_transpose(shown)
    rgb, more = _to_rgb(shown, profile)
    return Picture(rgb, tuple(notes + deep_note + more))


def _first_of_several(image: Image.Image) -> str:
    """What to say of a file with pages or frames, of which the first is used."""
    count = 1
    with suppress(Exception):  # a later frame may be damaged: the first is what counts
        count = getattr(image, "n_frames", 1)
    if count < 2 or image.format == "MPO":  # whose other pictures phones add for themselves
        return ""
    return f"{'page' if image.format == 'TIFF' else 'frame'} 1 of {count}"


def _eight_bits(
    image: Image.Image, raw: str, content: bytes | None
) -> tuple[Image.Image, list[str]]:
    """The decoded image with 8 bits a channel, scaled from what its camera had."""
    if _tag(image, _PLANAR) == _APART and max(_tag(image, _BITS) or (8,)) > 8:
        raise BadPictureError("16 bits a channel in separate planes; save them interleaved")
    if ";16" in raw and image.mode in ("RGB", "RGBA"):
        return _from_values(_sixteen_bit_colors(image, raw, content))
    inverted = _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
    image.load()
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        shown, notes = _from_values(values)
        return ImageOps.invert(shown) if inverted else shown, notes
    if image.mode in ("I", "F"):
        raise BadPictureError(
            "32 bits a channel, whose range is unknown; save it with 8 or 16 bits a channel"
        )
    return image, []


def _raw_mode(image: Image.Image) -> str:
    """How the file's pixels are stored, by Pillow's name; "" once they are decoded."""
    tiles: Any = getattr(image, "tile", None)
    if not tiles:
        return ""
    args = tiles[0].args
    raw = args if isinstance(args, str) else args[0] if args else ""
    return raw if isinstance(raw, str) else ""


def _sixteen_bit_colors(image: Image.Image, raw: str, content: bytes | None) -> NDArray[np.uint16]:
    """Both bytes of every number, of which Pillow decodes the higher: decoded twice."""
    base, _, order = raw.partition(";16")
    if content is None or base not in ("RGB", "RGBA", "RGBX") or order not in _OTHER_BYTE:
        raise BadPictureError("16 bits a channel in a layout that cannot be read; save it in RGB")
    with Image.open(io.BytesIO(content), formats=_FORMATS) as again:
        assert isinstance(again, ImageFile.ImageFile)  # noqa: S101 - it came from a file
        other = f"{base};16{_OTHER_BYTE[order]}"
        for number, tile in enumerate(again.tile):
            args: Any = tile.args
            changed = other if isinstance(args, str) else (other, *args[1:])
            again.tile[number] = tile._replace(args=changed)
        low = np.asarray(again).astype(np.uint16)
    values: NDArray[np.uint16] = 256 * np.asarray(image).astype(np.uint16) + low
    return values


def _from_values(values: NDArray[np.uint16]) -> tuple[Image.Image, list[str]]:
    """Values of up to 16 bits as an image of 8; alpha, which has all 16, apart from the others."""
    colors = values[..., :3] if values.ndim == 3 else values
    largest = int(colors.max(initial=0))
    depth = next(bits for bits in _DEPTHS if largest < 1 << bits)
    scaled = np.rint(colors * (255 / ((1 << depth) - 1))).astype(np.uint8)
    notes = [f"{depth}-bit values in 16 bits {'taken' if depth == 8 else 'scaled'} to 8"]
    if values.shape[2:] == (4,):
        alpha = np.rint(values[..., 3:] / 257).astype(np.uint8)
        scaled = np.concatenate([scaled, alpha], axis=2)
    return Image.fromarray(scaled), notes


def _to_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    """A decoded image of 8 bits a channel in RGB, with sRGB's meaning, on white."""
    notes: list[str] = []
    mode = image.mode
    if mode in ("P", "PA"):
        notes.append("palette converted to RGB")
    elif mode in ("1", "L", "LA", "La"):
        notes.append("grayscale")
    elif mode not in ("RGB", "RGBA", "RGBa", "RGBX"):
        notes.append(f"{mode} converted to RGB")
    alpha = None
    if mode in _ALPHA or mode in ("RGBa", "La") or "transparency" in image.info:
        image = image.convert("LA" if mode == "La" else "RGBa" if mode == "RGBa" else "RGBA")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif mode in ("1", "P", "RGBX", "YCbCr", "HSV"):
        image = image.convert("L" if mode == "1" else "RGB")
    if profile or image.mode == "LAB":
        image, note = _to_srgb(image, profile)
        notes += [note] if note else []
    if image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        image = white
        notes.append("transparent parts shown on white")
    return image, notes


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    try:
        change = _profile_change(profile, image.mode)
    except Exception:  # whatever LittleCMS may raise on a damaged or unfitting profile
        return image, "color profile is damaged or of another kind: ignored"
    if change is None:
        return image, ""
    return change(image), "color profile converted to sRGB"


@lru_cache(maxsize=64)
def _profile_change(
    profile: bytes | None, mode: str
) -> Callable[[Image.Image], Image.Image] | None:
    """What a color profile does to images of a mode; None where that is nothing to speak of."""
    source = (
        ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    )
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.NOCACHE,
    )

    def change(image: Image.Image) -> Image.Image:
        changed = ImageCms.applyTransform(image, transform)
        assert changed is not None  # noqa: S101 - it is in place only when asked
        return changed

    if mode in ("RGB", "L"):
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        if mode == "RGB":
            grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 18, 3)
            before, sample = grid, Image.fromarray(grid)
        else:
            before, sample = levels[None, :, None].repeat(3, axis=2), Image.fromarray(levels[None])
        difference = np.asarray(change(sample)).astype(int) - before
        if np.abs(difference).max() <= _SAME_COLOR:
            return None
    return change


def _tag(image: Image.Image, number: int) -> Any:
    """The value of a TIFF tag; None where there is none."""
    tags: Any = getattr(image, "tag_v2", None)
    return None if tags is None else tags.get(number)


def _check_scans(image: Image.Image, content: bytes) -> None:
    """Refuses a JPEG file that would have every pixel worked on again and again, for hours."""
    if "progressive" in image.info and (num_scans := content.count(_SCAN)) > _MAX_SCANS:
        raise BadPictureError(f"{num_scans:,} scans of a progressive JPEG are too many")


def _sentence(error: Exception) -> str:
    if isinstance(error, BadPictureError):
        return str(error)
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown image format"
    if isinstance(error, Image.DecompressionBombError):
        return "image too large (limit 25 megapixels)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
