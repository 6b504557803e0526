"""Archives of folders, tables and arrays."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import read, save_cells
from hemascope.core.classes import Split
from hemascope.core.errors import DataError, HemascopeError
from hemascope.core.images import Dataset
from hemascope.data import load
from hemascope.data.inputs import items
from hemascope.data.pictures import BadPictureError
from hemascope.data.source import Request
from hemascope.data.walk import PassedOver
from hemascope.settings.data import DataSettings

KINDS = {".zip": "zip", ".tar": "tar", ".tar.gz": "gztar", ".tar.bz2": "bztar", ".tar.xz": "xztar"}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cells(tmp_path_factory.mktemp("cells") / "My cells", {"ig": 4, "neutrophil": 4})


def _packed(folder: Path, root: Path, suffix: str) -> Path:
    """An archive that holds `root`, as when a folder is packed by a click."""
    made = shutil.make_archive(str(folder / "packed"), KINDS[suffix], root.parent, root.name)
    return Path(made)


def _as_found(path: Path, *, skip_bad: bool = False) -> Dataset:
    settings = DataSettings(sources=(str(path),), skip_bad=skip_bad)
    return load(Request(settings, as_found=True))


@pytest.mark.parametrize("suffix", KINDS)
def test_packed_class_folders_are_read_as_if_unpacked(
    cells: Path, tmp_path: Path, suffix: str
) -> None:
    ours, theirs = _as_found(_packed(tmp_path, cells, suffix)), _as_found(cells)
    assert ours.md5 == theirs.md5
    assert ours.classes == theirs.classes
    assert ours.title == f"packed{suffix} (archive)"
    assert [path.name for path in tmp_path.iterdir()] == [f"packed{suffix}"]


def test_a_packed_table_with_its_images(tmp_path: Path) -> None:
    root = save_cells(tmp_path / "x", {"images": 6})
    lines = [f"images/{i}.png,{('ig', 'platelet')[i % 2]},p{i}" for i in range(6)]
    (root / "labels.csv").write_text("\n".join(["path,label,group", *lines]))
    (root / "readme.csv").write_text("not,a,table\n1,2,3\n")
    part = _as_found(_packed(tmp_path, root, ".zip")).splits[Split.TEST]
    assert sorted(part.groups or ()) == [f"p{i}" for i in range(6)]
    shutil.copy(root / "labels.csv", root / "again.csv")
    with pytest.raises(DataError, match=r"several data sets \(again\.csv, labels\.csv\)"):
        _as_found(_packed(tmp_path, root, ".zip"))


def test_packed_arrays(tmp_path: Path, small_npz: Path) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(small_npz, "deep/inside/small.npz")
        archive.writestr("__MACOSX/._small.npz", b"x")
    assert read(path, collection="bloodmnist").md5 == read(small_npz).md5


def test_names_of_windows_inside_an_archive(cells: Path, tmp_path: Path) -> None:
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in cells.glob("*/*.png"):
            info = zipfile.ZipInfo("x.png")
            info.filename = f"cells\\{file.parent.name}\\{file.name}"
            archive.writestr(info, file.read_bytes())
    assert _as_found(path).classes.names == ("immature granulocyte", "neutrophil")


def test_what_is_wrong_inside_is_named_by_the_archive(cells: Path, tmp_path: Path) -> None:
    root = tmp_path / "cells"
    shutil.copytree(cells, root)
    (root / "ig" / "bad.png").write_bytes(b"not an image")
    path = _packed(tmp_path, root, ".tar")
    with pytest.raises(DataError) as error:
        _as_found(path)
    assert f"{path}!/cells/ig/bad.png" in str(error.value)
    dataset = _as_found(path, skip_bad=True)
    assert [bad.path for bad in dataset.bad] == [f"{path}!/cells/ig/bad.png"]
    assert len(dataset.splits[Split.TEST]) == 8
    shutil.rmtree(root / "ig")
    shutil.rmtree(root / "neutrophil")
    empty = _packed(tmp_path, root, ".tar")
    with pytest.raises(DataError, match=r"packed\.tar! has no class folders with images"):
        _as_found(empty)


@pytest.mark.parametrize("suffix", KINDS)
def test_a_damaged_archive_is_one_sentence(cells: Path, tmp_path: Path, suffix: str) -> None:
    path = _packed(tmp_path, cells, suffix)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages: list[str] = []
    for trial in range(40):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(len(whole), size=20)] ^= rng.integers(1, 256, 20, dtype=np.uint8)
        path.write_bytes(damaged.tobytes() if trial % 2 else whole[: rng.integers(len(whole))])
        try:
            _as_found(path)
        except HemascopeError as error:
            messages.append(str(error))
    assert all("\n" not in message and path.name in message for message in messages)
    assert len(messages) > 30 or suffix == ".tar"  # which has no checksum of what it holds


def test_one_damaged_member_of_a_zip_file_is_a_damaged_file(cells: Path, tmp_path: Path) -> None:
    path = _packed(tmp_path, cells, ".zip")
    with zipfile.ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith("ig/1.png"))
    content = bytearray(path.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1 damaged file\(s\): .*packed\.zip!/My cells/ig/1\.png"):
        _as_found(path)
    found = _as_found(path, skip_bad=True)
    assert sum(map(len, found.splits.values())) == 7
    assert [Path(bad.path).name for bad in found.bad] == ["1.png"]
    assert any("1 damaged file(s)" in note for note in found.notes)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_damaged_members_of_a_tar_file_are_named_at_once_or_left_out(
    cells: Path, tmp_path: Path, kind: int
) -> None:
    path = tmp_path / "packed.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        archive.add(cells, "cells")
    with tarfile.open(path) as archive:
        data = {member.name.removeprefix("cells/ig/"): member.offset_data for member in archive}
    content = bytearray(path.read_bytes())
    for name in ("1.png", "2.png"):
        content[data[name] - 512 + 150] ^= 0xFF  # the checksum of its header
    content[data["3.png"]] ^= 0xFF  # its first byte
    path.write_bytes(content)
    said = r"3 damaged file\(s\): .*/ig/1\.png .*header.*/ig/2\.png .*header.*/ig/3\.png"
    with pytest.raises(DataError, match=said):
        _as_found(path)
    found = _as_found(path, skip_bad=True)
    assert len(found.splits[Split.TEST]) == 5
    assert [Path(bad.path).name for bad in found.bad] == ["1.png", "2.png", "3.png"]
    content[data["cells/ig"] - 512 + 150] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"is not a whole archive \(the header of .*ig/? is damaged"
    ):
        _as_found(path, skip_bad=True)


def test_members_outside_and_bombs_are_refused(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "packed.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(cells / "ig" / "0.png", "../outside.png")
    with pytest.raises(DataError, match="has a name that leads out"):
        _as_found(path)
    monkeypatch.setattr("hemascope.data.archive._MOST_BYTES", 100)
    for suffix in (".zip", ".tar"):
        with pytest.raises(DataError, match="unpack it yourself and name the folder"):
            _as_found(_packed(tmp_path, cells, suffix))


def test_images_that_a_packed_table_does_not_name_are_counted(tmp_path: Path) -> None:
    root = save_cells(tmp_path / "x", {"images": 6})
    (root / "labels.csv").write_text("path,label\nimages/0.png,ig\nimages/1.png,platelet\n")
    notes = _as_found(_packed(tmp_path, root, ".zip")).notes
    assert "4 image file(s) that labels.csv does not name were not used." in notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ig/0.png", "ig/0.png"], "holds ig/0.png 2 times"),
        (["ig/0.png", "../evil/0.png"], "leads out"),
    ],
)
def test_an_archive_whose_files_would_lie_over_others_is_refused(
    cells: Path, tmp_path: Path, names: list[str], message: str
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in names:
            archive.add(cells / "ig" / "0.png", name)
    with pytest.raises(DataError, match=message):
        _as_found(tmp_path / "x.tar")


@pytest.mark.parametrize(("letters", "known"), [("utf-8", True), ("latin-1", False)])
def test_folder_names_in_other_letters_are_read_or_refused_never_garbled(
    cells: Path, tmp_path: Path, letters: str, known: bool
) -> None:
    """Of a program that does not say which letters it writes."""
    name = "c\u00e9lula".encode(letters)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(f"{'x' * len(name)}/0.png", (cells / "ig" / "0.png").read_bytes())
    stored = (tmp_path / "x.zip").read_bytes().replace(b"x" * len(name) + b"/", name + b"/")
    (tmp_path / "x.zip").write_bytes(stored)
    if known:
        assert _as_found(tmp_path / "x.zip").classes.names == ("c\u00e9lula",)
        return
    with pytest.raises(DataError, match="not in UTF-8"):
        _as_found(tmp_path / "x.zip")


def test_an_encrypted_archive_says_what_to_do(cells: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ig/0.png", (cells / "ig" / "0.png").read_bytes())
    stored = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        stored[stored.rindex(signature) + at] |= 1
    path.write_bytes(stored)
    with pytest.raises(DataError, match="is encrypted; unpack it"):
        _as_found(path)
    [item] = items([str(path)], PassedOver())
    with pytest.raises(BadPictureError, match="it is encrypted"):
        item.read()
