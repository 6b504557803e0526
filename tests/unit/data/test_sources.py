"""One source or several: what their labels mean together, and what is told apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import save_cells, save_npz, small_arrays
from hemascope.core.classes import Split
from hemascope.core.errors import DataError, UsageError
from hemascope.core.images import Dataset, concatenate
from hemascope.data import check_sources, load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings


def _load(*sources: Path, as_found: bool = True, **options: Any) -> Dataset:
    settings = DataSettings(sources=tuple(map(str, sources)), **options)
    return load(Request(settings, as_found=as_found))


def _counts(dataset: Dataset) -> dict[str, int]:
    whole = concatenate(list(dataset.splits.values()))
    counts = np.bincount(whole.labels, minlength=len(dataset.classes))
    return dict(zip(dataset.classes.names, counts.tolist(), strict=True))


def _table(folder: Path, name: str, **columns: list[str]) -> Path:
    rows = [",".join(row) for row in zip(*columns.values(), strict=True)]
    (folder / name).write_text("\n".join([",".join(columns), *rows]))
    return folder / name


def test_names_in_other_spellings_are_one_class(tmp_path: Path) -> None:
    dataset = _load(
        save_cells(tmp_path / "a", {"IG": 2, "Neutrophils": 3}),
        save_cells(tmp_path / "b", {"immature-granulocyte": 4, "neutrophil": 5, "NRBC": 1}),
    )
    assert _counts(dataset) == {"erythroblast": 1, "immature granulocyte": 6, "neutrophil": 8}


def test_other_classes_are_joined_by_name_not_by_number(tmp_path: Path) -> None:
    dataset = _load(
        save_cells(tmp_path / "a", {"Blast": 2, "smudge cell": 3, "artifact": 1}),
        save_cells(tmp_path / "b", {"smudge_cells": 4, "blast": 5}),
    )
    assert _counts(dataset) == {"Blast": 7, "artifact": 1, "smudge cell": 7}


def test_classes_that_cannot_be_reconciled_are_both_listed(tmp_path: Path) -> None:
    sources = (
        save_cells(tmp_path / "a", {"blast": 2, "lymphocyte": 3}),
        save_cells(tmp_path / "b", {"blast": 2, "lympho": 5}),
    )
    with pytest.raises(DataError, match="cannot be reconciled") as error:
        _load(*sources)
    said = str(error.value)
    assert "blast, lymphocyte against blast, lympho" in said
    assert "in question: lympho." in said
    assert "`map`" in said
    assert _counts(_load(*sources, map={"lympho": "lymphocyte"})) == {"blast": 4, "lymphocyte": 8}


def test_a_map_renames_joins_and_leaves_out(tmp_path: Path) -> None:
    source = save_cells(tmp_path / "a", {"band": 2, "segmented": 3, "smudge": 4, "platelet": 5})
    mapping = {"Band": "neutrophil", "segmented": "neutrophil", "smudge": ""}
    dataset = _load(source, map=mapping)
    assert _counts(dataset) == {"neutrophil": 5, "platelet": 5}
    assert "4 image(s) of classes that are not wanted were left out." in dataset.notes
    both = save_cells(tmp_path / "b", {"band": 2, "Bands": 3, "platelet": 5})
    assert _counts(_load(both, map={"band": ""})) == {"platelet": 5}
    assert _counts(_load(both, map={"bands": "stab"})) == {"platelet": 5, "stab": 5}
    exact = _load(both, map={"band": "", "Bands": "stab"})
    assert _counts(exact) == {"platelet": 5, "stab": 3}
    with pytest.raises(UsageError, match=r"no class 'smuge'; did you mean 'smudge'\?") as error:
        _load(source, map={"smuge": ""})
    assert error.value.field == "map"
    with pytest.raises(UsageError, match="leaves all images out"):
        _load(source, map=dict.fromkeys(("band", "segmented", "smudge", "platelet"), ""))


def test_classes_that_are_asked_for_have_their_order(tmp_path: Path) -> None:
    source = save_cells(tmp_path / "a", {"ig": 2, "platelet": 3})
    dataset = _load(source, classes=("platelet", "immature granulocyte", "monocyte"))
    assert _counts(dataset) == {"platelet": 3, "immature granulocyte": 2, "monocyte": 0}
    with pytest.raises(DataError, match=r"asked for are platelet, monocyte; in question: ig"):
        _load(source, classes=("platelet", "monocyte"))
    assert _load(source, collection="bloodmnist").classes == BLOOD_CELLS
    with pytest.raises(DataError, match=r"'bloodmnst'; did you mean 'bloodmnist'\?"):
        _load(source, collection="bloodmnst")


def test_classes_that_a_model_does_not_know_are_named(tmp_path: Path) -> None:
    settings = DataSettings(sources=(str(save_cells(tmp_path / "a", {"blast": 2, "ig": 2})),))
    with pytest.raises(DataError, match=r"the model knows basophil, .*in question: blast\..*`map`"):
        load(Request(settings, classes=BLOOD_CELLS, as_found=True))


def test_images_of_several_sources_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_cells(tmp_path / name / "cells", {"ig": 6, "platelet": 6})
    dataset = _load(tmp_path / "a" / "cells", tmp_path / "b" / "cells", as_found=False)
    whole = concatenate(list(dataset.splits.values()))
    assert len(set(whole.ids)) == len(whole) == 24
    assert set(whole.laboratories or ()) == {str(tmp_path / name / "cells") for name in "ab"}
    assert dataset.md5_of == "pixels"
    assert dataset.title == "cells (folder of images) + cells (folder of images)"


def test_what_only_one_source_says_is_filled_in(tmp_path: Path) -> None:
    cells = save_cells(tmp_path / "a", {"": 12})
    columns = {
        "path": [f"{i}.png" for i in range(12)],
        "label": ["ig", "platelet"] * 6,
        "group": [f"p{i // 2}" for i in range(12)],
        "weight": ["2"] * 12,
        "laboratory": ["north"] * 12,
    }
    table = _table(cells, "cells.csv", **columns)
    dataset = _load(table, save_cells(tmp_path / "b", {"ig": 3, "platelet": 3}))
    whole = concatenate(list(dataset.splits.values()))
    assert whole.groups is not None
    assert len(set(whole.groups)) == 6 + 6
    assert sorted(whole.filled_weights.tolist()) == [1] * 6 + [2] * 12
    assert set(whole.laboratories or ()) == {"north", "b"}
    assert any("b has no groups" in note for note in dataset.notes)


def test_folders_and_arrays_are_joined(tmp_path: Path) -> None:
    save_npz(tmp_path / "x.npz", {**small_arrays(), "class_names": np.array(BLOOD_CELLS.names)})
    folder = save_cells(tmp_path / "b", {"ig": 8, "platelet": 8})
    dataset = _load(tmp_path / "x.npz", folder, as_found=False)
    assert dataset.classes == BLOOD_CELLS
    assert sum(len(part) for part in dataset.splits.values()) == 64 + 16 + 24 + 16
    assert any("images without a split were split 7:1:2" in note for note in dataset.notes)


def test_images_of_different_sizes_are_refused_until_one_is_asked_for(tmp_path: Path) -> None:
    small = np.zeros((8, 16, 16, 3), np.uint8)
    names = np.array(BLOOD_CELLS.names)
    save_npz(tmp_path / "s.npz", {"images": small, "labels": np.arange(8), "class_names": names})
    folder = save_cells(tmp_path / "b", {"ig": 2, "platelet": 2})
    with pytest.raises(DataError, match=r"s\.npz: 16, .*b: 28.*`image_size`"):
        _load(tmp_path / "s.npz", folder)
    assert _load(tmp_path / "s.npz", folder, image_size=20).image_size == 20


def test_photographs_of_different_sizes_leave_nothing_to_guess_by_and_it_is_said(
    tmp_path: Path,
) -> None:
    folders = [
        save_cells(tmp_path / name, {"ig": 2, "platelet": 2}, size=size)
        for name, size in (("a", 40), ("b", 42), ("c", 60))
    ]
    near, far = _load(*folders[:2]), _load(*folders)
    assert near.spec.photo_size == 40
    assert far.spec.photo_size == 0
    said = "The photographs of the sources are of different sizes (40, 42, 60 pixels"
    assert not any(said in note for note in near.notes)
    assert any(said in note for note in far.notes)
    recipe = _load(*folders, collection="bloodmnist")
    assert recipe.spec.photo_size == 360


def test_one_place_named_twice_is_refused(tmp_path: Path) -> None:
    first, second = (save_cells(tmp_path / name, {"ig": 1}) for name in "ab")
    with pytest.raises(DataError, match=rf"{second} is named twice"):
        check_sources([str(first), str(second), str(second)])
    with pytest.raises(DataError, match="is named twice"):
        check_sources([str(first), f"{tmp_path}/b/../a"])
    check_sources([str(first), str(second)])
    with pytest.raises(DataError, match=rf"{first}/ig lies inside {first}, so its images would"):
        check_sources([f"{first}/ig", str(second), str(first)])


def test_images_without_a_split_beside_others_are_test_and_it_is_said(tmp_path: Path) -> None:
    given = tmp_path / "given"
    for split in Split:
        save_cells(given / split, {"ig": 2, "platelet": 2})
    dataset = _load(given, save_cells(tmp_path / "loose", {"ig": 3, "platelet": 4}))
    assert [len(dataset.splits[split]) for split in Split] == [4, 4, 11]
    assert "The 7 images of loose (folder of images) have no split: here they are test." in (
        dataset.notes
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bloodmnst", "did you mean 'bloodmnist'"),
        ("none.npz", r"there is no file or folder none\.npz"),
        ("some/where", "there is no file or folder some/where"),
        ("", "it is empty"),
    ],
)
def test_a_source_that_is_nothing(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load(Request(DataSettings(sources=(source,))))
    assert error.value.field == "data"


@pytest.mark.parametrize("name", ["cell.jpg", "labels.txt", "data.h5", "noext"])
def test_a_file_of_another_kind_is_refused_and_the_kinds_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"{name} is not a kind of file.*\.npz.*\.parquet"):
        _load(tmp_path / name)


def test_more_images_than_memory_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise MemoryError

    source = save_cells(tmp_path / "a", {"ig": 2})
    monkeypatch.setattr("hemascope.data.source.np.zeros", full)
    with pytest.raises(DataError, match=r"2 images of 512x512 pixels do not fit.*`image_size`"):
        _load(source, image_size=512)


def test_val_alone_is_read_where_it_alone_is_wanted(tmp_path: Path) -> None:
    save_npz(tmp_path / "x.npz", {k: v for k, v in small_arrays().items() if "val" in k})
    settings = DataSettings(sources=(str(tmp_path / "x.npz"),), collection="bloodmnist")
    assert set(load(Request(settings, wanted=Split.VAL)).splits) == {Split.VAL}
    with pytest.raises(DataError, match="there is a val split and no train split"):
        load(Request(settings, wanted=Split.TEST))
