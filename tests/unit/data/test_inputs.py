"""What `predict` finds below a path, and what it leaves out."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemascope.core.errors import DataError, UsageError
from hemascope.data import inputs, walk
from hemascope.data.inputs import check_inputs, count_items, items
from hemascope.data.npz import rows_of
from hemascope.data.pictures import BadPictureError
from hemascope.data.walk import PassedOver


def save(path: Path, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def test_a_folder_is_walked_by_name_and_not_twice_by_links(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.png", "c/d/e.tif"):
        save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("")
    save(tmp_path / ".hidden.png")
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    (tmp_path / "c" / "twice").symlink_to(tmp_path / "b")
    passed = PassedOver()
    found = [os.path.relpath(item.path, tmp_path) for item in items([str(tmp_path)], passed)]
    assert passed.notes() == (
        "3 file(s) that are not images were passed over (notes.txt, loop, twice).",
        "1 hidden or system file(s) were passed over.",
    )
    assert found == ["a.png", "b/1.JPG", "b/2.png", "c/d/e.tif"]
    assert count_items([str(tmp_path)]) == 7  # at most: nothing is opened


def test_folders_that_are_links_are_walked_each_once(tmp_path: Path) -> None:
    classes = tmp_path / "elsewhere"
    for name in ("monocyte/1.png", "basophil/2.png"):
        save(classes / name)
    (classes / "basophil" / "back").symlink_to(classes / "monocyte")
    cells = tmp_path / "cells"
    cells.mkdir()
    for name in ("monocyte", "basophil"):
        (cells / name).symlink_to(classes / name)
    (cells / "zz").symlink_to(classes / "monocyte")
    passed = PassedOver()
    found = [os.path.relpath(item.path, cells) for item in items([str(cells)], passed)]
    assert found == ["basophil/2.png", "basophil/back/1.png"]
    assert passed.names == ["monocyte", "zz"]
    assert count_items([str(cells)]) == 4


def test_images_of_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    passed = PassedOver()
    [item] = items([str(tmp_path)], passed)
    assert item.path.endswith("phone.heic")
    assert not passed.notes()


def test_a_very_large_folder_is_read_in_sorted_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "_SORTED_AT_ONCE", 3)
    for i in range(8):
        (tmp_path / f"{i}.png").touch()
    found = [Path(item.path).name for item in items([str(tmp_path)], PassedOver())]
    assert sorted(found) == [f"{i}.png" for i in range(8)]
    assert found[:3] == sorted(found[:3])


def test_what_is_no_file_and_what_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "many.tar").touch()
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 20)
    save(tmp_path / "x.png")
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.add(tmp_path / "x.png", "x.png")
        archive.add(tmp_path / "gone.png", "link.png")
    errors: dict[str, str] = {}
    for item in items([str(tmp_path / "pipe.png"), str(tmp_path / "one.tar")], PassedOver()):
        with pytest.raises(BadPictureError) as refused:
            item.read()
        errors[item.path.removeprefix(f"{tmp_path}/")] = str(refused.value)
    assert errors["pipe.png"] == "not a file"
    assert "file too large" in errors["one.tar!/x.png"]
    assert "is a link to" in errors["one.tar!/link.png"]
    assert len(errors) == 3
    [gone] = items([str(tmp_path / "gone.png")], PassedOver())
    with pytest.raises(OSError, match="No such file"):
        gone.read()
    [broken] = items([str(tmp_path / "many.tar")], PassedOver())
    with pytest.raises(BadPictureError, match="not a whole tar archive"):
        broken.read()


def test_rows_of_any_npz_with_images(tmp_path: Path) -> None:
    pixels = np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3)
    np.savez_compressed(tmp_path / "ok.npz", images=pixels, val_images=pixels[:1], labels=[1])
    rows = dict(rows_of(tmp_path / "ok.npz"))
    assert list(rows) == ["0", "1", "val/0"]
    assert np.array_equal(rows["1"], pixels[1])
    np.savez(tmp_path / "first.npz", images=pixels.transpose(0, 3, 1, 2), gray=pixels[..., 0])
    assert np.array_equal(dict(rows_of(tmp_path / "first.npz"))["1"], pixels[1])
    np.savez(tmp_path / "gray.npz", images=pixels[..., 0])
    assert np.array_equal(dict(rows_of(tmp_path / "gray.npz"))["0"], pixels[0, :, :, 0])
    np.savez(tmp_path / "flat.npz", images=pixels.reshape(2, -1))
    with pytest.raises(DataError, match="has shape"):
        list(rows_of(tmp_path / "flat.npz"))
    np.savez(tmp_path / "none.npz", labels=[1])
    with pytest.raises(DataError, match="has no array 'images'"):
        list(rows_of(tmp_path / "none.npz"))
    whole = (tmp_path / "ok.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole"):
        list(rows_of(tmp_path / "cut.npz"))


def test_missing_inputs_are_refused_before_any_work(tmp_path: Path) -> None:
    save(tmp_path / "odd[1].png")
    check_inputs([str(tmp_path / "odd[1].png"), "-"])
    for path in ("no.png", "*.none"):
        with pytest.raises(UsageError, match="give images, folders"):
            check_inputs([str(tmp_path / path)])
    assert count_items(["-"]) is None


def test_a_list_on_standard_input_may_have_a_mark_and_any_bytes(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("ä b.png", "2.png")]
    text = "\r\n".join([*names, ""]).encode("utf-8-sig") + b"\xff.png\n"
    found = [item.path for item in items(["-"], PassedOver(), io.BytesIO(text))]
    assert found == [*names, "\udcff.png"]


def test_an_image_on_standard_input_is_one_image(tmp_path: Path) -> None:
    save(tmp_path / "x.png", (9, 8))
    content = io.BytesIO((tmp_path / "x.png").read_bytes())
    [item] = items(["-"], PassedOver(), content)
    assert item.path == "-"
    assert item.read().image.size == (9, 8)


@pytest.mark.parametrize("kind", ["zip", "tar", "folder", "list"])
def test_no_image_at_all_is_an_error_that_says_what_was_there(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    source = str(folder)
    if kind in ("zip", "tar"):
        source = shutil.make_archive(str(tmp_path / "y"), kind, folder)
    paths, stdin = (["-"], io.BytesIO()) if kind == "list" else ([source], None)
    with pytest.raises(DataError, match="there is no image in") as error:
        list(items(paths, PassedOver(), stdin))
    assert "notes.txt" in str(error.value) or kind == "list"


def test_hidden_members_of_archives_are_left_out(tmp_path: Path) -> None:
    save(tmp_path / "x.png")
    path = tmp_path / "mac.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "x.png", "cells/x.png")
        archive.write(tmp_path / "x.png", "cells/picture")  # known by its content
        archive.writestr("__MACOSX/cells/._x.png", b"x")
        archive.writestr("__MACOSX\\cells\\._y.png", b"x")  # as some programs write paths
        archive.writestr("cells/Thumbs.db", b"x")
        archive.writestr("cells/labels.csv", b"x")
    passed = PassedOver()
    found = [item.path for item in items([str(path)], passed)]
    assert found == [f"{path}!/cells/x.png", f"{path}!/cells/picture"]
    assert (passed.count, passed.num_hidden, passed.names) == (1, 3, ["labels.csv"])


def test_a_folder_that_cannot_be_read_has_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "locked" / "b.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    first, second = items([str(tmp_path)], PassedOver())
    assert first.read().image.size == (12, 12)
    with pytest.raises(BadPictureError, match="the folder cannot be read: Permission denied"):
        second.read()


def test_a_table_is_refused_and_other_packed_archives_are_read(tmp_path: Path) -> None:
    save(tmp_path / "x.png")
    (tmp_path / "cells.csv").write_text("path,label\nx.png,monocyte\n")
    with pytest.raises(UsageError, match=r"cells.csv is a table, not an image; give the images"):
        check_inputs([str(tmp_path / "cells.csv")])
    bz2, xz = tmp_path / "cells.tbz2", tmp_path / "cells.txz"
    with tarfile.open(bz2, "w:bz2") as first, tarfile.open(xz, "w:xz") as second:
        first.add(tmp_path / "x.png", "x.png")
        second.add(tmp_path / "x.png", "x.png")
    found = [item.path for item in items([str(bz2), str(xz)], PassedOver())]
    assert found == [f"{bz2}!/x.png", f"{xz}!/x.png"]


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"PK\x03\x04", "an archive"),
        (b"P6\n12 12\n255\n", "PPM is not read"),
        (b"\x93NUMPY", "NumPy is not read"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"a.png\0b.png\0", "holds zero bytes"),
    ],
)
def test_what_is_not_read_on_standard_input_is_no_list_of_paths(begin: bytes, said: str) -> None:
    content = io.BytesIO(begin + b"\n\xff\n" * 50)
    [item] = items(["-"], PassedOver(), content)
    with pytest.raises(BadPictureError, match=said):
        item.read()


def test_a_list_of_paths_may_be_in_utf_16(tmp_path: Path) -> None:
    content = "P1 1.png\r\nzwölf.png\r\n".encode("utf-16")
    assert [one.path for one in items(["-"], PassedOver(), io.BytesIO(content))] == [
        "P1 1.png",
        "zwölf.png",
    ]


@pytest.mark.parametrize("name", ["cells.zip", "cells.npz", "b/cells.TAR.GZ"])
def test_archives_inside_archives_are_named(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(name, b"PK\x03\x04")
    [item] = items([str(tmp_path / "all.zip")], PassedOver())
    with pytest.raises(BadPictureError, match="inside an archive"):
        item.read()
