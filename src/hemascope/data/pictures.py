"""The one reader of pictures: files of any ordinary kind as a person sees them in a viewer."""

import io
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, TiffImagePlugin

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff"),
        *(".webp", ".gif", ".avif"),
        # Images too, though not read: each is told what to do instead of being passed over.
        *(".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".psd", ".tga"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2"),
        *(".raf", ".dcm", ".svs", ".ndpi", ".czi", ".nd2", ".lif", ".vsi", ".mrxs", ".exr"),
    }
)
NUM_PREFIX_BYTES = 32
MAX_FILE_BYTES = 160_000_000  # 25 megapixels of uncompressed 16-bit RGB are 150 MB
TOO_LARGE = f"file too large (limit {MAX_FILE_BYTES // 1_000_000} MB)"
# No format that starts a program, none whose values lose bits in silence (JPEG 2000), and none
# that text may begin like (PPM).
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF")
_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")
_FORMATS_UNREAD = {
    "HEIC": rb".{4}ftyp(?:heic|heix|heim|hevc|mif1|msf1)",
    "JPEG 2000": rb".{4}jP  |\xff\x4f\xff\x51",
    "JPEG XL": rb".{4}JXL |\xff\x0a",
    "Photoshop": rb"8BPS",
    "PPM": rb"P[1-6]\s+(?:#|\d+\s+\d+\s)|P7\nWIDTH",
    "DICOM": rb".{128}DICM",
    "Zeiss CZI": rb"ZISRAWFILE",
    "NumPy": rb"\x93NUMPY",
}
_UNREAD = {  # what files hold that are called images and not read, by how they begin; what to do
    **{
        begins: f"{name} is not read; save it as 8-bit RGB PNG"
        for name, begins in _FORMATS_UNREAD.items()
    },
    rb"PK[\x03\x05]|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar": (
        "an archive, or compressed; unpack it"
    ),
    rb"%PDF": "a PDF document; save its images as 8-bit RGB PNG",
    rb".{4}ftyp(?:isom|iso\d|mp4\d|M4V |qt  |avc1|3gp)|RIFF.{4}AVI |\x1a\x45\xdf\xa3": (
        "a video; save its frames as 8-bit RGB PNG"
    ),
    rb"\x89HDF|MATLAB": "a file of arrays; save its images as 8-bit RGB PNG",
    rb"\s*<(?i:!doctype|html)": "a web page; download the image itself",
    rb"version https://git-lfs": "a pointer of Git LFS; fetch the file by git lfs pull",
}
_BMP_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_MAX_PIXELS = 25_000_000  # a cell photograph is 0.13 megapixels; this stops image bombs
_SCAN, _MAX_SCANS = b"\xff\xda", 100  # a progressive JPEG has about ten
_MAX_PAGES = 1000  # counted; each costs a seek, and a hostile file has many
_MAX_COUNTED_BYTES = 20_000_000  # of a GIF file, whose frames are found by reading all of it

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB_CICP = bytes([1, 13])  # primaries and transfer function, as ITU-T H.273 numbers them
_SRGB_GAMMA, _SAME_COLOR = 0.45455, 0.01
_SRGB_POINTS = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green, blue
_INTEROPERABILITY = 0xA005
_EXIF_KEYS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")

_SUBFILE, _IS_REDUCED = 254, 1  # a TIFF tag, and its bit
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339  # TIFF tags
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2
_DEEP = re.compile(r"(LA|RGB|RGBX|RGBA|RGBa|CMYK);16([LBN])")
_GRAY_STEPS = {"L;2": 85, "L;4": 17}  # between neighboring values of few bits, scaled to 8
_LOADED = "loading dropped bits of its colors; give the file, or the image before it is loaded"
_DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners
_WHITE_OF_16, _MOST_DRAWN, _DEEPEST_DRAWN_ON = 65535, 0.1, 12  # of a scale bar: share, bits below
_GRAY = ("1", "L", "LA", "La")
_KINDS = {
    "1": "1-bit black and white",
    **dict.fromkeys(("L", "LA", "La"), "grayscale"),
    **dict.fromkeys(("P", "PA"), "palette converted to RGB"),
    **{mode: f"{mode} converted to RGB" for mode in ("CMYK", "YCbCr", "HSV", "LAB")},
}
_EIGHT_BITS = frozenset({*_KINDS, "RGB", "RGBA", "RGBa", "RGBX"})
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}
_SAME_LEVELS = 2  # of 255: sRGB profiles differ by as much in how they round
_PROFILE_CLASSES = frozenset({"scnr", "mntr", "prtr", "spac"})


class BadPictureError(ValueError):
    """Why a file is not an image that can be used; without its name, which the caller knows."""


@dataclass(frozen=True)
class Picture:
    """A photograph as a person sees it in an ordinary viewer.

    Attributes:
        image: RGB pixels, loaded, upright, in sRGB, on white where they were transparent.
        notes: What was converted, in a few words each.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def is_picture(prefix: bytes) -> bool:
    """Whether the first `NUM_PREFIX_BYTES` of a file look like a format that is read."""
    if prefix.startswith(b"BM"):  # two letters that a text may begin with too
        return int.from_bytes(prefix[14:18], "little") in _BMP_HEADER_BYTES
    return any(accepts(prefix) is True for accepts in _signatures())


@cache
def _signatures() -> tuple[Callable[[bytes], bool | str], ...]:
    """Pillow's own tests of a file's beginning, for the formats that are read."""
    for name in _PLUGINS:
        import_module(f"PIL.{name}ImagePlugin")  # which registers its format
    return tuple(accepts for name in _FORMATS if (accepts := Image.OPEN[name][1]))


def unread(content: bytes) -> str:
    """What a file holds that is not read, by how it begins, and what to do; "" if unknown."""
    told = (told for begins, told in _UNREAD.items() if re.match(begins, content, re.DOTALL))
    return next(told, "")


def readable(reads: Iterable[Callable[[], Picture]]) -> Iterator[Image.Image]:
    """Those photographs that can be read; what is wrong with the others is said elsewhere."""
    for read in reads:
        with suppress(BadPictureError, OSError):
            yield read().image


def read_picture(file: Path | BinaryIO | bytes) -> Picture:
    """A photograph file as a viewer shows it: RGB, upright, in sRGB, on white.

    Raises:
        BadPictureError: If it is not an image, damaged, too large, or of a kind whose colors
            cannot be known; the reason, without the file's name.
    """
    with _errors_named(), _opened(_content(file)) as image:
        return to_picture(image)


def to_picture(image: Image.Image) -> Picture:
    """An opened image of any mode as a viewer shows it; one that is not loaded yet is best.

    Pillow drops the low byte of 16-bit colors as it loads them. Of a loaded TIFF that is noticed
    and refused; of a loaded PNG nobody can tell.

    Raises:
        BadPictureError: As for `read_picture`.
    """
    with _errors_named():
        _check(image)
        return _shown(image)


@contextmanager
def _errors_named() -> Generator[None]:
    """Whatever a decoder may raise on damaged bytes as one kind of error."""
    try:
        yield
    except BadPictureError:
        raise
    except Exception as error:
        raise BadPictureError(_reason(error)) from error


def _content(file: Path | BinaryIO | bytes) -> bytes:
    if isinstance(file, Path):
        if file.is_fifo():  # which would be waited for
            raise BadPictureError("not a file")
        with file.open("rb") as opened:
            return _content(opened)
    content = file if isinstance(file, bytes) else file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise BadPictureError(TOO_LARGE)
    if not content:
        raise BadPictureError("file is empty")
    return content


def _opened(content: bytes) -> ImageFile.ImageFile:
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        if not is_picture(content[:NUM_PREFIX_BYTES]):
            raise BadPictureError(
                unread(content) or "unknown image format; save it as 8-bit RGB PNG"
            ) from error
        raise BadPictureError(
            "damaged, or an unsupported variant of its format; save it as 8-bit RGB PNG"
        ) from error
    if image.format == "PNG" and (at := content.find(b"cICP", 0, content.find(b"IDAT"))) > 0:
        image.info["cicp"] = content[at + 4 : at + 6]  # which Pillow passes over
    return image


def _check(image: Image.Image) -> None:
    """Refuses what must not be decoded, before it is."""
    if not image.width or not image.height:
        raise BadPictureError(f"image of {image.width}x{image.height} pixels")
    if image.width * image.height > _MAX_PIXELS:
        raise BadPictureError(
            f"image too large ({image.width}x{image.height} pixels; "
            f"limit {_MAX_PIXELS // 1_000_000} megapixels)"
        )
    if not isinstance(image, ImageFile.ImageFile):
        return
    if image.format not in (*_FORMATS, "MPO"):
        raise BadPictureError(f"format {image.format} is not supported; save it as PNG")
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_SUBFILE, 0) & _IS_REDUCED:
        raise BadPictureError(
            "its first page is a preview, as in raw images; save the image as 8-bit RGB PNG"
        )
    if image.fp is not None and "progressive" in image.info:
        # Each scan works on every pixel again; a hostile file would take hours.
        image.fp.seek(0)
        if (num_scans := image.fp.read().count(_SCAN)) > _MAX_SCANS:  # load() seeks by itself
            raise BadPictureError(
                f"too many scans of a progressive JPEG ({num_scans}; limit {_MAX_SCANS})"
            )


def _shown(image: Image.Image) -> Picture:
    notes = _frame_notes(image)
    before = _orientation(image)  # Pillow turns a TIFF, and no other, as it loads it
    pixels, loaded, depth_notes = _eight_bits(image)
    notes += depth_notes
    if pixels.mode not in _EIGHT_BITS:
        raise BadPictureError(
            f"mode {pixels.mode} has no defined white; scale it to 8 or 16 bits and save it again"
        )
    if pixels.mode in _KINDS:
        notes += (_KINDS[pixels.mode],)
    color, alpha = _split(pixels)
    color, profile_notes = _to_srgb(color, image.info.get("icc_profile", b""))
    notes += profile_notes or _untold_colors(image)
    if alpha is not None and (extrema := alpha.getextrema()) != (255, 255):
        if extrema == (0, 0):
            raise BadPictureError("all of it is transparent; save it without alpha")
        white = Image.new("RGB", color.size, "white")
        white.paste(color, mask=alpha)
        color, notes = white, (*notes, "transparent parts shown on white")
    after = _orientation(loaded)
    if after in _UPRIGHT:
        color = color.transpose(_UPRIGHT[after])
    if before in _UPRIGHT or after in _UPRIGHT:
        notes += ("turned upright",)
    elif after is None:
        notes += ("damaged EXIF data ignored",)
    if color is not image:
        color.info = {}  # else it would be turned and converted again by the next reader
    return Picture(color, notes)


def _frame_notes(image: Image.Image) -> tuple[str, ...]:
    if not getattr(image, "is_animated", False) or image.format == "MPO":  # phones add previews
        return ()
    kind = "page" if isinstance(image, TiffImagePlugin.TiffImageFile) else "frame"
    return (f"{kind} {image.tell() + 1} of {_num_frames(image)}",)


def _num_frames(image: Image.Image) -> str:
    """How many frames there are, counted on a copy: seeking mixes up what frames tell of them."""
    with suppress(Exception), _again(image) as copy:  # a damaged later frame does not matter
        if isinstance(copy, TiffImagePlugin.TiffImageFile):
            return _num_pages(copy)
        if copy.format != "GIF" or not copy.fp or copy.fp.seek(0, 2) <= _MAX_COUNTED_BYTES:
            return str(getattr(copy, "n_frames", 1))
    return "several"


def _num_pages(image: TiffImagePlugin.TiffImageFile) -> str:
    for number in range(1, _MAX_PAGES):
        try:
            image.seek(number)
        except EOFError:
            return str(number)
        except Exception:  # noqa: S112 - a page of an unsupported kind is a page too
            continue
    return f"at least {_MAX_PAGES}"


def _again(image: Image.Image) -> ImageFile.ImageFile:
    """The same frame of the same file, opened once more and not loaded."""
    if not isinstance(image, ImageFile.ImageFile) or image.fp is None:
        raise BadPictureError(_LOADED)
    position = image.fp.tell()
    image.fp.seek(0)
    copy = _opened(image.fp.read())
    image.fp.seek(position)
    copy.seek(image.tell())
    return copy


def _untold_colors(image: Image.Image) -> tuple[str, ...]:
    """What a file without a profile says of its colors, which is not heeded."""
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if image.info.get("cicp", _SRGB_CICP) != _SRGB_CICP:
        return ("its color space (cICP) was not applied",)
    if image.format == "PNG" and "srgb" not in image.info:
        if gamma and abs(gamma - _SRGB_GAMMA) > _SAME_COLOR:
            return (f"its gamma ({gamma:.2g}) was not applied",)
        if points and max(map(abs, np.subtract(points, _SRGB_POINTS))) > _SAME_COLOR:
            return ("its chromaticities were not applied",)
    if any(key in image.info for key in _EXIF_KEYS):
        with suppress(Exception):  # whatever damaged bytes may lead to
            if image.getexif().get_ifd(_INTEROPERABILITY).get(1) == "R03":
                return ("Adobe RGB, by its EXIF data, was read as sRGB",)
    return ()


def _orientation(image: Image.Image) -> int | None:
    """How the camera was held, as in EXIF; None where that cannot be read."""
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    if not is_tiff and not any(key in image.info for key in _EXIF_KEYS):
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever damaged bytes may lead to
        return None


def _eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image, tuple[str, ...]]:
    """Its pixels in 8 bits a channel, the image that was loaded for them, and what to say."""
    rawmodes = {_rawmode(tile) for tile in getattr(image, "tile", ())}
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise BadPictureError("signed values have no defined white; save it as 8-bit RGB PNG")
    if (deep := _deep_values(image, rawmodes, tags)) is None:
        image.load()
        step = max((_GRAY_STEPS.get(rawmode, 1) for rawmode in rawmodes), default=1)
        pixels = image
        if step > 1 and "transparency" in image.info:  # is not scaled with the pixels
            pixels = image.copy()
            pixels.info["transparency"] *= step
        return pixels, image, ()
    loaded, mode, values = deep
    if (transparent := image.info.get("transparency")) is not None:
        opaque = (values != np.array(transparent)).any(axis=-1, keepdims=True)
        mode, values = f"{mode}A", np.concatenate([values, opaque * np.uint16(65535)], axis=-1)
    pixels, bits = _scaled(mode, values)
    if mode == "L" and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        pixels = ImageOps.invert(pixels)  # as Pillow does itself at 8 bits alone
    stored = "" if bits == 16 else " in 16 bits"
    return pixels, loaded, (f"{bits}-bit values{stored}" + " scaled to 8" * (bits > 8),)


def _deep_values(
    image: Image.Image, rawmodes: set[str], tags: Any
) -> tuple[Image.Image, str, NDArray[np.uint16]] | None:
    """The loaded image, its mode in 8 bits, and its values in 16; None where 8 hold them."""
    deep = [match for rawmode in rawmodes if (match := _DEEP.fullmatch(rawmode))]
    if image.mode.startswith("I;16"):
        image.load()
        return image, "L", np.asarray(image).astype(np.uint16)[..., None]
    if deep and tags.get(_PLANAR, 1) != _SEPARATE:
        return _deep_colors(image, *deep[0].groups())
    if max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8 and image.mode in _EIGHT_BITS:
        if not rawmodes:
            raise BadPictureError(_LOADED)
        raise BadPictureError("16-bit colors in separate planes; save it as 8-bit RGB PNG")
    return None


def _rawmode(tile: Any) -> str:
    """How a decoder is told that the bytes of a tile are arranged; empty where it is not."""
    args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return args[0] if args and isinstance(args[0], str) else ""


def _deep_colors(
    image: Image.Image, mode: str, order: str
) -> tuple[Image.Image, str, NDArray[np.uint16]]:
    """A loaded copy, the mode and all 16 bits of colors, of which Pillow keeps the upper 8."""
    if mode == "LA":  # four bytes a pixel, as RGBA's
        loaded = _loaded_as(image, "RGBA")
        return loaded, mode, np.asarray(loaded).view(">u2").astype(np.uint16)
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    stored = {"RGBa": "RGBA"}.get(mode, mode)  # else it would be divided by alpha in between
    loaded = _loaded_as(image, f"{stored};16{order}")
    lower = _loaded_as(image, f"{stored};16{'B' if order == 'L' else 'L'}")  # the other byte
    values = np.asarray(loaded) * np.uint16(256) + np.asarray(lower)
    return loaded, mode.removesuffix("X"), values


def _loaded_as(image: Image.Image, rawmode: str) -> Image.Image:
    copy = _again(image)
    copy.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in copy.tile
    ]
    copy.load()
    return copy


def _scaled(mode: str, values: NDArray[np.uint16]) -> tuple[Image.Image, int]:
    """Values in 16 bits scaled to 8, and how many bits they use.

    A camera's 12 bits are often stored in 16 as they are. The largest value tells; where it fits
    into 8 bits, an 8-bit image was widened.
    """
    num_colors = len(mode.removesuffix("A"))  # alpha multiplied in (RGBa) has the colors' depth
    color, alpha = np.split(values, [num_colors], axis=-1)
    bits = _num_bits(color, _MOST_DRAWN)
    alpha_bits = bits if _num_bits(alpha) <= bits else 16
    color = np.minimum(color, 2**bits - 1)  # of a scale bar: see `_num_bits`
    scaled = np.concatenate([_levels(bits)[color], _levels(alpha_bits)[alpha]], axis=-1)
    height, width, _ = values.shape
    return Image.frombytes(mode, (width, height), scaled.tobytes()), bits


def _num_bits(values: NDArray[np.uint16], most_drawn: float = 0) -> int:
    """The bits in use, but for a scale bar or a text drawn in the largest of 16 upon fewer."""
    is_drawn = values == _WHITE_OF_16
    if 0 < np.count_nonzero(is_drawn) <= most_drawn * values.size:
        largest = int(values[~is_drawn].max())
        if 0 < largest < 2**_DEEPEST_DRAWN_ON:  # else it may be an image in 16 bits, and dark
            return next(bits for bits in _DEPTHS if largest < 2**bits)
    largest = int(values.max(initial=0))
    return next(bits for bits in _DEPTHS if largest < 2**bits)


def _levels(bits: int) -> NDArray[np.uint8]:
    """The level of 0 to 255 of each value of so many bits."""
    limit = 2**bits - 1
    return ((np.arange(limit + 1, dtype=np.uint32) * 255 + limit // 2) // limit).astype(np.uint8)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colors in a mode that a profile may be for, and alpha where there is any."""
    mode = "L" if image.mode in _GRAY else image.mode
    mode = mode if mode in _PROFILE_SPACES else "RGB"
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if mode == "L" else "RGBA")
        alpha = image.getchannel("A")
    return image if image.mode == mode else image.convert(mode), alpha


def _to_srgb(image: Image.Image, profile: object) -> tuple[Image.Image, tuple[str, ...]]:
    """Colors in sRGB by the profile that came with them (None: one that could not be read)."""
    transform, note = None, ""
    if profile is None or not isinstance(profile, bytes):
        note = "damaged color profile ignored"
    elif profile:
        transform, note = _transform(profile, image.mode)
    if transform is None and image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    if transform is not None:
        image = transform.apply(image)
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return image, (note,) if note else ()


@lru_cache(maxsize=16)  # one camera's pictures bring the same profile thousands of times
def _transform(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """The way from a profile's colors to sRGB, None where there is none to go, and the note."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        header: Any = source.profile
        fits = header.xcolor_space == _PROFILE_SPACES[mode]
        if not fits or header.device_class not in _PROFILE_CLASSES:
            return None, f"color profile for {header.xcolor_space.strip()} ignored"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # whatever damaged bytes may lead to
        return None, "damaged color profile ignored"
    if _changes_nothing(transform, mode):
        return None, ""
    return transform, "color profile converted to sRGB"


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether colors all over the cube come out as they went in, but for rounding."""
    if mode not in ("L", "RGB"):
        return False
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    probe = Image.fromarray(cube).convert(mode)
    before, after = (
        np.asarray(i, dtype=int) for i in (probe.convert("RGB"), transform.apply(probe))
    )
    return bool(np.abs(before - after).max() <= _SAME_LEVELS)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"image too large (limit {_MAX_PIXELS // 1_000_000} megapixels)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    if "truncated" in text.lower():
        return text if text.startswith("image file") else f"image file is truncated ({text})"
    return f"cannot be decoded ({text})"
