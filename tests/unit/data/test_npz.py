"""Arrays in every layout in which people save them."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import read, save_npz, small_arrays
from hemascope.core.classes import Split
from hemascope.core.errors import DataError
from hemascope.core.images import Dataset
from hemascope.data import collections, load, npz
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings

Arrays = dict[str, Any]
Change = Callable[[Arrays], Arrays]


def _with(**changes: Any) -> Change:
    return lambda arrays: {**arrays, **changes}


def _each(what: str, change: Callable[[Any], Any]) -> Change:
    """Changes the images, or the labels, of every split."""
    return lambda arrays: {k: change(v) if k.endswith(what) else v for k, v in arrays.items()}


def _without(key: str) -> Change:
    return lambda arrays: {name: value for name, value in arrays.items() if name != key}


def _saved(folder: Path, arrays: Arrays) -> Path:
    save_npz(folder / "own.npz", arrays)
    return folder / "own.npz"


def _as_found(path: Path, **options: Any) -> Dataset:
    settings = DataSettings(sources=(str(path),), **options)
    return load(Request(settings, as_found=True))


SMALL = small_arrays()
IMAGES, LABELS = SMALL["val_images"], SMALL["val_labels"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("test_labels"), "has no array 'test_labels'"),
        (_with(val_images=IMAGES[:, :, :, :2]), r"val_images has shape \(16, 28, 28, 2\)"),
        (_with(val_images=IMAGES[0, 0]), r"val_images has shape \(28, 3\)"),
        (_with(val_images=IMAGES[:, :7, :7]), "7 pixels wide"),
        (_with(val_images=IMAGES / 255), "val_images has type float64"),
        (_with(val_images=IMAGES[:0], val_labels=LABELS[:0]), "val_images is empty"),
        (_with(val_labels=LABELS[:-1]), r"val_labels has shape \(15, 1\).*but there are 16"),
        (_with(val_labels=LABELS + 0.5), r"val_labels holds 0\.5; expected integers"),
        (_with(val_labels=np.full(16, np.nan)), "val_labels holds nan; expected integers"),
        (_with(val_labels=np.full(16, np.inf)), "val_labels holds inf; expected integers"),
        (_with(val_labels=LABELS + 1), "holds the label 8, but there are 8 class names"),
        (_with(val_labels=LABELS.astype(np.int8) - 1), "holds the label -1"),
        (_with(val_labels=LABELS.astype(str)), r"val_labels are texts.*'class_names'"),
        (_with(val_images=IMAGES[0]), r"as one image has; write it as \(1, H, W, 3\)"),
        (_with(val_labels=np.eye(8)[LABELS.ravel()] * 2), "not every row is one-hot"),
        (_with(val_labels=np.ones((16, 8), np.uint8)), "not every row is one-hot"),
        (_with(val_labels=np.array([{}] * 16, dtype=object)), "'val_labels' cannot be read"),
        (_with(valid_images=IMAGES, valid_labels=LABELS), "several arrays for val"),
        (_with(val_names=np.array(["x"])), "val_names has 1 entries; expected 16"),
        (lambda arrays: {"cells": arrays["train_images"]}, r"has no array of images \(cells\)"),
    ],
)
def test_a_wrong_array_is_named_in_one_sentence(
    tmp_path: Path, change: Change, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(_saved(tmp_path, change(SMALL)))
    assert "own.npz" in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        _each("images", lambda x: x.transpose(0, 3, 1, 2)),
        _each("images", lambda x: np.asfortranarray(x)),
        _each("images", lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], axis=3)),
        _each("labels", lambda y: np.eye(8, dtype=np.uint8)[y.ravel()]),
        _each("labels", lambda y: np.eye(8)[y.ravel()]),
        _each("labels", lambda y: y.ravel().astype(np.int32)),
        _each("labels", lambda y: y.astype(np.float64)),
        _each("labels", lambda y: y.astype(">i2")),
        lambda arrays: {k.replace("val_", "valid_"): v for k, v in arrays.items()},
        lambda arrays: {k.upper().replace("IMAGES", "images").replace("LABELS", "labels"): v
                        for k, v in arrays.items()},
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_images_and_labels(
    tmp_path: Path, small_npz: Path, change: Change
) -> None:
    ours, theirs = read(_saved(tmp_path, change(SMALL))), read(small_npz)
    for split in Split:
        np.testing.assert_array_equal(ours.splits[split].images, theirs.splits[split].images)
        np.testing.assert_array_equal(ours.splits[split].labels, theirs.splits[split].labels)
    assert ours.classes == theirs.classes


@pytest.mark.parametrize(
    "change", [lambda x: x[..., 0], lambda x: x[..., :1], lambda x: x[:, None, :, :, 0]]
)
def test_gray_images_are_read_and_it_is_said(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    dataset = read(_saved(tmp_path, _each("images", change)(SMALL)))
    images = dataset.splits[Split.TEST].images
    np.testing.assert_array_equal(images, SMALL["test_images"][..., :1].repeat(3, axis=3))
    assert "The images are grayscale; R, G and B are equal." in dataset.notes


def test_what_is_transparent_is_shown_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((8, 9, 9, 4), np.uint8)
    rgba[:, :4] = (200, 100, 50, 255)
    path = _saved(tmp_path, {"images": rgba, "labels": np.arange(8)})
    images = _as_found(path, collection="bloodmnist", image_size=9).splits[Split.TEST].images
    assert (images[:, :4] == (200, 100, 50)).all()
    assert (images[:, 4:] == 255).all()


def test_a_pattern_for_file_names_is_said_not_to_be_used(tmp_path: Path) -> None:
    dataset = _as_found(_saved(tmp_path, SMALL), group_from="^(.)", collection="bloodmnist")
    assert any(note.startswith("`group_from` is not used") for note in dataset.notes)


def test_a_file_s_own_names_in_its_own_order_count(tmp_path: Path) -> None:
    order = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
    arrays = {"images": SMALL["train_images"][:40], "labels": np.arange(40) % 5}
    named = _saved(tmp_path, {**arrays, "class_names": np.array(order)})
    assert _as_found(named).classes.names == order
    for asked in ({"collection": "bloodmnist"}, {"classes": BLOOD_CELLS.names}):
        dataset = _as_found(named, **asked)  # labels are told by name, never by number
        counts = dataset.class_counts(Split.TEST)
        assert counts == {name: 8 if name in order else 0 for name in BLOOD_CELLS.names}
        rows = [i for i, y in enumerate(arrays["labels"]) if order[y] == "basophil"]
        part = dataset.splits[Split.TEST]
        assert [int(part.labels[i]) for i in rows] == [0] * 8
    with pytest.raises(DataError, match=r"in question: .*monocyte.*`map`"):
        read(named, classes=("neutrophil", "lymphocyte", "mono", "eosinophil", "basophil"))


def test_labels_that_nothing_explains_are_refused_and_the_ways_named(tmp_path: Path) -> None:
    path = _saved(tmp_path, SMALL)
    with pytest.raises(DataError, match="nothing says what the labels") as error:
        load(Request(DataSettings(sources=(str(path),))))
    assert all(way in str(error.value) for way in ("'class_names'", "`classes`", "`collection`"))
    assert _as_found(path, classes=tuple("hgfedcba")).classes.names == tuple("hgfedcba")


@pytest.mark.parametrize("names", [("a", "b"), tuple("abcdefg")])
def test_fewer_names_than_labels_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=rf"holds the label 7, but there are {len(names)} class"):
        read(_saved(tmp_path, SMALL), classes=names)


def test_only_a_known_md5_names_a_file_and_a_name_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bloodmnist.npz"
    save_npz(path, SMALL)
    with pytest.raises(DataError, match="nothing says"):
        load(Request(DataSettings(sources=(str(path),))))
    blood = collections.collections()["bloodmnist"]
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    known = blood.model_copy(update={"md5s": {**blood.md5s, 28: md5}})
    monkeypatch.setattr(npz, "recognized", lambda _md5: ("bloodmnist", "official"))
    monkeypatch.setattr(npz, "collection", lambda _key: known)
    dataset = load(Request(DataSettings(sources=(str(path),))))
    assert dataset.kind == "official"
    assert dataset.title == "BloodMNIST, official split (MedMNIST v2)"
    assert dataset.classes == BLOOD_CELLS
    assert dataset.spec.photo_size == 360
    assert dataset.spec.jpeg_quality == 75


def test_every_known_md5_is_recognized() -> None:
    for key, known in collections.collections().items():
        for md5 in known.md5s.values():
            assert collections.recognized(md5) == (key, "official")
    assert collections.recognized("c0a772f8e159f0aa301c3ca29553bacc") == ("bloodmnist", "rebuilt")
    assert collections.recognized("0" * 32) is None


def test_a_collection_gives_names_and_recipe_for_its_size(tmp_path: Path) -> None:
    large = _each("images", lambda x: x.repeat(2, axis=1).repeat(2, axis=2)[:, :, :])(SMALL)
    dataset = read(_saved(tmp_path, large), collection="bloodmnist")
    assert dataset.classes == BLOOD_CELLS
    assert dataset.spec.size == 56
    assert dataset.spec.crop == pytest.approx(200 / 360)
    assert dataset.spec.jpeg_quality == 0  # the recipe of 28 pixels alone
    np.testing.assert_array_equal(dataset.splits[Split.VAL].images, large["val_images"])


def test_images_of_another_size_are_resized_and_it_is_said(tmp_path: Path) -> None:
    dataset = read(_saved(tmp_path, SMALL), image_size=16)
    assert dataset.splits[Split.VAL].images.shape == (16, 16, 16, 3)
    assert "val: 16 image(s): resized to 16x16." in dataset.notes


def test_one_array_without_splits_is_split_or_left_whole(tmp_path: Path) -> None:
    arrays = {"images": SMALL["train_images"], "labels": SMALL["train_labels"]}
    path = _saved(tmp_path, arrays)
    dataset = read(path)
    assert sum(len(part) for part in dataset.splits.values()) == 64
    whole = _as_found(path, collection="bloodmnist")
    assert not whole.is_split
    assert whole.splits[Split.TEST].ids == tuple(map(str, range(64)))


def test_train_alone_gives_val_and_test_to_training(tmp_path: Path) -> None:
    arrays = {k: v for k, v in SMALL.items() if k.startswith("train")}
    dataset = read(_saved(tmp_path, arrays))
    assert all(set(part.labels) == set(range(8)) for part in dataset.splits.values())
    assert sum(len(part) for part in dataset.splits.values()) == 64
    assert any("no val and test split" in note for note in dataset.notes)


def test_groups_and_names_in_the_file_are_kept(tmp_path: Path) -> None:
    arrays = {
        "images": SMALL["train_images"],
        "labels": SMALL["train_labels"],
        "groups": np.repeat(np.arange(8), 8),
        "names": np.array([f"x/{i}.png".encode() for i in range(64)]),
    }
    dataset = read(_saved(tmp_path, arrays))
    groups = [set(part.groups or ()) for part in dataset.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 8
    part = dataset.splits[Split.TRAIN]
    assert part.names is not None
    assert [f"x/{i}.png" for i in part.ids] == list(part.names)


def test_missing_truncated_and_foreign_files(tmp_path: Path, small_npz: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read(tmp_path / "none.npz")
    content = small_npz.read_bytes()
    for name, damaged in (("cut", content[: len(content) // 2]), ("text", b"hello"), ("nil", b"")):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is not a whole \.npz file"):
            read(path)


def test_a_flipped_byte_inside_the_pixels_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "flipped.npz"
    np.savez(path, allow_pickle=False, **SMALL)
    content = bytearray(path.read_bytes())
    content[5000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read(path)


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
        read(path)


def test_a_file_of_arrays_is_named_by_its_file(small_npz: Path) -> None:
    dataset = read(small_npz)
    assert dataset.title == "small.npz (.npz file)"
    assert dataset.kind == "other"
    assert dataset.splits[Split.VAL].ids[3] == "val/3"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (np.array([[str(i), n] for i, n in enumerate(BLOOD_CELLS.names)]), "expected one text"),
        (np.array([*BLOOD_CELLS.names[:7], "Neutrophils"]), "names one class twice: Neutrophils"),
        (np.array([*BLOOD_CELLS.names[:7], "ig"]), "names one class twice: ig"),
        (np.array([b"bas\xf3filo", *(n.encode() for n in BLOOD_CELLS.names[1:])]), "not UTF-8"),
    ],
)
def test_class_names_that_say_no_clear_classes_are_refused(
    tmp_path: Path, names: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _as_found(_saved(tmp_path, _with(class_names=names)(SMALL)))


def test_what_an_array_may_hide_is_said(tmp_path: Path) -> None:
    labels = {k: np.maximum(v, 1) for k, v in SMALL.items() if k.endswith("labels")}
    images = {
        k: np.concatenate([v, np.full((*v.shape[:3], 1), 200, np.uint8)], axis=3)
        for k, v in SMALL.items()
        if k.endswith("images")
    }
    names = {"class_names": np.array(BLOOD_CELLS.names), "holdout_images": IMAGES}
    notes = " ".join(_as_found(_saved(tmp_path, {**labels, **images, **names})).notes)
    assert "not used: holdout_images" in notes
    assert "No image has the label 0 (basophil)" in notes
    count = sum(len(v) for v in images.values())
    assert f"{count} image(s): transparent parts are shown on white" in notes


def test_names_in_one_text_are_refused_and_labels_from_1_are_noted(tmp_path: Path) -> None:
    one = {"images": IMAGES, "class_names": np.array("a,b")}
    with pytest.raises(DataError, match=r"class_names has shape \(\)"):
        _as_found(_saved(tmp_path, {**one, "labels": np.zeros(len(IMAGES), dtype=np.int64)}))
    few = {"images": IMAGES, "class_names": np.array(BLOOD_CELLS.names)}
    notes = _as_found(_saved(tmp_path, {**few, "labels": 1 + np.arange(len(IMAGES)) % 5})).notes
    assert "No image has the label 0 (basophil)" in " ".join(notes)


def test_names_asked_for_in_another_order_than_the_files_are_refused(tmp_path: Path) -> None:
    names = tuple("abcdefgh")
    path = _saved(tmp_path, {**SMALL, "class_names": np.array(names[::-1])})
    assert _as_found(path).classes.names == names[::-1]
    with pytest.raises(DataError, match=r"class_names.*h, g, f.*`classes` says a, b, c"):
        _as_found(path, classes=names)
    numbered = _saved(tmp_path, {**SMALL, "class_names": np.arange(8)})
    assert _as_found(numbered, classes=names).classes.names == names


def test_images_in_fortrans_order_are_read_one_by_one(tmp_path: Path) -> None:
    path = _saved(tmp_path, {"images": np.asfortranarray(IMAGES), "labels": LABELS})
    for (name, image), expected in zip(npz.rows_of(path), IMAGES, strict=True):
        assert name.isdecimal()
        assert np.array_equal(image, expected)
