from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import small_arrays
from hemascope.core.classes import BLOOD_CELLS, Split
from hemascope.core.errors import DataError
from hemascope.data import load
from hemascope.data.folder import read_folder


def _write(folder: Path, name: str, *, size: int = 28, mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = Image.fromarray(small_arrays()["train_images"][0])
    pixels.resize((size, size)).convert(mode).save(folder / name)


def _cells(
    root: Path, *, per_class: int = 10, classes: tuple[str, ...] = ("ig", "Neutrophil")
) -> Path:
    for name in classes:
        for i in range(per_class):
            _write(root / name, f"{i}.png")
    return root


def test_blood_cell_folders_get_medmnist_s_labels(tmp_path: Path) -> None:
    dataset = read_folder(_cells(tmp_path), image_size=28)
    assert dataset.classes == BLOOD_CELLS
    assert set(dataset.splits[Split.TRAIN].labels) == {3, 6}


def test_other_folders_get_their_sorted_names(tmp_path: Path) -> None:
    dataset = read_folder(_cells(tmp_path, classes=("blast", "artifact")), image_size=28)
    assert dataset.classes.names == ("artifact", "blast")


def test_the_split_is_7_1_2_in_each_class_disjoint_and_repeatable(tmp_path: Path) -> None:
    _cells(tmp_path)
    first, again = (read_folder(tmp_path, image_size=28) for _ in range(2))
    sizes = {
        split: np.bincount(part.labels)[[3, 6]].tolist() for split, part in first.splits.items()
    }
    assert sizes == {Split.TRAIN: [7, 7], Split.VAL: [1, 1], Split.TEST: [2, 2]}
    ids = [image_id for part in first.splits.values() for image_id in part.ids]
    assert len(set(ids)) == 20
    assert first.md5 == again.md5


def test_split_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for split in Split:
        _cells(tmp_path / split, per_class=2)
    dataset = read_folder(tmp_path, image_size=28)
    assert sorted(dataset.splits[Split.VAL].ids) == [
        "val/Neutrophil/0.png",
        "val/Neutrophil/1.png",
        "val/ig/0.png",
        "val/ig/1.png",
    ]


def test_classes_are_mixed_so_that_batches_in_file_order_are_too(tmp_path: Path) -> None:
    labels = read_folder(_cells(tmp_path, per_class=50), image_size=28).splits[Split.TRAIN].labels
    assert (np.diff(labels) != 0).sum() > 20


def test_without_a_split_every_image_is_there_even_of_a_class_of_one(tmp_path: Path) -> None:
    _cells(tmp_path)
    _write(tmp_path / "basophil", "only.png")
    dataset = read_folder(tmp_path, image_size=28, split="one")
    assert len(dataset.splits[Split.TEST]) == 21
    assert dataset.class_counts(Split.TEST)["basophil"] == 1


def test_what_was_changed_is_counted_and_said(tmp_path: Path) -> None:
    _cells(tmp_path)
    _write(tmp_path / "ig", "big.png", size=100)
    _write(tmp_path / "ig", "gray.png", mode="L")
    (tmp_path / "ig" / "notes.txt").write_text("x")
    dataset = load(str(tmp_path))
    assert dataset.notes[:3] == (
        "1 image(s) were cropped to a square and resized to 28x28. BloodMNIST's own were made "
        "from the central 200 of 360 pixels: its cells look larger, and a network trained on them "
        "fails on these.",
        "1 image(s) were converted to RGB.",
        "1 file(s) that are not images were passed over.",
    )


def test_the_center_of_an_oblong_image_is_kept(tmp_path: Path) -> None:
    pixels = np.zeros((28, 84, 3), np.uint8)
    pixels[:, 28:56] = 200
    (tmp_path / "a").mkdir()
    for i in range(3):
        Image.fromarray(pixels).save(tmp_path / "a" / f"{i}.png")
    dataset = read_folder(tmp_path, image_size=28)
    assert (dataset.splits[Split.TRAIN].images == 200).all()


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    _cells(tmp_path)
    (tmp_path / "ig" / "bad.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"ig/bad\.png cannot be read"):
        read_folder(tmp_path, image_size=28)
    whole = (tmp_path / "ig" / "0.png").read_bytes()
    (tmp_path / "ig" / "bad.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"ig/bad\.png cannot be read"):
        read_folder(tmp_path, image_size=28)


def test_pixels_of_more_than_8_bits_are_refused_not_clipped_to_white(tmp_path: Path) -> None:
    _cells(tmp_path)
    Image.fromarray(np.full((28, 28), 30_000, np.uint16)).save(tmp_path / "ig" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png.*not 8 bits"):
        read_folder(tmp_path, image_size=28)


def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    _cells(tmp_path)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "ig" / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png"):
        read_folder(tmp_path, image_size=28)


def test_empty_small_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read_folder(tmp_path / "none", image_size=28)
    with pytest.raises(DataError, match="has no class folders"):
        read_folder(tmp_path, image_size=28)
    (tmp_path / "ig").mkdir()
    with pytest.raises(DataError, match="ig has no image"):
        read_folder(tmp_path, image_size=28)
    _write(tmp_path / "ig", "0.png")
    with pytest.raises(DataError, match=r"'immature granulocyte' has 1 image"):
        read_folder(tmp_path, image_size=28)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="has split folders but no val, test"):
        read_folder(tmp_path, image_size=28)
