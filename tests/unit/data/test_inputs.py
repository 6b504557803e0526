"""What `predict` finds below a path, and what it leaves out."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemascope.core.errors import DataError, UsageError
from hemascope.data import inputs
from hemascope.data.inputs import check_inputs, count_items, items
from hemascope.data.npz import rows_of
from hemascope.data.pictures import BadPictureError, middle, read_rgb


def save(path: Path, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def test_a_folder_is_walked_by_name_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.png", "c/d/e.tif"):
        save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("")
    save(tmp_path / ".hidden.png")
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    found = [os.path.relpath(item.path, tmp_path) for item in items([str(tmp_path)])]
    assert found == ["a.png", "b/1.JPG", "b/2.png", "c/d/e.tif"]
    assert count_items([str(tmp_path)]) == 4


def test_a_very_large_folder_is_read_in_sorted_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_SORTED_AT_ONCE", 3)
    for i in range(8):
        (tmp_path / f"{i}.png").touch()
    found = [Path(item.path).name for item in items([str(tmp_path)])]
    assert sorted(found) == [f"{i}.png" for i in range(8)]
    assert found[:3] == sorted(found[:3])


def test_what_is_no_file_and_what_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "many.tar").touch()
    monkeypatch.setattr(inputs, "_MAX_FILE_BYTES", 20)
    save(tmp_path / "x.png")
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.add(tmp_path / "x.png", "x.png")
        archive.add(tmp_path / "gone.png", "link.png")  # stays a link, and is left out
    errors: dict[str, str] = {}
    for item in items([str(tmp_path / "pipe.png"), str(tmp_path / "one.tar")]):
        with pytest.raises(BadPictureError) as refused:
            item.read()
        errors[item.path.removeprefix(f"{tmp_path}/")] = str(refused.value)
    assert errors["pipe.png"] == "it is no file"
    assert "bytes are too many" in errors["one.tar!/x.png"]
    assert len(errors) == 2
    [gone] = items([str(tmp_path / "gone.png")])
    with pytest.raises(OSError, match="No such file"):
        gone.read()
    [broken] = items([str(tmp_path / "many.tar")])
    with pytest.raises(BadPictureError, match="no whole tar archive"):
        broken.read()


def test_rows_of_any_npz_with_images(tmp_path: Path) -> None:
    pixels = np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3)
    np.savez_compressed(tmp_path / "ok.npz", images=pixels, val_images=pixels[:1], labels=[1])
    rows = dict(rows_of(tmp_path / "ok.npz"))
    assert list(rows) == ["0", "1", "val/0"]
    assert np.array_equal(rows["1"], pixels[1])
    np.savez(tmp_path / "gray.npz", images=pixels[..., 0])
    with pytest.raises(DataError, match="has shape"):
        list(rows_of(tmp_path / "gray.npz"))
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


def test_the_middle_is_cut_out_and_sixteen_bits_are_refused(tmp_path: Path) -> None:
    image = Image.new("RGB", (100, 60))
    image.paste((255, 0, 0), (40, 20, 60, 40))
    assert (middle(image, 10, 20) == (255, 0, 0)).all()
    assert (middle(image, 10, 60)[0] == 0).all()
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(BadPictureError, match="not 8 bits"):
        read_rgb(tmp_path / "deep.png")
    save(tmp_path / "clear.png", mode="RGBA")
    picture, converted = read_rgb(tmp_path / "clear.png")
    assert picture.mode == "RGB"
    assert converted
