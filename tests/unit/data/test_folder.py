"""Class folders as people have them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from conftest import read, save_cells
from hemascope.core.classes import Split
from hemascope.core.errors import DataError, UsageError
from hemascope.core.images import Dataset
from hemascope.data import load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings

TWO = {"ig": 10, "Neutrophil": 10}


def _as_found(folder: Path, **options: object) -> Dataset:
    settings = DataSettings.model_validate({"sources": (str(folder),), **options})
    return load(Request(settings, as_found=True))


def _ids(dataset: Dataset) -> set[str]:
    return {image_id for part in dataset.splits.values() for image_id in part.ids}


def test_names_of_some_of_bloodmnist_s_classes_are_a_problem_of_those_alone(tmp_path: Path) -> None:
    dataset = read(save_cells(tmp_path, TWO))
    assert dataset.classes.names == ("immature granulocyte", "neutrophil")
    assert set(dataset.splits[Split.TRAIN].labels) == {0, 1}
    assert "ig → immature granulocyte" in " ".join(dataset.notes)


def test_read_for_a_model_that_knows_more_they_have_its_labels(tmp_path: Path) -> None:
    settings = DataSettings(sources=(str(save_cells(tmp_path, TWO)),))
    dataset = load(Request(settings, classes=BLOOD_CELLS, as_found=True))
    assert dataset.classes == BLOOD_CELLS
    assert dataset.class_counts(Split.TEST)["immature granulocyte"] == 10
    assert dataset.class_counts(Split.TEST)["basophil"] == 0


def test_other_folders_get_their_sorted_names(tmp_path: Path) -> None:
    assert read(save_cells(tmp_path, {"blast": 4, "artifact": 4})).classes.names == (
        "artifact",
        "blast",
    )


def test_every_image_has_the_label_of_its_folder(tmp_path: Path) -> None:
    dataset = read(save_cells(tmp_path, {"platelet": 5, "basophil": 5, "ig": 5}))
    for part in dataset.splits.values():
        for image_id, label in zip(part.ids, part.labels, strict=True):
            assert BLOOD_CELLS.index(image_id.split("/")[0]) == BLOOD_CELLS.index(
                dataset.classes.names[label]
            )


def test_the_split_is_7_1_2_in_each_class_disjoint_and_repeatable(tmp_path: Path) -> None:
    first, again = (read(save_cells(tmp_path, TWO)) for _ in range(2))
    sizes = {split: np.bincount(part.labels).tolist() for split, part in first.splits.items()}
    assert sizes == {Split.TRAIN: [7, 7], Split.VAL: [1, 1], Split.TEST: [2, 2]}
    assert sum(len(part) for part in first.splits.values()) == len(_ids(first)) == 20
    assert first.md5 == again.md5


def test_classes_are_mixed_so_that_batches_in_file_order_are_too(tmp_path: Path) -> None:
    dataset = read(save_cells(tmp_path, {"ig": 50, "neutrophil": 50}))
    assert (np.diff(dataset.splits[Split.TRAIN].labels) != 0).sum() > 20


def test_without_a_split_every_image_is_there_even_of_a_class_of_one(tmp_path: Path) -> None:
    dataset = _as_found(save_cells(tmp_path, {**TWO, "basophil": 1}))
    assert not dataset.is_split
    assert len(dataset.splits[Split.TEST]) == 21
    assert dataset.class_counts(Split.TEST)["basophil"] == 1


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("TRAIN", "Valid", "Test"), ("training", "dev", "testing")]
)
def test_split_folders_are_taken_as_they_are_in_any_spelling(
    names: tuple[str, str, str], tmp_path: Path
) -> None:
    for count, name in zip((4, 2, 3), names, strict=True):
        save_cells(tmp_path / name, {"ig": count, "neutrophil": count})
    dataset = read(tmp_path)
    assert [len(dataset.splits[split]) for split in Split] == [8, 4, 6]
    assert sorted(dataset.splits[Split.VAL].ids)[0] == f"{names[1]}/ig/0.png"


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        save_cells(tmp_path / name, {"ig": 2})
    with pytest.raises(DataError, match="several folders for one split"):
        read(tmp_path)


def test_a_missing_val_is_taken_out_of_train_and_said(tmp_path: Path) -> None:
    save_cells(tmp_path / "train", {"ig": 20, "neutrophil": 20})
    save_cells(tmp_path / "test", {"ig": 3, "neutrophil": 3})
    dataset = read(tmp_path)
    assert len(dataset.splits[Split.TEST]) == 6
    assert len(dataset.splits[Split.TRAIN]) + len(dataset.splits[Split.VAL]) == 40
    assert set(dataset.splits[Split.VAL].labels) == {0, 1}
    assert any("no val split: taken out of train" in note for note in dataset.notes)


def test_test_alone_can_be_evaluated_and_not_trained_on(tmp_path: Path) -> None:
    save_cells(tmp_path / "test", TWO)
    assert len(_as_found(tmp_path).splits[Split.TEST]) == 20
    with pytest.raises(DataError, match="no train split"):
        read(tmp_path)


def test_a_class_that_test_lacks_has_no_images_there(tmp_path: Path) -> None:
    for split in Split:
        save_cells(tmp_path / split, {"ig": 3, "neutrophil": 3, "basophil": 3})
    shutil.rmtree(tmp_path / "test" / "basophil")
    dataset = read(tmp_path)
    assert dataset.classes.names == ("basophil", "immature granulocyte", "neutrophil")
    assert dataset.class_counts(Split.TEST)["basophil"] == 0


def test_a_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    for split in Split:
        save_cells(tmp_path / split, {"ig": 3, "neutrophil": 3})
    save_cells(tmp_path / "val", {"basophil": 1})
    with pytest.raises(DataError, match=r"train has no image of the class 'basophil', which val"):
        read(tmp_path)


def test_system_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO)
    (tmp_path / "ig" / "._0.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (tmp_path / "ig" / "Thumbs.db").write_bytes(b"x")
    save_cells(tmp_path / "__MACOSX", {"ig": 1})
    save_cells(tmp_path / "@eaDir", {"ig": 1})
    dataset = _as_found(tmp_path)
    assert len(_ids(dataset)) == 20
    assert dataset.classes.names == ("immature granulocyte", "neutrophil")
    assert "2 hidden or system file(s) were passed over." in dataset.notes


def test_pictures_are_known_by_content_and_others_are_named(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO)
    (tmp_path / "ig" / "0.png").rename(tmp_path / "ig" / "0.jfif")
    (tmp_path / "ig" / "1.png").rename(tmp_path / "ig" / "one")
    for i in range(5):
        (tmp_path / "ig" / f"notes{i}.txt").write_text("x")
    dataset = _as_found(tmp_path)
    assert {"ig/0.jfif", "ig/one"} < _ids(dataset)
    assert (
        "5 file(s) that are not images were passed over (notes0.txt, notes1.txt, notes2.txt, ...)."
        in dataset.notes
    )


def test_folders_inside_class_folders_are_read_and_can_be_groups(tmp_path: Path) -> None:
    for patient in "abcd":
        save_cells(tmp_path / "ig" / patient, {"": 3})
        save_cells(tmp_path / "neutrophil" / patient, {"": 3})
    save_cells(tmp_path / "neutrophil", {"": 2})
    plain = _as_found(tmp_path)
    assert len(_ids(plain)) == 26
    assert any("24 image(s)" in n and "`group_from` folder" in n for n in plain.notes)
    dataset = read(tmp_path, group_from="folder")
    groups = {split: set(part.groups or ()) for split, part in dataset.splits.items()}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values()))
    assert "`group_from`" not in " ".join(dataset.notes)
    assert "2 image(s) lie in no folder of a group: each is its own." in dataset.notes


def test_folders_of_groups_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("ig", "neutrophil"):
        save_cells(tmp_path / name, {"": 5})
    with pytest.raises(UsageError, match="finds no folder for any of 10 images") as error:
        read(tmp_path, group_from="folder")
    assert error.value.field == "group_from"


def test_groups_are_found_in_file_names(tmp_path: Path) -> None:
    for name in ("ig", "neutrophil"):
        save_cells(tmp_path / name, {"": 20}, name="p{0}_cell.png".format)
    dataset = _as_found(tmp_path, group_from=r"^p(\d)")
    assert set(dataset.splits[Split.TEST].groups or ()) == set("0123456789")
    with pytest.raises(UsageError, match=r"finds nothing in 40 of 40 file names") as error:
        read(tmp_path, group_from="patient")
    assert error.value.field == "group_from"
    with pytest.raises(UsageError, match="is not a regular expression"):
        read(tmp_path, group_from="(")
    for optional in (r"^p(\d\d)?_", "x*"):  # matches, and finds nothing
        with pytest.raises(UsageError, match="finds nothing"):
            read(tmp_path, group_from=optional)


def test_a_patient_s_folder_is_one_group_in_every_class(tmp_path: Path) -> None:
    for name in ("ig", "neutrophil"):
        for patient in ("p1", "p2", "p3", "p4"):
            save_cells(tmp_path / name / patient, {"": 3})
    dataset = read(tmp_path, group_from="folder")
    assert {g for part in dataset.splits.values() for g in part.groups or ()} == {
        *("p1", "p2", "p3", "p4")
    }


def test_an_empty_class_folder_and_loose_files_are_said(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO)
    (tmp_path / "basophil").mkdir()
    save_cells(tmp_path, {"": 1}, name="loose{0}.png".format)
    dataset = read(tmp_path)
    assert "basophil" not in dataset.classes.names
    said = " ".join(dataset.notes)
    assert "The class folder basophil has no image." in said
    assert "1 file(s) that are not in a class folder were passed over" in said
    assert "loose0.png" in said


def test_a_single_folder_around_the_class_folders_is_looked_into(tmp_path: Path) -> None:
    save_cells(tmp_path / "My dätä" / "cells", TWO)
    dataset = read(tmp_path)
    assert dataset.classes.names == ("immature granulocyte", "neutrophil")
    assert f"The class folders are in {Path('My dätä') / 'cells'}." in dataset.notes


def test_a_single_class_with_a_single_patient_is_not_looked_into(tmp_path: Path) -> None:
    dataset = _as_found(save_cells(tmp_path, {"platelet/p1": 4}))
    assert dataset.class_counts(Split.TEST) == {"platelet": 4}


def test_a_folder_of_one_class_is_that_class(tmp_path: Path) -> None:
    dataset = _as_found(save_cells(tmp_path, {"platelet": 4}))
    assert dataset.class_counts(Split.TEST) == {"platelet": 4}


def test_links_to_files_are_read_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    save_cells(tmp_path / "cells", TWO)
    (tmp_path / "cells" / "ig" / "link.png").symlink_to(tmp_path / "cells" / "ig" / "0.png")
    (tmp_path / "cells" / "ig" / "loop").symlink_to(tmp_path / "cells")
    assert len(_ids(_as_found(tmp_path / "cells"))) == 21


def test_linked_class_folders_are_read(tmp_path: Path) -> None:
    save_cells(tmp_path / "elsewhere", TWO)
    (tmp_path / "cells").mkdir()
    for name in TWO:
        (tmp_path / "cells" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert len(_ids(_as_found(tmp_path / "cells"))) == 20


def test_all_damaged_files_are_named_at_once_or_left_out_and_listed(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO)
    whole = (tmp_path / "ig" / "0.png").read_bytes()
    (tmp_path / "ig" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "Neutrophil" / "empty.jpg").touch()
    (tmp_path / "Neutrophil" / "text.png").write_text("not an image")
    names = ("cut.png", "empty.jpg", "text.png")
    with pytest.raises(DataError, match=r"3 damaged file\(s\)") as error:
        read(tmp_path)
    assert all(name in str(error.value) for name in (*names, "`skip_bad`"))
    dataset = read(tmp_path, skip_bad=True)
    assert len(_ids(dataset)) == 20
    assert sorted(Path(bad.path).name for bad in dataset.bad) == sorted(names)
    assert all(bad.reason for bad in dataset.bad)
    assert any("3 damaged file(s)" in note for note in dataset.notes)


def test_a_class_of_damaged_files_alone_is_not_a_class(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO)
    (tmp_path / "basophil").mkdir()
    (tmp_path / "basophil" / "empty.png").touch()
    assert read(tmp_path, skip_bad=True).classes.names == ("immature granulocyte", "neutrophil")


def test_nothing_but_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "ig").mkdir()
    (tmp_path / "ig" / "empty.png").touch()
    with pytest.raises(DataError, match="no image that can be read"):
        read(tmp_path, skip_bad=True)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not hold here")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO)
    locked = tmp_path / "ig" / "locked"
    locked.mkdir(mode=0)
    try:
        with pytest.raises(DataError, match=r"locked.*cannot be read"):
            read(tmp_path)
    finally:
        locked.chmod(0o700)


def test_the_same_file_twice_is_two_images(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO)
    shutil.copy(tmp_path / "ig" / "0.png", tmp_path / "ig" / "copy.png")
    part = _as_found(tmp_path).splits[Split.TEST]
    assert len(part) == 21
    assert len(np.unique(part.hashes)) == 20


def test_pictures_of_another_size_become_images_as_the_options_say(tmp_path: Path) -> None:
    save_cells(tmp_path, TWO, size=56)
    dataset = read(tmp_path, image_size=16, crop=0.5)
    assert dataset.splits[Split.TRAIN].images.shape[1:] == (16, 16, 3)
    assert (dataset.spec.size, dataset.spec.crop, dataset.spec.photo_size) == (16, 0.5, 56)
    assert "20 image(s): cropped to 50 % of the middle and resized to 16x16." in dataset.notes


def test_labeled_fields_are_counted(tmp_path: Path) -> None:
    """A model sets them apart; a label takes what is in their middle for a cell."""
    single, field = ((300, 300), 100), ((640, 480), 60)
    for i, (size, diameter) in enumerate([*[single] * 12, field]):
        picture = Image.new("RGB", size, (238, 230, 226))
        middle = (size[0] - 150, size[1] - 150)
        ImageDraw.Draw(picture).circle(middle, diameter / 2, fill=(105, 60, 150))
        (tmp_path / "ig").mkdir(exist_ok=True)
        picture.save(tmp_path / "ig" / f"{i}.png")
    notes = " ".join(_as_found(tmp_path, frame="auto").notes)
    assert "1 image(s): a whole field or sheet: its middle is taken as a cell" in notes
    assert "a whole field" not in " ".join(_as_found(tmp_path, frame="cell").notes)


def test_empty_and_small_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match="has no class folders"):
        read(tmp_path)
    (tmp_path / "ig").mkdir()
    with pytest.raises(DataError, match="has no class folders with images"):
        read(tmp_path)
    save_cells(tmp_path, {"ig": 1})
    with pytest.raises(DataError, match=r"immature granulocyte \(1 image\(s\)\).*`skip_rare`"):
        read(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="has no class folders with images"):
        read(tmp_path)


def test_one_class_in_several_spellings_is_one_class(tmp_path: Path) -> None:
    counts = {"Blast": 4, "blasts ": 4, "e\u0301rythroblaste": 4, "\u00e9rythroblaste": 4}
    dataset = _as_found(save_cells(tmp_path, counts))
    assert len(dataset.classes) == 2
    assert "Class names read as" in " ".join(dataset.notes)
    assert sum(dataset.class_counts(Split.TEST).values()) == 16


@pytest.mark.parametrize("outer", [("part_a", "part_b"), ("patient0", "patient1")])
def test_folders_of_class_folders_are_not_classes(tmp_path: Path, outer: tuple[str, str]) -> None:
    for name in outer:
        save_cells(tmp_path / name, {"lymphocyte": 3, "neutrophil": 3})
    with pytest.raises(DataError, match=r"would each be a class.*lymphocyte, neutrophil"):
        _as_found(tmp_path)


def test_split_folders_inside_class_folders_are_splits(tmp_path: Path) -> None:
    for name in ("blast", "neutrophil"):
        save_cells(tmp_path / name, {"train": 4, "valid": 2, "test": 3})
    dataset = read(tmp_path)
    assert {split: len(part) for split, part in dataset.splits.items()} == {
        Split.TRAIN: 8,
        Split.VAL: 4,
        Split.TEST: 6,
    }
    assert any("splits are folders inside" in note for note in dataset.notes)


def test_images_beside_the_split_folders_of_their_class_are_refused(tmp_path: Path) -> None:
    folder = save_cells(
        tmp_path, {f"{name}/{part}": 4 for name in TWO for part in ("Train", "Test")}
    )
    (folder / "ig" / "Train" / "0.png").rename(folder / "ig" / "loose.png")
    with pytest.raises(DataError, match=r"1 image\(s\) are in none of these, such as ig/loose.png"):
        read(folder)
    groups = [part.groups for part in _as_found(folder, group_from="folder").splits.values()]
    assert {"ig/loose.png", "Test", "Train"} == {
        Path(g).as_posix() for of in groups for g in of or ()
    }


def test_split_folders_may_be_called_sets(tmp_path: Path) -> None:
    names = ("train_set", "ValidationData", "Test Set")
    folder = save_cells(tmp_path, {f"{part}/{name}": 4 for name in TWO for part in names})
    assert {split: len(part) for split, part in read(folder).splits.items()} == {
        Split.TRAIN: 8,
        Split.VAL: 8,
        Split.TEST: 8,
    }


def test_folders_that_a_table_beside_them_knows_better_are_refused(tmp_path: Path) -> None:
    folder = save_cells(tmp_path, {"images": 4})
    table = folder / "labels.csv"
    table.write_text("path,label\n" + "".join(f"images/{i}.png,{i}\n" for i in range(4)))
    with pytest.raises(DataError, match=r"holds the table labels.csv, .*images.* give the table"):
        _as_found(folder)
    save_cells(tmp_path, TWO)
    table.write_text("path,label\n" + "".join(f"ig/{i}.png,ig\n" for i in range(4)))
    assert len(_as_found(folder).classes) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = save_cells(tmp_path, TWO)
    os.mkfifo(folder / "ig" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png .not a file"):
        read(folder)


def test_two_names_of_one_folder_are_refused(tmp_path: Path) -> None:
    for top in ("classes", "splits/train"):
        save_cells(tmp_path / top, TWO)
    (tmp_path / "classes" / "Basophils").symlink_to(tmp_path / "classes" / "ig")
    (tmp_path / "splits" / "test").symlink_to(tmp_path / "splits" / "train")
    for folder, said in (("classes", "Basophils and ig"), ("splits", "test/.* and train/")):
        with pytest.raises(DataError, match=said):
            _as_found(tmp_path / folder)


def test_folders_that_name_no_class_beside_a_table_are_refused(tmp_path: Path) -> None:
    save_cells(tmp_path, {"images": 4, "masks": 4})
    (tmp_path / "labels.csv").write_text("Image,Category\nx.png,ig\n")
    with pytest.raises(DataError, match=r"images, masks, which name no class, and .*labels.csv"):
        _as_found(tmp_path)
