"""What is uploaded: pictures by content, within limits, and stored as pixels alone."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from hemascope.data.pictures import read_picture
from hemascope.data.rendered import render
from hemascope.data.walk import PassedOver
from hemascope.review.images import ImageStore, encoded
from hemascope.review.intake import Limits, Received, received, safe_name
from hemascope.review.problems import Refused
from stations import cell_files, png


def zipped(files: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def taken(files: Mapping[str, bytes], **limits: int) -> tuple[list[Received], PassedOver]:
    passed = PassedOver()
    opened: list[tuple[str, Any]] = [(name, io.BytesIO(one)) for name, one in files.items()]
    return list(received(opened, replace(Limits(), **limits), passed)), passed


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("cell.png", "cell.png"),
        ("patient/slide/cell.png", "patient/slide/cell.png"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\Users\\Ann\\cell.png", "C:/Users/Ann/cell.png"),
        ("..\\..\\cell.png", "cell.png"),
        ("a\0b\n\r\x1b[31m.png", "ab[31m.png"),
        ("\u202egnp.exe", "gnp.exe"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("é/細胞.png", "é/細胞.png"),
    ],
)
def test_names_are_text_and_never_a_path(given: str, name: str) -> None:
    assert safe_name(given) == name
    assert len(safe_name("x" * 5000 + given)) <= 300


def test_the_kind_is_told_by_the_content_not_by_the_name() -> None:
    [picture] = cell_files(1).values()
    found, passed = taken(
        {"no suffix": picture, "cell.txt": picture, "text.png": b"hello", "notes.txt": b"hello"}
    )
    assert [(one.name, bool(one.picture)) for one in found] == [
        ("no suffix", True),
        ("cell.txt", True),
        ("text.png", False),
    ]
    assert found[2].error == "unknown image format; save it as 8-bit RGB PNG"
    assert passed.notes() == ("1 file(s) that are not images were passed over (notes.txt).",)


def test_a_zip_is_looked_through_by_content_too() -> None:
    files = cell_files(3)
    damaged = files["cell-001.png"][:200]
    content = zipped(
        {
            "slide/cell-000.png": files["cell-000.png"],
            "slide/cell-001.png": damaged,
            "../../cell-000.png": files["cell-000.png"],
            "cell-002": files["cell-002.png"],
            "readme.txt": b"hello",
            "__MACOSX/._cell-000.png": b"x",
            "inner.zip": zipped(files),
        }
    )
    found, passed = taken({"cells.zip": content})
    names = ["slide/cell-000.png", "slide/cell-001.png", "cell-002"]
    assert [one.name for one in found] == [f"cells.zip!/{name}" for name in names]
    assert [bool(one.error) for one in found] == [False, True, False]
    listed = " ".join(passed.notes())
    assert "2 file(s) that are not images were passed over (readme.txt, inner.zip)" in listed
    assert "2 hidden" in listed  # `..` begins with a dot, as for `predict`
    assert not taken({"named.png": content})[0][0].error  # a zip by its content


def test_a_damaged_member_does_not_spoil_the_others() -> None:
    files = cell_files(3)
    content = bytearray(zipped(files, zipfile.ZIP_STORED))
    at = content.index(files["cell-001.png"][:60])
    content[at + 100] ^= 0xFF  # its checksum is no longer right
    found, _ = taken({"cells.zip": bytes(content)})
    assert [bool(one.picture) for one in found] == [True, False, True]
    assert found[1].error == "damaged in its archive"  # no word of the member's name


@pytest.mark.parametrize("end", [30, 200, 1000])
def test_half_an_archive_is_refused_by_name(end: int) -> None:
    with pytest.raises(Refused, match=r"^cells\.zip is not a whole zip archive") as said:
        taken({"cells.zip": zipped(cell_files(3))[:end]})
    assert (said.value.status, said.value.field) == (422, "file")


def test_an_archive_with_a_password_says_so() -> None:
    content = bytearray(zipped(cell_files(1), zipfile.ZIP_STORED))
    content[6] |= 1  # as if it were encrypted
    content[content.index(b"PK\x01\x02") + 8] |= 1
    [one], _ = taken({"cells.zip": bytes(content)})
    assert "encrypted" in one.error


def test_bombs_are_refused_before_they_are_unpacked() -> None:
    zeros = zipped({f"{i}.png": bytes(30_000_000) for i in range(4)})
    with pytest.raises(Refused, match="unpacks to more than 100 times its size") as said:
        taken({"bomb.zip": zeros})
    assert said.value.status == 413
    with pytest.raises(Refused, match="holds more than 50 files"):
        taken({"many.zip": zipped({f"{i}.txt": b"" for i in range(51)})}, max_files=50)


def test_members_that_share_their_bytes_are_no_way_around() -> None:
    content = zipped({"a.txt": bytes(1_000_000) + np.random.default_rng(0).bytes(20_000)})
    listed = content.index(b"PK\x01\x02")
    entry = content[listed : content.index(b"PK\x05\x06")]
    end = bytearray(content[content.index(b"PK\x05\x06") :])
    for i in (8, 10):
        end[i : i + 2] = (500).to_bytes(2, "little")
    end[12:16] = (500 * len(entry)).to_bytes(4, "little")
    with pytest.raises(Refused, match="unpacks to more than"):
        taken({"overlapping.zip": content[:listed] + entry * 500 + bytes(end)})


def test_limits_of_files_and_bytes() -> None:
    files = cell_files(4)
    with pytest.raises(Refused, match="a request may hold 3 images") as said:
        taken(files, max_files=3)
    assert (said.value.status, said.value.field) == (413, "file")
    with pytest.raises(Refused, match="unpacked 0 MB"):
        taken({"z.zip": zipped(files)}, max_request_bytes=len(files["cell-000.png"]) + 1)
    most = sorted(map(len, files.values()))[1]
    found, _ = taken(files, max_file_bytes=most)
    assert [bool(one.error) for one in found] == [len(one) > most for one in files.values()]
    assert {one.error for one in found} == {"", "file too large (limit 0 MB)"}
    inside, _ = taken({"z.zip": zipped(files)}, max_file_bytes=most)
    assert [one.error for one in inside] == [one.error for one in found]


def test_too_many_pixels_are_an_error_of_one_picture() -> None:
    wide = png(Image.new("L", (30_000, 1000)))
    found, _ = taken({"wide.png": wide, **cell_files(1)})
    assert "too large" in found[0].error
    assert found[1].picture


def test_the_same_file_has_the_same_key_and_another_name_another() -> None:
    files = cell_files(2)
    one, other = files.values()
    keys = {
        one.key
        for batch in ({"a.png": one}, {"a.png": one}, {"b.png": one}, {"a.png": other})
        for one in taken(batch)[0]
    }
    assert len(keys) == 3


def _with_everything() -> dict[str, bytes]:
    """A picture with a place, a name, a profile and comments in every format that holds some."""
    [pixels] = render(np.array([3]), seed=1, image_size=64)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "SECRET artist"
    exif[ExifTags.Base.ImageDescription] = "SECRET patient"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "SECRET N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", "SECRET name")
    text.add_itxt("XML:com.adobe.xmp", "<x>SECRET xmp</x>")
    options: dict[str, Any] = {"exif": exif, "icc_profile": profile}
    return {
        "a.png": png(picture, pnginfo=text, **options),
        "a.jpg": png(picture, "JPEG", quality=100, comment=b"SECRET comment", **options),
        "a.webp": png(picture, "WEBP", lossless=True, xmp=b"<x>SECRET xmp</x>", **options),
        "a.tif": png(picture, "TIFF", description="SECRET", **options),
        "a.gif": png(picture, "GIF", comment=b"SECRET comment"),
        "tail.png": png(picture) + b"SECRET tail <script>alert(1)</script>",
    }


@pytest.mark.parametrize("name", list(_with_everything()))
def test_stored_copies_hold_pixels_and_nothing_else(name: str, tmp_path: Any) -> None:
    content = _with_everything()[name]
    assert b"SECRET" in content
    picture = read_picture(content).image
    made = encoded(picture)
    ImageStore(tmp_path).add(made)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == [f"{made.sha256}.jpg", f"{made.sha256}.png"]
    for path in kept:
        assert b"SECRET" not in path.read_bytes()
        with Image.open(path) as again:
            assert dict(again.getexif()) == {}
            assert set(again.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    chunks: list[bytes] = []
    at = 8
    while at < len(made.content):
        length = int.from_bytes(made.content[at : at + 4], "big")
        chunks.append(made.content[at + 4 : at + 8])
        at += length + 12
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    with Image.open(io.BytesIO(made.content)) as again:
        assert np.array_equal(np.asarray(again), np.asarray(picture))


def test_the_folder_of_images_is_its_owner_s_alone(tmp_path: Any) -> None:
    store = ImageStore(tmp_path)
    made = encoded(read_picture(next(iter(cell_files(1).values()))).image)
    store.add(made)
    for folder in (tmp_path / "images", store.path(made.sha256).parent):
        assert folder.stat().st_mode & 0o077 == 0
    store.remove(made.sha256)
    store.remove(made.sha256)
    assert not store.path(made.sha256).exists()
