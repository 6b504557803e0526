"""Each kind of file against pixels worked out by hand."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from hemascope.data.pictures import BadPictureError, is_picture, read_picture, to_picture
from hemascope.data.rendered import render

Pixels = NDArray[np.uint8]
PIXELS: Pixels = render(np.array([1]), seed=0, image_size=40)[0][:, :32]
IMAGE = Image.fromarray(PIXELS)
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def off(content: bytes | Image.Image, expected: Pixels) -> int:
    """The largest difference of a picture's pixels from those expected."""
    picture = to_picture(content) if isinstance(content, Image.Image) else read_picture(content)
    assert picture.image.mode == "RGB"
    assert picture.image.size == (expected.shape[1], expected.shape[0])
    return int(np.abs(np.asarray(picture.image).astype(int) - expected).max())


def png16(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a channel: gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4)."""
    color = {2: 0, 3: {3: 2, 4: 6}.get(values.shape[-1], 0)}[values.ndim]

    def chunk(kind: bytes, body: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + end

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def cut_out() -> tuple[Image.Image, Pixels]:
    """A picture whose upper half is transparent over black, and what a viewer shows."""
    alpha = np.full((*PIXELS.shape[:2], 1), 255, np.uint8)
    alpha[:20] = 0
    colors = np.where(alpha > 0, PIXELS, 0).astype(np.uint8)
    shown = np.where(alpha > 0, PIXELS, 255).astype(np.uint8)
    return Image.fromarray(np.concatenate([colors, alpha], axis=2)), shown


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_parts_are_shown_on_white(
    kind: str, cut_out: tuple[Image.Image, Pixels]
) -> None:
    content = saved(cut_out[0], kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert off(content, cut_out[1]) == 0
    assert read_picture(content).notes == ("transparent parts shown on white",)


def test_half_transparent_parts_are_mixed_with_white() -> None:
    half = np.full((*PIXELS.shape[:2], 1), 128, np.uint8)
    content = saved(Image.fromarray(np.concatenate([PIXELS, half], axis=2)), "PNG")
    expected = 255 - (255 - PIXELS.astype(float)) * 128 / 255
    assert off(content, np.rint(expected).astype(np.uint8)) <= 1


def test_an_opaque_alpha_channel_is_not_worth_a_word() -> None:
    content = saved(IMAGE.convert("RGBA"), "PNG")
    assert off(content, PIXELS) == 0
    assert read_picture(content).notes == ()


def test_a_transparent_color_and_palette_are_shown_on_white() -> None:
    pixels = np.full((10, 10, 3), 90, np.uint8)
    pixels[:5] = (1, 2, 3)
    shown = np.where(pixels == 90, 90, 255).astype(np.uint8)
    color = saved(Image.fromarray(pixels), "PNG", transparency=(1, 2, 3))
    palette = Image.fromarray(pixels).quantize(2)
    index = palette.getpixel((0, 0))
    assert off(color, shown) == 0
    assert off(saved(palette, "PNG", transparency=index), shown) == 0
    assert off(saved(palette, "GIF", transparency=index), shown) == 0


@pytest.mark.parametrize("orientation", _TRANSPOSED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_what_is_stored_lying_is_turned_upright_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif}
    if kind == "TIFF":
        options = {"tiffinfo": {0x0112: orientation}}
    elif kind == "WEBP":
        options["lossless"] = True
    content = saved(IMAGE.transpose(_TRANSPOSED[orientation]), kind, **options)
    assert off(content, PIXELS) == 0
    assert read_picture(content).notes == ("turned upright as its orientation tag says",)


@pytest.mark.parametrize(("bits", "most"), [(10, 1023), (12, 4095), (14, 16383), (16, 65535)])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_camera_s_bits_are_scaled_to_eight(bits: int, most: int, channels: int) -> None:
    values = np.rint(PIXELS * (most / 255)).astype(np.uint16)
    values[0, 0] = most
    expected = np.rint(values * (255 / most)).astype(np.uint8)
    if channels == 4:
        opaque = np.full((*values.shape[:2], 1), 65535, np.uint16)
        values = np.concatenate([values, opaque], axis=2)
    assert off(png16(values), expected) == 0
    assert read_picture(png16(values)).notes == (f"{bits}-bit values in 16 bits scaled to 8",)


def test_gray_of_sixteen_bits_is_scaled_too() -> None:
    gray = PIXELS[..., 1].astype(np.uint16) * 16
    expected = np.rint(gray * (255 / 4095)).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert off(png16(gray), expected) == 0
    assert read_picture(png16(gray)).notes[-1] == "grayscale"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "adobe_deflate"])
def test_tiffs_of_sixteen_bits_in_both_byte_orders(order: Any, compression: str | None) -> None:
    import tifffile

    values = PIXELS.astype(order + "u2") * 257
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="rgb", byteorder=order, compression=compression)
    assert off(file.getvalue(), PIXELS) == 0


@pytest.mark.parametrize(("depth", "factor"), [(np.uint8, 1), (np.uint16, 16), (np.uint16, 257)])
def test_a_tiff_whose_zero_is_white_is_not_inverted(depth: Any, factor: int) -> None:
    import tifffile

    file = io.BytesIO()
    stored = (255 - PIXELS[..., 1]).astype(depth) * factor
    tifffile.imwrite(file, stored, photometric="miniswhite")
    gray = PIXELS[..., 1:2].repeat(3, axis=2)
    assert off(file.getvalue(), gray) <= 1


def test_what_has_no_known_range_or_layout_is_refused() -> None:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.moveaxis(PIXELS.astype(np.uint16), 2, 0),
        planarconfig="separate",
        photometric="rgb",
    )
    with pytest.raises(BadPictureError, match="separate planes"):
        read_picture(file.getvalue())
    with pytest.raises(BadPictureError, match="32 bits a channel"):
        to_picture(Image.fromarray(PIXELS[..., 0].astype(np.float32)))
    with pytest.raises(BadPictureError, match="32 bits a channel"):
        to_picture(Image.fromarray(PIXELS[..., 0].astype(np.int32)))


def wide_profile() -> bytes:
    """sRGB's curve and white, but red and green swapped: no viewer could mistake it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def test_an_embedded_color_profile_is_converted_and_alpha_survives() -> None:
    swapped = Image.fromarray(np.ascontiguousarray(PIXELS[..., [1, 0, 2]]))
    content = saved(swapped, "PNG", icc_profile=wide_profile())
    assert off(content, PIXELS) <= 2
    assert read_picture(content).notes == ("color profile converted to sRGB",)
    alpha = Image.new("L", swapped.size, 0)
    swapped.putalpha(alpha)
    content = saved(swapped, "PNG", icc_profile=wide_profile())
    assert off(content, np.full_like(PIXELS, 255)) == 0


def test_a_profile_that_is_srgb_is_not_worth_a_word_and_a_damaged_one_is_ignored_aloud() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = saved(IMAGE, "PNG", icc_profile=srgb)
    assert off(content, PIXELS) == 0
    assert read_picture(content).notes == ()
    for wrong in (
        b"garbage" * 30,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ):
        content = saved(IMAGE, "PNG", icc_profile=wrong)
        assert off(content, PIXELS) == 0
        assert "ignored" in read_picture(content).notes[0]


def test_other_color_models_and_palettes() -> None:
    assert off(saved(IMAGE.convert("CMYK"), "TIFF"), PIXELS) <= 1
    assert off(saved(IMAGE.convert("CMYK"), "JPEG", quality=100, subsampling=0), PIXELS) <= 6
    assert off(IMAGE.convert("YCbCr"), PIXELS) <= 4
    colors = Image.fromarray(np.array([[[1, 2, 3], [200, 100, 50]]], np.uint8).repeat(8, axis=0))
    assert off(saved(colors.quantize(2), "GIF"), np.asarray(colors)) == 0
    black_and_white = Image.fromarray(PIXELS[..., 0] > 128)
    shown = (np.asarray(black_and_white)[..., None].repeat(3, axis=2) * 255).astype(np.uint8)
    assert off(saved(black_and_white, "TIFF"), shown) == 0
    lab = ImageCms.profileToProfile(
        IMAGE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert off(saved(lab, "TIFF"), PIXELS) <= 10


def test_of_pages_and_frames_the_first_is_used_and_said() -> None:
    other = Image.fromarray(255 - PIXELS)
    pages = saved(IMAGE, "TIFF", save_all=True, append_images=[other, other])
    assert off(pages, PIXELS) == 0
    assert read_picture(pages).notes == ("page 1 of 3",)
    frames = saved(IMAGE, "WEBP", save_all=True, append_images=[other], lossless=True)
    assert off(frames, PIXELS) == 0
    assert read_picture(frames).notes == ("frame 1 of 2",)


def test_what_is_damaged_or_too_large_is_refused_with_the_reason(tmp_path: Path) -> None:
    for content, reason in (
        (b"", "file is empty"),
        (b"not a picture at all", "unknown image format"),
        (saved(IMAGE, "JPEG")[:-60], "truncated"),
        (saved(IMAGE, "PNG")[:-90], "truncated"),
        (saved(Image.new("1", (9000, 9000)), "PNG"), r"image too large \(9000x9000 pixels"),
    ):
        with pytest.raises(BadPictureError, match=reason):
            read_picture(content)
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "none.png")


def test_files_bytes_and_streams_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "cell.dat"
    path.write_bytes(saved(IMAGE, "BMP"))
    assert off(path.read_bytes(), PIXELS) == 0
    for file in (path, io.BytesIO(path.read_bytes())):
        assert np.array_equal(np.asarray(read_picture(file).image), PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_a_picture_is_known_by_its_content(kind: str) -> None:
    assert is_picture(saved(IMAGE, kind)[:32])


@pytest.mark.parametrize(
    "text", [b"", b"BM is how this text begins, not a bitmap", b"P6 or P5", b"PK"]
)
def test_a_text_is_not_a_picture(text: bytes) -> None:
    assert not is_picture(text[:32])
