"""Pictures are shown as an ordinary viewer shows them, with a note, or refused with the reason."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from hemascope.data.pictures import (
    NUM_PREFIX_BYTES,
    BadPictureError,
    Picture,
    is_picture,
    read_picture,
    to_picture,
)

HEIGHT, WIDTH = 5, 7
WHITE = "transparent parts shown on white"
Pixels = NDArray[np.uint8]


@pytest.fixture
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def saved(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def shown(picture: Picture) -> Pixels:
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


def on_white(color: NDArray[Any], alpha: NDArray[Any]) -> Pixels:
    """Values of 0 to 255 over a white background."""
    share = alpha[..., None] / 255
    return np.round(color * share + 255 * (1 - share)).astype(np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    values: NDArray[Any], color: int, bits: int = 16, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG file written by hand, of 16-bit samples or of packed rows."""
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", WIDTH, len(values), bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + after
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def profile(
    gamma: float, *, space: bytes = b"RGB ", kind: bytes = b"mntr", swap: bool = False
) -> bytes:
    """An ICC profile of sRGB's primaries and one gamma, or gray, or with red and blue swapped."""
    fixed = [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]
    xyz = [
        b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in c) for c in fixed
    ]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"wtpt": white, b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 78}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        names = (b"bXYZ", b"gXYZ", b"rXYZ") if swap else (b"rXYZ", b"gXYZ", b"bXYZ")
        tags |= dict(zip(names, xyz, strict=True))
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = b"", b""
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        offset = 132 + 12 * len(tags) + len(body)
        table += name + struct.pack(">II", offset, len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s", 132 + len(table + body), b"", 0x02100000, kind, space, b"XYZ "
    )
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def from_gamma(color: NDArray[Any], gamma: float) -> NDArray[Any]:
    """sRGB levels of values that were stored with a plain gamma (IEC 61966-2-1)."""
    light = (color / 255) ** gamma
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def near(first: NDArray[Any], second: NDArray[Any], levels: float = 1.01) -> bool:
    return bool(np.abs(first.astype(float) - second.astype(float)).max() <= levels)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_ordinary_files_are_read_unchanged_and_without_a_note(
    pixels: Pixels, kind: str, tmp_path: Path
) -> None:
    content = saved(pixels, kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "x").write_bytes(content)
    for source in (content, io.BytesIO(content), tmp_path / "x"):
        picture = read_picture(source)
        assert (shown(picture) == pixels).all()
        assert picture.notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "MPO"])
def test_lossy_files_are_read_as_pillow_decodes_them(pixels: Pixels, kind: str) -> None:
    content = saved(pixels, kind, quality=95)
    picture = read_picture(content)
    assert (shown(picture) == np.asarray(Image.open(io.BytesIO(content)))).all()
    assert picture.notes == ()


# Transparency


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparent_parts_are_white(pixels: Pixels, kind: str) -> None:
    alpha = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) * 7 + 1
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    picture = read_picture(saved(np.dstack([pixels, alpha]), kind, **options))
    assert (shown(picture) == on_white(pixels, alpha)).all()
    assert picture.notes == (WHITE,)


def test_alpha_that_hides_nothing_is_not_worth_a_note(pixels: Pixels) -> None:
    opaque = np.full((HEIGHT, WIDTH), 255, np.uint8)
    picture = read_picture(saved(np.dstack([pixels, opaque])))
    assert (shown(picture) == pixels).all()
    assert picture.notes == ()


def test_gray_with_alpha_is_white_where_it_is_transparent(pixels: Pixels) -> None:
    gray, alpha = pixels[..., 0], pixels[..., 1]
    picture = read_picture(saved(pixels[..., :2].copy()))
    assert (shown(picture) == on_white(np.dstack([gray] * 3), alpha)).all()
    assert picture.notes == ("grayscale", WHITE)


@pytest.mark.parametrize("transparency", [3, bytes([255, 9, 128, 0, 77])])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_colors_may_be_transparent(transparency: int | bytes, kind: str) -> None:
    if kind == "GIF" and isinstance(transparency, bytes):
        return  # which has one transparent color at most
    index = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 5
    colors = np.array([[1, 2, 3], [90, 10, 200], [255, 0, 0], [0, 99, 0], [7, 70, 7]], np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colors.tobytes())
    alphas = np.full(5, 255) if isinstance(transparency, int) else np.array(list(transparency))
    if isinstance(transparency, int):
        alphas[transparency] = 0
    picture = read_picture(saved(image, kind, transparency=transparency))
    assert (shown(picture) == on_white(colors[index], alphas[index])).all()
    assert picture.notes == ("palette converted to RGB", WHITE)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_one_gray_of_a_png_may_be_transparent(bits: int) -> None:
    levels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2**bits
    unpacked = ((levels[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(HEIGHT, -1)
    content = png(np.packbits(unpacked, axis=1), 0, bits, chunk(b"tRNS", b"\0\1"))
    gray = np.repeat((levels * 255 // (2**bits - 1))[..., None], 3, axis=2)
    picture = read_picture(content)
    assert (shown(picture) == on_white(gray, np.where(levels == 1, 0, 255))).all()
    assert WHITE in picture.notes


def test_one_color_of_a_png_may_be_transparent(pixels: Pixels) -> None:
    transparent = pixels[2, 3]
    picture = read_picture(png(pixels, 2, 8, chunk(b"tRNS", transparent.astype(">u2").tobytes())))
    alpha = np.where((pixels == transparent).all(-1), 0, 255)
    assert (shown(picture) == on_white(pixels, alpha)).all()


def test_colors_multiplied_by_alpha_are_not_multiplied_again(pixels: Pixels) -> None:
    alpha = np.maximum(pixels[..., :1], 1)
    color = (pixels * (alpha / 255)).astype(np.uint8)
    over_white = color + (255 - alpha)
    for values in (
        tiff(np.dstack([color, alpha]), photometric="rgb", extrasamples=["assocalpha"]),
    ):
        assert near(shown(read_picture(values)), over_white)
    premultiplied = Image.frombytes("RGBa", (WIDTH, HEIGHT), np.dstack([color, alpha]).tobytes())
    assert near(shown(to_picture(premultiplied)), over_white)


# Orientation

TURNS = {  # what a viewer does to the stored rows, by EXIF's number
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "lzw", "deep", "late"])
def test_pictures_are_held_upright_once(pixels: Pixels, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    tag = [(0x0112, "H", 1, orientation, True)]
    match kind:
        case "deep":
            content = tiff(pixels * np.uint16(257), photometric="rgb", extratags=tag)
        case "lzw":
            content = saved(pixels, "TIFF", compression="tiff_lzw", tiffinfo={0x0112: orientation})
        case "late":
            content = png(pixels * np.uint16(257), 2, after=chunk(b"eXIf", exif.tobytes()[6:]))
        case _:
            options = {"lossless": True} if kind == "WEBP" else {}
            content = saved(pixels, kind, exif=exif, **options)
    picture = read_picture(content)
    assert (shown(picture) == TURNS[orientation](pixels)).all()
    assert ("turned upright" in picture.notes) == (orientation != 1)
    again = to_picture(picture.image)
    assert (shown(again) == shown(picture)).all()
    assert again.notes == ()


def test_orientation_of_a_jpeg_and_of_an_opened_image(pixels: Pixels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(pixels, "JPEG", exif=exif, quality=95)
    with Image.open(io.BytesIO(content)) as stored:
        expected = np.rot90(np.asarray(stored), -1)
        assert (shown(to_picture(stored)) == expected).all()
        assert (shown(to_picture(stored)) == expected).all()
    assert (shown(read_picture(content)) == expected).all()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage!", b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_does_not_hide_the_picture(pixels: Pixels, exif: bytes) -> None:
    picture = read_picture(saved(pixels, "PNG", exif=exif))
    assert (shown(picture) == pixels).all()


# Color


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_colors_are_converted_to_srgb(pixels: Pixels, gamma: float) -> None:
    picture = read_picture(saved(pixels, icc_profile=profile(gamma)))
    assert near(shown(picture), from_gamma(pixels, gamma), 2)
    assert picture.notes == ("color profile converted to sRGB",)


def test_primaries_are_converted_too(pixels: Pixels) -> None:
    picture = read_picture(saved(pixels, icc_profile=profile(2.2, swap=True)))
    assert near(shown(picture)[..., ::-1], from_gamma(pixels, 2.2), 2)


def test_alpha_survives_the_conversion(pixels: Pixels) -> None:
    alpha = np.maximum(pixels[..., 1], 1)
    image = Image.fromarray(np.dstack([pixels, alpha]))
    picture = read_picture(saved(image, icc_profile=profile(1.8)))
    assert near(shown(picture), on_white(from_gamma(pixels, 1.8), alpha), 2)
    assert picture.notes == ("color profile converted to sRGB", WHITE)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_gray_and_palettes_have_profiles_too(pixels: Pixels, mode: str) -> None:
    image = Image.fromarray(pixels).convert(mode)
    gray = profile(1.8, space=b"GRAY" if mode == "L" else b"RGB ")
    picture = read_picture(saved(image, icc_profile=gray))
    assert near(shown(picture), from_gamma(np.asarray(image.convert("RGB")), 1.8), 2)
    assert "color profile converted to sRGB" in picture.notes


def test_srgb_is_left_alone(pixels: Pixels) -> None:
    picture = read_picture(saved(pixels, icc_profile=SRGB))
    assert (shown(picture) == pixels).all()
    assert picture.notes == ()


@pytest.mark.parametrize(
    "unfit",
    [
        b"x",
        b"\0" * 500,
        SRGB[:300],
        SRGB[:-60],
        profile(1.8, space=b"CMYK"),
        profile(1.8, space=b"GRAY"),
        profile(1.8, kind=b"link"),
        profile(1.8, kind=b"nmcl"),
        b"\xff" * 200_000,
    ],
)
def test_a_profile_that_does_not_fit_is_ignored_with_a_note(pixels: Pixels, unfit: bytes) -> None:
    picture = read_picture(saved(pixels, icc_profile=unfit))
    assert (shown(picture) == pixels).all()
    assert len(picture.notes) == 1
    assert "color profile" in picture.notes[0]
    assert "ignored" in picture.notes[0]


def test_a_profile_that_cannot_be_unpacked_is_noted(pixels: Pixels) -> None:
    picture = read_picture(png(pixels, 2, 8, chunk(b"iCCP", b"x\0\0not deflated")))
    assert (shown(picture) == pixels).all()
    assert picture.notes == ("damaged color profile ignored",)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_neither_inverted_nor_black(kind: str) -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :8] = (200, 0, 100, 0)
    picture = read_picture(saved(Image.frombytes("CMYK", (16, 16), ink.tobytes()), kind))
    assert near(shown(picture)[4, 4], np.array([55, 255, 155]), 6)
    assert near(shown(picture)[4, 12], np.array([255, 255, 255]), 6)
    assert picture.notes == ("CMYK converted to RGB",)


def cmyk_profile() -> bytes:
    """Inks that make neutral grays of lightness L* = (255 - 40 C - 30 M - 20 Y - 165 K) / 2.55."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(16, 4)
    lightness = 255 - inks @ (40, 30, 20, 165)
    grid = np.stack([lightness, np.full(16, 128), np.full(16, 128)], axis=-1).astype(np.uint8)
    identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + 4 * ramp + grid.tobytes() + 3 * ramp
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    head = struct.pack(
        ">I4sI4s4s4s", 156 + 20 + len(table), b"", 0x02100000, b"prtr", b"CMYK", b"Lab "
    )
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    tags = struct.pack(">I4sII", 2, b"wtpt", 156, 20) + struct.pack(
        ">4sII", b"A2B0", 176, len(table)
    )
    return head.ljust(128, b"\0") + tags + white + table


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_are_shown_by_their_profile(kind: str) -> None:
    for ink in [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (255, 0, 255, 0)]:
        image = Image.new("CMYK", (16, 16), ink)
        picture = read_picture(saved(image, kind, icc_profile=cmyk_profile()))
        lightness = (255 - np.array(ink) @ (40, 30, 20, 165) / 255) / 2.55
        gray = from_gamma(np.array(255 * ((lightness + 16) / 116) ** 3), 1.0)
        assert near(shown(picture), gray, 3)
        assert picture.notes == ("CMYK converted to RGB", "color profile converted to sRGB")


def test_lab_is_converted_by_its_definition() -> None:
    lab = np.array([[[255, 0, 0], [128, 0, 0], [128, 40, 216], [180, 236, 30]]], np.uint8)
    image = Image.frombytes("LAB", (4, 1), lab.tobytes())
    light = lab[..., 0] * (100 / 255)
    a, b = (lab[..., i].astype(np.int8).astype(float) for i in (1, 2))
    f = np.stack(
        [(light + 16) / 116 + a / 500, (light + 16) / 116, (light + 16) / 116 - b / 200], -1
    )
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1, 0.8249)
    matrix = [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]]
    linear = np.clip(xyz @ np.linalg.inv(matrix).T, 0, 1)
    for picture in (to_picture(image), read_picture(saved(image, "TIFF"))):
        assert near(shown(picture), from_gamma(255 * linear, 1.0), 2)
        assert picture.notes == ("LAB converted to RGB",)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_other_color_spaces_are_converted(pixels: Pixels, mode: str) -> None:
    flat = np.full_like(pixels, (200, 80, 120))
    picture = to_picture(Image.fromarray(flat).convert(mode))
    assert near(shown(picture), flat, 3)
    assert picture.notes == (f"{mode} converted to RGB",)


@pytest.mark.parametrize("polarity", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("bits", [1, 8, 16])
def test_white_is_white_in_both_polarities_of_a_tiff(polarity: str, bits: int) -> None:
    levels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2**bits
    levels = levels * (65535 // levels.max()) if bits == 16 else levels
    stored = levels if polarity == "minisblack" else 2**bits - 1 - levels
    options: dict[str, Any] = {"photometric": polarity}
    if bits == 1:
        stored = stored.astype(bool)
    content = tiff(stored.astype({1: bool, 8: np.uint8, 16: np.uint16}[bits]), **options)
    expected = np.round(levels * (255 / (2**bits - 1)))
    assert (shown(read_picture(content)) == expected[..., None]).all()


# More than 8 bits


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "<", ">", "<zlib", ">zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_values_are_scaled_by_the_bits_in_use(bits: int, kind: str, channels: int) -> None:
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**bits, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    values[0, 0], values[1, 1] = 2**bits - 1, 1
    if kind == "png":
        content = png(values, {1: 0, 3: 2, 4: 6}[channels])
    else:
        options: dict[str, Any] = {"photometric": "rgb"} if channels > 1 else {}
        if channels == 4:
            options["extrasamples"] = ["unassalpha"]
        values_stored = values[..., 0] if channels == 1 else values
        content = tiff(values_stored, byteorder=kind[0], compression=kind[1:] or None, **options)
    expected = np.floor(values * 255.0 / (2**bits - 1) + 0.5)
    if channels == 4:
        expected = np.round(expected[..., :3] * (expected[..., 3:] / 255) + 255 - expected[..., 3:])
    picture = read_picture(content)
    assert (shown(picture) == expected).all()
    note = f"{bits}-bit values " + ("scaled to 8" if bits == 16 else "in 16 bits scaled to 8")
    assert picture.notes[0] == note


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_scale_bar_in_16_bits_leaves_the_rest_in_fewer(bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    values[0, 0], values[-1, : WIDTH // 4] = 2**bits - 1, 65535
    picture = read_picture(png(values, 2))
    expected = np.floor(np.minimum(values, 2**bits - 1) * 255.0 / (2**bits - 1) + 0.5)
    assert (shown(picture) == expected).all()
    assert picture.notes[0].startswith(f"{bits}-bit values in 16 bits")
    values[1, 1] = 5000  # deeper than that, as of an image in 16 bits
    assert read_picture(png(values, 2)).notes[0].startswith("16-bit values")


def test_gray_in_lzw_is_deep_too(pixels: Pixels) -> None:
    gray = pixels[..., 0] * np.uint16(16)
    gray[0, 0] = 4080
    content = saved(
        Image.frombytes("I;16", (WIDTH, HEIGHT), gray.tobytes()), "TIFF", compression="tiff_lzw"
    )
    picture = read_picture(content)
    assert (shown(picture) == np.floor(gray * 255.0 / 4095 + 0.5)[..., None]).all()


def test_deep_gray_with_alpha(pixels: Pixels) -> None:
    values = pixels[..., :2] * np.uint16(257)
    values[..., 0] -= values[..., 0] > 0
    gray, alpha = (np.floor(values[..., i] * 255.0 / 65535 + 0.5) for i in (0, 1))
    picture = read_picture(png(values, 4))
    assert (shown(picture) == on_white(np.dstack([gray] * 3), alpha)).all()


def test_alpha_has_a_depth_of_its_own(pixels: Pixels) -> None:
    values = np.dstack([pixels * np.uint16(16), pixels[..., 0] * np.uint16(257)])
    values[0, 0] = (4095, 4095, 4095, 65535)
    picture = read_picture(png(values, 6))
    color = np.floor(values[..., :3] * 255.0 / 4095 + 0.5)
    assert (shown(picture) == on_white(color, values[..., 3] / 257)).all()


def test_deep_values_multiplied_by_alpha(pixels: Pixels) -> None:
    alpha = np.maximum(pixels[..., :1], 1) * np.uint16(257)
    color = (pixels * (alpha / 255)).astype(np.uint16)
    content = tiff(np.dstack([color, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    assert near(shown(read_picture(content)), (color + 65535.0 - alpha) / 257, 2)


@pytest.mark.parametrize("color", [0, 2])
def test_a_transparent_deep_value_is_compared_in_all_its_bits(pixels: Pixels, color: int) -> None:
    channels = 3 if color else 1
    values = pixels[..., :channels] * np.uint16(257)
    values[0, 0], values[0, 1] = 4096, 4097
    content = png(values, color, before=chunk(b"tRNS", b"\x10\0" * channels))
    picture = read_picture(content)
    assert (shown(picture)[0, 0] == 255).all()
    assert (shown(picture)[0, 1] == 16).all()


def test_eight_bits_in_sixteen_are_not_black(pixels: Pixels) -> None:
    picture = read_picture(png(pixels, 2))
    assert (shown(picture) == pixels).all()
    assert picture.notes == ("8-bit values in 16 bits",)


def test_a_deep_profile_is_applied_after_scaling(pixels: Pixels) -> None:
    values = pixels * np.uint16(257)
    packed = b"x\0\0" + zlib.compress(profile(1.8))
    picture = read_picture(png(values, 2, before=chunk(b"iCCP", packed)))
    assert near(shown(picture), from_gamma(pixels, 1.8), 2)


def test_deep_planes_are_refused(pixels: Pixels) -> None:
    values = (pixels * np.uint16(257)).transpose(2, 0, 1)
    for compression in (None, "zlib"):
        content = tiff(values, photometric="rgb", planarconfig="separate", compression=compression)
        with pytest.raises(BadPictureError, match="save it as 8-bit RGB PNG"):
            read_picture(content)


def test_the_first_of_very_many_pages_is_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemascope.data.pictures._MAX_PAGES", 3)
    picture = read_picture(tiff(np.zeros((5, HEIGHT, WIDTH), np.uint8), photometric="minisblack"))
    assert picture.notes[0] == "page 1 of at least 3"


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float32", "float64", "int8"])
def test_values_without_a_white_are_refused(kind: str) -> None:
    with pytest.raises(BadPictureError, match=r"save it"):
        read_picture(tiff(np.ones((HEIGHT, WIDTH), kind)))


def test_float_images_are_refused() -> None:
    for mode in ("F", "I"):
        with pytest.raises(BadPictureError, match=f"mode {mode} has no defined white"):
            to_picture(Image.new(mode, (3, 3)))


def test_opened_and_loaded_images(pixels: Pixels) -> None:
    content = png(pixels * np.uint16(16) + np.uint16(7), 2)
    with Image.open(io.BytesIO(content)) as lazy:
        expected = np.floor((pixels * 16.0 + 7) * 255 / 4095 + 0.5)
        assert (shown(to_picture(lazy)) == expected).all()
    loaded = Image.open(io.BytesIO(tiff(pixels * np.uint16(257), photometric="rgb")))
    loaded.load()
    with pytest.raises(BadPictureError, match="before it is loaded"):
        to_picture(loaded)


# Pages and frames


@pytest.mark.parametrize(
    ("kind", "word"),
    [("TIFF", "page"), ("GIF", "frame"), ("PNG", "frame"), ("WEBP", "frame")],
)
def test_the_first_of_several_is_shown(kind: str, word: str) -> None:
    frames = [Image.new("RGB", (20, 16), (i * 80, 10, 10)) for i in range(3)]
    picture = read_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert near(shown(picture), np.asarray(frames[0]), 3)
    assert picture.notes[0] == f"{word} 1 of 3"


def test_what_other_pages_say_of_themselves_is_not_said_of_the_first(pixels: Pixels) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(pixels, photometric="rgb")
        writer.write(pixels[..., 0], iccprofile=profile(1.8), extratags=[(0x0112, "H", 1, 6, True)])
        writer.write(pixels.astype(np.float64), photometric="rgb")
    picture = read_picture(file.getvalue())
    assert (shown(picture) == pixels).all()
    assert picture.notes == ("page 1 of 3",)


# Damaged and hostile files


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "lzw"])
@pytest.mark.filterwarnings("ignore")
def test_a_truncated_file_is_refused_or_whole(kind: str) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8))
    options = {"compression": "tiff_lzw"} if kind == "lzw" else {}
    content = saved(image, "TIFF" if kind == "lzw" else kind, **options)
    whole = shown(read_picture(content))
    num_refused = 0
    for share in np.linspace(0, 1, 25, endpoint=False):
        try:
            picture = read_picture(content[: int(share * len(content))])
        except BadPictureError:
            num_refused += 1
        else:
            assert (shown(picture) == whole).all()
    assert num_refused >= 23


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file is empty"),
        (b"no picture at all", "unknown image format; save it"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unknown image format; save it"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC is not read; save it as 8-bit RGB PNG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 is not read"),
        (saved(Image.new("RGB", (9, 9)), "PPM"), "PPM is not read"),
        (saved(Image.new("RGB", (9, 9)), "TIFF", tiffinfo={254: 1}), "its first page is a preview"),
        (b"\x89PNG\r\n\x1a\n", "damaged, or an unsupported variant"),
        (
            saved(Image.new("1", (9000, 9000))),
            r"image too large \(9000x9000 pixels; limit 25 megap",
        ),
        (saved(Image.new("1", (5001, 5000)), "TIFF"), "image too large"),
    ],
)
def test_the_reason_is_one_clear_sentence(content: bytes, reason: str) -> None:
    with pytest.raises(BadPictureError, match=f"^{reason}"):
        read_picture(content)


@pytest.mark.parametrize(
    "size", [(0, 5), (5, 0), (2**31 - 1, 2**31 - 1), (20_000, 20_000), (10_000, 10_000)]
)
def test_headers_that_lie_about_the_size(pixels: Pixels, size: tuple[int, int]) -> None:
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    content = saved(pixels)
    lying = content[:8] + chunk(b"IHDR", header) + content[33:]
    with pytest.raises(BadPictureError, match=r"^(image too large|damaged)"):
        read_picture(lying)


def test_a_jpeg_of_endless_scans_is_refused_at_once() -> None:
    content = saved(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    assert read_picture(content).image.size == (64, 64)
    last = content[content.rfind(b"\xff\xda") : -2]
    with pytest.raises(BadPictureError, match="too many scans"):
        read_picture(content[:-2] + 500 * last + b"\xff\xd9")


def test_a_file_of_too_many_bytes_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hemascope.data.pictures.MAX_FILE_BYTES", 100)
    (tmp_path / "x.png").write_bytes(b"x" * 101)
    for source in (tmp_path / "x.png", b"x" * 101, io.BytesIO(b"x" * 101)):
        with pytest.raises(BadPictureError, match="file too large"):
            read_picture(source)


def test_formats_that_start_programs_are_not_loaded() -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with (
        Image.open(io.BytesIO(content)) as image,
        pytest.raises(BadPictureError, match="format EPS is not supported"),
    ):
        to_picture(image)


# By content


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "MPO"])
def test_pictures_are_known_by_their_content(pixels: Pixels, kind: str) -> None:
    assert is_picture(saved(pixels, kind)[:NUM_PREFIX_BYTES])


@pytest.mark.parametrize(
    "prefix",
    [
        b"",
        b"x",
        b"BM",
        b"BMI,label\n22.5,neutrophil\n1,2,3",
        b"P6 patients\n",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"path,label\n",
        b"%!PS-Adobe-3.0",
        b"\0\5\26\7\0\2\0\0Mac OS X        ",
    ],
)
def test_other_files_are_no_pictures(prefix: bytes) -> None:
    assert not is_picture(prefix)


def test_a_color_space_that_is_not_applied_is_noted() -> None:
    content = saved(np.full((8, 8, 3), 120, dtype=np.uint8))
    place = content.index(b"IDAT") - 4
    for primaries, transfer, noted in ((1, 13, False), (12, 13, True), (9, 16, True)):
        told = chunk(b"cICP", bytes([primaries, transfer, 0, 1]))
        notes = read_picture(content[:place] + told + content[place:]).notes
        assert (notes == ("its color space (cICP) was not applied",)) == noted


def test_what_shows_nothing_is_refused() -> None:
    with pytest.raises(BadPictureError, match="all of it is transparent"):
        to_picture(Image.new("RGBA", (12, 12), (9, 9, 9, 0)))
    with pytest.raises(BadPictureError, match="image of 0x5 pixels"):
        to_picture(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"Rar!\x1a\x07", "an archive, or compressed; unpack it"),
        (b"\x1f\x8b\x08", "unpack it"),
        (b"\0\0\0\x20ftypisom", "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_what_files_hold_that_are_called_images_is_said(begin: bytes, said: str) -> None:
    with pytest.raises(BadPictureError, match=said):
        read_picture(begin + b"x" * 300)
