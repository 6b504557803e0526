import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import save_npz, small_arrays
from hemascope.core.classes import Split
from hemascope.core.errors import DataError
from hemascope.data import load
from hemascope.data.npz import read_npz

Arrays = dict[str, Any]


def _with(**changes: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, **changes}


def _without(key: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {name: value for name, value in arrays.items() if name != key}


IMAGES, LABELS = small_arrays()["val_images"], small_arrays()["val_labels"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("test_labels"), "has no array 'test_labels'"),
        (_with(val_images=IMAGES[..., 0]), r"val_images has shape \(16, 28, 28\)"),
        (_with(val_images=IMAGES[..., :1]), r"val_images has shape \(16, 28, 28, 1\)"),
        (_with(val_images=IMAGES[:, :20]), r"val_images has shape \(16, 20, 28, 3\)"),
        (_with(val_images=IMAGES[:, :7, :7]), "7 pixels wide"),
        (_with(val_images=IMAGES / 255), "val_images has type float64"),
        (_with(val_images=IMAGES[:0], val_labels=LABELS[:0]), "val_images is empty"),
        (_with(val_labels=LABELS[:-1]), r"val_labels has shape \(15, 1\), but there are 16"),
        (_with(val_labels=LABELS.astype(float)), "val_labels has type float64"),
        (_with(val_labels=LABELS + 1), "val_labels holds the label 8"),
        (_with(val_labels=LABELS.astype(np.int8) - 1), "val_labels holds the label -1"),
        (_with(val_images=np.zeros((16, 32, 32, 3), np.uint8)), "different sizes"),
        (_with(val_labels=np.array([{}] * 16, dtype=object)), "'val_labels' cannot be read"),
    ],
)
def test_a_wrong_array_is_named_in_one_sentence(
    tmp_path: Path, change: Callable[[Arrays], Arrays], message: str
) -> None:
    path = tmp_path / "wrong.npz"
    save_npz(path, change(small_arrays()))
    with pytest.raises(DataError, match=message) as error:
        read_npz(path)
    assert "wrong.npz" in str(error.value)


def test_missing_truncated_and_foreign_files(tmp_path: Path, small_npz: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_npz(tmp_path / "none.npz")
    content = small_npz.read_bytes()
    for name, damaged in (("cut", content[: len(content) // 2]), ("text", b"hello"), ("nil", b"")):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is not a whole \.npz file"):
            read_npz(path)


def test_a_flipped_byte_inside_the_pixels_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "flipped.npz"
    np.savez(path, allow_pickle=False, **small_arrays())
    content = bytearray(path.read_bytes())
    content[5000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_npz(path)


def test_a_header_that_promises_more_than_the_file_holds(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = (10**9, 28, 28, 3)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", header.getvalue())
    with pytest.raises(DataError, match="header does not fit its size"):
        read_npz(path)


def test_uncompressed_and_flat_labels_are_read_alike(tmp_path: Path, small_npz: Path) -> None:
    arrays = small_arrays()
    flat = {k: v.ravel().astype(np.int32) if "labels" in k else v for k, v in arrays.items()}
    path = tmp_path / "flat.npz"
    np.savez(path, allow_pickle=False, **flat)
    ours, theirs = read_npz(path), read_npz(small_npz)
    for split in Split:
        np.testing.assert_array_equal(ours.splits[split].images, theirs.splits[split].images)
        np.testing.assert_array_equal(ours.splits[split].labels, theirs.splits[split].labels)


def test_only_the_official_md5_is_called_official(small_npz: Path) -> None:
    dataset = load(str(small_npz))
    assert dataset.title == "small.npz (MedMNIST layout)"
    assert dataset.splits[Split.VAL].ids[3] == "val/3"
