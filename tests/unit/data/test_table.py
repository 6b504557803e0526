"""Tables of images as spreadsheets, scripts and laboratories write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from conftest import read, save_cells
from hemascope.core.classes import Split
from hemascope.core.errors import DataError, UsageError
from hemascope.core.images import Dataset, concatenate
from hemascope.data import load
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings

NAMES = ("ig", "neutrophil")


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """24 files `0.png` to `23.png`, an `ig` and a `neutrophil` in turn."""
    return save_cells(tmp_path, {"": 24})


def _rows(*columns: str) -> list[list[str]]:
    """A header and 24 rows; each column is made from the number of the row."""
    make = {
        "path": lambda i: f"{i}.png",
        "image_id": lambda i: f"{i}",
        "label": lambda i: NAMES[i % 2],
        "split": lambda i: ("train", "TRAIN", "valid", "Test")[i // 6],
        "group": lambda i: f"p{i // 3}",
        "laboratory": lambda i: "north" if i < 12 else "south",
        "weight": lambda i: f"{i / 2}",
    }
    rows = [[make.get(c, lambda _: "x")(i) for c in columns] for i in range(24)]
    return [list(columns), *rows]


def _write(folder: Path, rows: list[list[str]], *, sep: str = ",", encoding: str = "utf-8") -> Path:
    path = folder / "cells.csv"
    text = "\r\n".join(sep.join(row) for row in rows)
    path.write_bytes(text.encode(encoding))
    return path


def _as_found(path: Path, **options: Any) -> Dataset:
    settings = DataSettings(sources=(str(path),), **options)
    return load(Request(settings, as_found=True))


@pytest.mark.parametrize(
    ("sep", "encoding"),
    [(",", "utf-8"), (",", "utf-8-sig"), (";", "utf-8-sig"), ("\t", "utf-16"), (";", "cp1252")],
)
def test_separators_and_byte_order_marks(cells: Path, sep: str, encoding: str) -> None:
    dataset = _as_found(_write(cells, _rows("path", "label"), sep=sep, encoding=encoding))
    part = dataset.splits[Split.TEST]
    assert not dataset.is_split
    assert len(part) == 24
    assert dataset.classes.names == ("immature granulocyte", "neutrophil")
    for image_id, label in zip(part.ids, part.labels, strict=True):
        assert int(image_id.removesuffix(".png")) % 2 == label


@pytest.mark.parametrize("column", ["path", "image_id", "filename", "file", " Image_ID "])
def test_columns_of_files_by_their_usual_names(cells: Path, column: str) -> None:
    rows = _rows("path", "label")
    rows[0][0] = column
    assert len(_as_found(_write(cells, rows)).splits[Split.TEST]) == 24


def test_a_parquet_file_is_read_like_a_csv_file(cells: Path) -> None:
    rows = _rows("image_id", "label", "group", "weight")
    columns = dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))
    table: dict[str, Any] = {**columns, "weight": [float(v) for v in columns["weight"]], "age": 1.5}
    table["age"] = [1.5] * 24
    path = cells / "cells.parquet"
    parquet.write_table(pa.table(table), path)
    theirs, ours = _as_found(_write(cells, rows)), _as_found(path)
    assert ours.md5 == theirs.md5
    mine, yours = ours.splits[Split.TEST], theirs.splits[Split.TEST]
    assert mine.groups == yours.groups
    np.testing.assert_array_equal(mine.filled_weights, yours.filled_weights)
    assert "Columns that were not used: age." in ours.notes
    parquet.write_table(pa.table({**table, "label": [float("nan"), *[1.0] * 23]}), path)
    with pytest.raises(DataError, match=r"1 row\(s\) have no label \(row 2\)"):
        _as_found(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        _as_found(path)


def test_what_the_columns_say_is_kept(cells: Path) -> None:
    columns = ("path", "label", "split", "group", "laboratory", "weight")
    dataset = read(_write(cells, _rows(*columns)))
    assert dataset.is_split
    assert {split: len(part) for split, part in dataset.splits.items()} == {
        Split.TRAIN: 12,
        Split.VAL: 6,
        Split.TEST: 6,
    }
    for part in dataset.splits.values():
        assert part.groups is not None
        assert part.laboratories is not None
        assert part.weights is not None
        of_each = zip(part.ids, part.groups, part.laboratories, part.weights, strict=True)
        for image_id, group, laboratory, weight in of_each:
            i = int(image_id.removesuffix(".png"))
            assert group == f"{laboratory}/p{i // 3}"
            assert laboratory == ("north" if i < 12 else "south")
            assert weight == i / 2


def test_groups_of_a_table_count_without_an_option(cells: Path) -> None:
    dataset = read(_write(cells, _rows("path", "label", "group")))
    groups = [set(part.groups or ()) for part in dataset.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 8
    assert any("the 8 groups were kept apart" in note for note in dataset.notes)


def test_a_group_in_two_given_splits_is_named(cells: Path) -> None:
    rows = _rows("path", "label", "split", "group")
    rows[1][3] = "p7"  # train, where p7 is test
    with pytest.raises(DataError, match=r"1 group\(s\).*p7 \(train and test\)"):
        read(_write(cells, rows))


def test_columns_that_are_not_known_are_named_once(cells: Path) -> None:
    dataset = _as_found(_write(cells, _rows("path", "label", "age", "stain")))
    assert dataset.notes.count("Columns that were not used: age, stain.") == 1


@pytest.mark.parametrize(
    ("columns", "has"),
    [(("path", "class"), "path, class"), (("label", "url"), "label, url"), ((), "no rows")],
)
def test_without_the_columns_needed_those_it_has_are_said(
    cells: Path, columns: tuple[str, ...], has: str
) -> None:
    rows = _rows(*columns) if columns else [["path", "label"]]
    with pytest.raises(DataError, match=rf"needs a column 'label'.*it has {has}"):
        read(_write(cells, rows))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "", r"1 row\(s\) have no label \(row 6\)"),
        ("split", "", r"1 row\(s\) have no split \(row 6\)"),
        ("group", " ", r"1 row\(s\) have no group \(row 6\)"),
        ("laboratory", "", r"1 row\(s\) have no laboratory \(row 6\)"),
        ("split", "holdout", r"row 6 has the split 'holdout'; expected train, val or test"),
        ("weight", "heavy", r"row 6 has the weight 'heavy'; expected a number from 0"),
        ("weight", "-1", r"row 6 has the weight '-1'"),
        ("weight", "nan", r"row 6 has the weight 'nan'"),
        ("path", "3.png", r"1 row\(s\) name a file that an earlier row names \(row 6\)"),
        ("path", "./3.png", r"an earlier row names \(row 6\)"),
        ("path", "none.png", r"1 row\(s\) name a file that is not there: row 6 \(none.png\)"),
        ("path", "", r"not there: row 6 \(empty\)"),
        ("label", "ig,more", r"1 row\(s\) have more cells than the header \(row 6\)"),
    ],
)
def test_wrong_rows_are_named(cells: Path, column: str, value: str, message: str) -> None:
    rows = _rows("path", "label", "split", "group", "laboratory", "weight")
    rows[5][rows[0].index(column)] = value
    with pytest.raises(DataError, match=message) as error:
        read(_write(cells, rows))
    assert "cells.csv" in str(error.value)


def test_missing_files_are_all_counted_and_can_be_left_out(cells: Path) -> None:
    for i in range(7):
        (cells / f"{i}.png").unlink()
    path = _write(cells, _rows("path", "label"))
    with pytest.raises(DataError, match=r"7 row\(s\).*row 6 \(4\.png\) and 2 more.*`skip_bad`"):
        read(path)
    dataset = read(path, skip_bad=True)
    assert sum(len(part) for part in dataset.splits.values()) == 17
    assert len(dataset.bad) == 7
    assert any("left out" in note for note in dataset.notes)


def test_damaged_files_of_a_table_are_listed(cells: Path) -> None:
    (cells / "3.png").write_bytes(b"not an image")
    path = _write(cells, _rows("path", "label"))
    with pytest.raises(DataError, match=r"1 damaged file\(s\): .*3\.png"):
        read(path)
    assert [Path(bad.path).name for bad in read(path, skip_bad=True).bad] == ["3.png"]


def test_an_id_without_suffix_finds_its_file(cells: Path) -> None:
    (cells / "0.png").rename(cells / "0.PNG")
    (cells / "1.png").rename(cells / "1.25.png")
    rows = _rows("image_id", "label")
    rows[2][0] = "1.25"
    part = _as_found(_write(cells, rows)).splits[Split.TEST]
    assert {"0", "1.25", "2"} < set(part.ids)


def test_an_id_without_suffix_that_two_images_have_is_refused(cells: Path) -> None:
    """Such as a photograph and its mask."""
    for i in range(24):
        (cells / f"{i}.png").rename(cells / f"{i}.tif" if i % 2 else cells / f"{i}.PNG")
    (cells / "7.png").write_bytes((cells / "0.PNG").read_bytes())
    table = _write(cells, _rows("image_id", "label"))
    with pytest.raises(DataError, match=r"1 row\(s\) name no suffix.*\(row 9\); write the suffix"):
        _as_found(table)
    (cells / "7.png").unlink()
    assert len(_as_found(table).splits[Split.TEST]) == 24


def test_paths_of_another_system_absolute_paths_and_odd_names(cells: Path) -> None:
    save_cells(cells, {"Zellen süß": 1})
    rows = _rows("path", "label")
    rows += [["Zellen süß\\0.png", "ig"], [str(cells / "1.png"), "ig"]]
    del rows[2]  # 1.png, now by its whole path
    part = _as_found(_write(cells, rows)).splits[Split.TEST]
    assert len(part) == len(set(part.ids)) == 25


@pytest.mark.parametrize("spelled", ["{}", "{}.0"])
def test_numbers_are_labels_of_the_classes_asked_for(cells: Path, spelled: str) -> None:
    rows = _rows("path", "label")
    for i, row in enumerate(rows[1:]):
        row[1] = spelled.format(i % 3)
    path = _write(cells, rows)
    assert read(path).classes.names == ("0", "1", "2")
    dataset = read(path, classes=("c", "b", "a"))
    assert dataset.classes.names == ("c", "b", "a")
    whole = concatenate(list(dataset.splits.values()))
    assert [int(i.removesuffix(".png")) % 3 for i in whole.ids] == whole.labels.tolist()
    with pytest.raises(DataError, match="holds the label 2, but there are 2 class names"):
        read(path, classes=("a", "b"))


def test_folders_of_the_paths_can_be_groups(cells: Path) -> None:
    rows = [["path", "label"]]
    for patient in "abcd":
        save_cells(cells / patient, {"": 4})
        rows += [[f"{patient}/{i}.png", NAMES[i % 2]] for i in range(4)]
    dataset = read(_write(cells, rows), group_from="folder")
    assert {g for part in dataset.splits.values() for g in part.groups or ()} == set("abcd")


def test_a_folder_of_a_class_is_part_of_no_group(cells: Path) -> None:
    """CLASS/PATIENT/image: a patient's cells of two classes are one group."""
    rows = [["path", "label"]]
    for name in NAMES:
        for patient in "abcd":
            save_cells(cells / name / patient, {"": 2})
            rows += [[f"{name}/{patient}/{i}.png", name] for i in range(2)]
    dataset = read(_write(cells, rows), group_from="folder")
    assert {g for part in dataset.splits.values() for g in part.groups or ()} == set("abcd")
    loose = [["path", "label"]]
    for name in NAMES:
        save_cells(cells / name.title(), {"": 2})
        loose += [[f"{name.title()}/{i}.png", name] for i in range(2)]
    with pytest.raises(UsageError, match="finds no folder for any of 4 images"):
        _as_found(_write(cells, loose), group_from="folder")


def test_a_column_of_groups_is_not_overridden(cells: Path) -> None:
    path = _write(cells, _rows("path", "label", "group", "laboratory"))
    dataset = _as_found(path, group_from=r"^(.)")
    [part] = dataset.splits.values()
    assert len(set(part.groups or ())) == 8
    assert any(note.startswith("`group_from` is not used") for note in dataset.notes)


def test_tables_that_are_none(cells: Path) -> None:
    path = cells / "cells.csv"
    path.write_bytes("path,label\n0.png,größe\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not a table in UTF-8"):
        read(path)
    path.write_text("path,label,Label\n0.png,a,b\n")
    with pytest.raises(DataError, match="two columns of one name"):
        read(path)
    path.write_text("")
    with pytest.raises(DataError, match="it has no rows"):
        read(path)


@pytest.mark.parametrize("nothing", ["NA", "#N/A", "<NA>", "-"])
def test_what_programs_write_for_nothing_is_no_class_and_no_group(
    cells: Path, nothing: str
) -> None:
    for column in (1, 2):
        rows = _rows("path", "label", "group")
        rows[3][column] = nothing
        with pytest.raises(DataError, match=f"have no {rows[0][column]} .row 4"):
            read(_write(cells, rows))


def test_numbers_from_1_are_noted_even_where_classes_are_missing(cells: Path) -> None:
    rows = _rows("path", "label")
    for i, row in enumerate(rows[1:]):
        row[1] = str(1 + i % 5)
    assert "No image has the label 0 (basophil)" in " ".join(
        _as_found(_write(cells, rows), collection="bloodmnist").notes
    )


def test_a_quote_that_is_not_closed_takes_in_no_other_row(cells: Path) -> None:
    rows = _rows("path", "label")
    rows[5][1] = '"ig'
    with pytest.raises(DataError, match=r"line 25 cannot be read .* quotes"):
        read(_write(cells, rows))


def test_spaces_after_separators_and_marks_without_width_change_no_label(cells: Path) -> None:
    rows = [[path, f' "{label}"'] for path, label in _rows("path", "label")]
    rows[7][1] = " " + NAMES[0] + chr(0x200B)
    assert _as_found(_write(cells, rows)).classes.names == ("immature granulocyte", "neutrophil")


def test_old_line_ends_unnamed_columns_and_separators_in_other_columns(cells: Path) -> None:
    path = _write(cells, [[*row, "", ""] for row in _rows("path", "label")])
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r"))
    assert not [note for note in _as_found(path).notes if "not used" in note]
    rows = [[str(i), *row] for i, row in enumerate(_rows("path", "label"))]
    found = _as_found(_write(cells, [["", *rows[0][1:]], *rows[1:]]))
    assert "Columns that were not used: (unnamed)." in found.notes
    rows = _rows("path", "label", "notes, free, text, all")
    assert sum(map(len, _as_found(_write(cells, rows, sep=";")).splits.values())) == 24


def test_one_file_named_by_two_paths_is_named_twice(cells: Path) -> None:
    rows = _rows("path", "label")
    rows[2][0] = f"../{cells.name}/0.png"
    with pytest.raises(DataError, match=r"name a file that an earlier row names .row 3"):
        read(_write(cells, rows))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"Label": pa.array(["x"] * 24)}, "two columns of one name"),
        ({"label": pa.array([[1, 0]] * 24)}, "the column 'label' holds lists"),
        ({"label": pa.array([b"\xff"] * 24)}, "holds bytes that are not UTF-8"),
    ],
)
def test_parquet_that_no_label_can_be_read_from(cells: Path, more: Any, said: str) -> None:
    rows = _rows("path", "label")[1:]
    columns = {"path": [row[0] for row in rows], "label": [row[1] for row in rows]}
    parquet.write_table(pa.table({**columns, **more}), cells / "cells.parquet")
    with pytest.raises(DataError, match=said):
        read(cells / "cells.parquet")


def test_bytes_in_parquet_are_texts(cells: Path) -> None:
    rows = _rows("path", "label")[1:]
    columns = {"path": [row[0] for row in rows], "label": [row[1].encode() for row in rows]}
    parquet.write_table(pa.table(columns), cells / "cells.parquet")
    names = _as_found(cells / "cells.parquet").classes.names
    assert names == ("immature granulocyte", "neutrophil")


def test_marks_without_width_make_no_group_of_their_own(cells: Path) -> None:
    rows = _rows("path", "label", "group")
    for row in rows[2::2]:
        row[2] += chr(0x200B)
    groups = [part.groups or () for part in _as_found(_write(cells, rows)).splits.values()]
    assert {group for own in groups for group in own} == {f"p{i}" for i in range(8)}
