"""Reads a table of images: a CSV or Parquet file with a column of paths and a column of labels."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from math import isfinite, nan
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import category

from hemascope.core.classes import split_named
from hemascope.core.errors import DataError
from hemascope.core.images import BadFile
from hemascope.data.collections import with_aliases
from hemascope.data.groups import grouped
from hemascope.data.pictures import SUFFIXES
from hemascope.data.source import (
    Record,
    Request,
    Source,
    check_labels,
    no_zero,
    read_records,
    with_bad,
)

TABLES = (".csv", ".tsv", ".parquet")
_PATHS = ("path", "image_id", "filename", "file")
_FILLED = ("label", "split", "group", "laboratory")  # in every row, or in none
_COLUMNS = (*_PATHS, *_FILLED, "weight")
SUGGESTED = ("predicted_class", "confidence", "thumbnail")  # what `hemascope adapt --suggest` adds
# What programs write where nothing is known.
_NOTHING = ("", "nan", "none", "null", "n/a", "na", "#n/a", "<na>", "nat", "?", "-")
_DELIMITERS = ",;\t"
_NAMED = 5  # of wrong rows, in a sentence

Row = Mapping[str, str]


def read_table(path: Path, request: Request) -> Source:
    """Reads the images that a table names; paths are relative to the table's folder.

    One column is `path`, `image_id`, `filename` or `file`, one is `label`; `split`, `group`,
    `laboratory` and `weight` are read where they are there.

    Raises:
        DataError: If a column is missing, files are not there, or a label, split or weight is
            empty or wrong; the rows are named.
        UsageError: If no group can be found in a file's name.
    """
    rows = _rows(path)
    columns = list(rows[0]) if rows else []
    path_column = next((name for name in _PATHS if name in columns), None)
    if path_column is None or "label" not in columns:
        raise DataError(
            f"{path} needs a column 'label' and one of {', '.join(_PATHS)}; it has "
            f"{', '.join(columns) or 'no rows'}."
        )
    rows = [{k: v if k == path_column else _visible(v) for k, v in row.items()} for row in rows]
    notes: list[str] = []
    used = (path_column, *_COLUMNS[len(_PATHS) :])
    ignored = [name for name in columns if name and name not in used]
    if any(row.get("") for row in rows):  # such as the index that pandas writes
        ignored.append("(unnamed)")
    if set(SUGGESTED) <= set(ignored):
        ignored = [name for name in ignored if name not in SUGGESTED]
        notes.append(
            "These cells were suggested for labeling because a model was in doubt of them: figures "
            "on them tend to be worse than on the laboratory's other cells."
        )
    if ignored:
        notes.append(f"Columns that were not used: {', '.join(ignored)}.")
    files, missing = _files(path, [row[path_column] for row in rows], request)
    there = {number: rows[number - 2] for number in files}
    for column in [name for name in _FILLED if name in columns]:
        empty = [n for n, row in there.items() if row[column].casefold() in _NOTHING]
        if column == "label" or len(empty) < len(there):
            _refuse(path, empty, f"have no {column}", "fill them in, or delete the rows")
    labels, numbered = _labels([row["label"] for row in there.values()], request, path)
    notes += numbered
    records = [
        _record(f"{path}: row {number}", row, path_column, files[number], label)
        for (number, row), label in zip(there.items(), labels, strict=True)
    ]
    if request.settings.group_from and any(record.group for record in records):
        notes.append("`group_from` is not used: the column group says what images come from.")
    elif request.settings.group_from:
        folders = [
            "" if with_aliases((row["label"],)).index(folder) == 0 else folder  # of a class
            for row in there.values()
            for folder in [PurePosixPath(row[path_column]).parent.name]
        ]
        records, more = grouped(records, folders, request.settings.group_from)
        records = [
            replace(record, group=f"{record.laboratory}/{record.group}")
            if record.laboratory and record.group != record.id
            else record
            for record in records
        ]
        notes += more
    title = f"{path.name} (table of images)"
    source = read_records(records, request, title=title, path=str(path), notes=notes)
    return with_bad(source, missing)


def is_table(path: Path) -> bool:
    """Whether a file calls itself a table."""
    return path.suffix.lower() in TABLES


def looks_like_table(path: Path) -> bool:
    """Whether a file is a table of images: its first row names the columns that one needs."""
    return bool(labels_of(path))


def labels_of(path: Path) -> set[str]:
    """The labels of a table of images; none of a file that is not one."""
    try:
        rows = _rows(path)
    except DataError:
        return set()
    return {row["label"] for row in rows} if rows and _has_needed(rows[0]) else set()


def _rows(path: Path) -> list[Row]:
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def _read_csv(path: Path) -> list[Row]:
    try:
        content = path.read_bytes()
        is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        # spreadsheets write a byte-order mark
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
        if "\0" in text:
            raise UnicodeError("it holds zero bytes")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeError as error:
        raise DataError(f"{path} is not a table in UTF-8 ({error}); save it again so.") from error
    if told := re.match(r'"?sep=(.)"?[\r\n]+', text):  # by spreadsheets, for spreadsheets
        text = text[told.end() :]
    first = next(iter(text.lstrip().splitlines()), "")
    delimiter = max(_DELIMITERS, key=lambda one: (_has_needed(first.split(one)), first.count(one)))
    # `strict`, or a quote that is not closed would take in the rows after it.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    try:
        table = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num} cannot be read ({error}); see whether its quotes, or "
            "those above it, are closed."
        ) from error
    if not table:
        return []
    header = [name.strip().casefold() for name in table[0]]
    _check_columns(path, header)
    if _has_needed(header):
        _refuse(
            path,
            [n for n, row in enumerate(table[1:], 2) if len(row) > len(header)],
            "have more cells than the header",
            "put cells that hold the separator in quotes",
        )
    return [dict(zip_longest(header, map(str.strip, row), fillvalue="")) for row in table[1:]]


def _has_needed(header: Iterable[str]) -> bool:
    """Whether these columns, or what they may be without quotes, are all that a table needs."""
    names = {name.strip(' "').casefold() for name in header}
    return "label" in names and not names.isdisjoint(_PATHS)


def _check_columns(path: Path, names: Sequence[str]) -> None:
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise DataError(f"{path} has two columns of one name; its columns are {', '.join(named)}.")


def _read_parquet(path: Path) -> list[Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise DataError(
            f"{path}: Parquet needs pyarrow; run pip install 'hemascope[parquet]', or save the "
            "table as CSV."
        ) from error
    try:
        columns = parquet.read_schema(path).names
        table = parquet.read_table(path, columns=[c for c in columns if c.casefold() in _COLUMNS])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a whole Parquet file ({error}).") from error
    _check_columns(path, [name.casefold() for name in columns])
    empty = {name.casefold(): "" for name in columns}
    return [
        {**empty, **{k.casefold(): _text(v, k, path) for k, v in row.items()}}
        for row in table.to_pylist()
    ]


def _text(value: Any, column: str, path: Path) -> str:
    """A cell of a Parquet file."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            why = f"{path}: the column '{column}' holds bytes that are not UTF-8"
            raise DataError(f"{why}; save it as texts.") from error
    if isinstance(value, list | dict):
        raise DataError(f"{path}: the column '{column}' holds lists; expected texts or numbers.")
    return "" if value is None or value != value else str(value).strip()


def _files(
    path: Path, names: Sequence[str], request: Request
) -> tuple[dict[int, Path], list[BadFile]]:
    """The file of each row, by the row's number in the table (the header is row 1), and the rest.

    Raises:
        DataError: If files are not there and not to be left out, or rows name the same one.
    """
    found: dict[int, Path] = {}
    missing: list[BadFile] = []
    suffixes = [variant for suffix in sorted(SUFFIXES) for variant in (suffix, suffix.upper())]
    stems = cache(_stems)
    several: list[int] = []
    for number, name in enumerate(names, 2):
        if name and (file := _file(path.parent, name, suffixes)):
            found[number] = file
            is_named = file.name == PurePosixPath(name.replace("\\", "/")).name
            if not is_named and stems(file.parent)[file.stem] > 1:
                several.append(number)
        else:
            missing.append(BadFile(f"row {number} ({name or 'empty'})", "no such file"))
    _refuse(path, several, "name no suffix, and several images are called so", "write the suffix")
    seen: dict[str, int] = {}
    again = [n for n, file in found.items() if seen.setdefault(os.path.normpath(file), n) != n]
    _refuse(path, again, "name a file that an earlier row names", "keep one row for each file")
    if missing and not (request.settings.skip_bad and found):
        listed = ", ".join(bad.path for bad in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise DataError(
            f"{path}: {len(missing):,} row(s) name a file that is not there: {listed}{more}; "
            "correct the paths, which are relative to the table's folder, or leave the rows out by "
            "`skip_bad`."
        )
    return found, missing


def _file(folder: Path, name: str, suffixes: list[str]) -> Path | None:
    """The file that a table names, with or without its suffix, its path as on any system."""
    for one in (name, name.replace("\\", "/")):
        for suffix in ("", *suffixes):
            if (file := folder / f"{one}{suffix}").is_file():
                if suffix:  # most likely that of the next row too
                    suffixes.remove(suffix)
                    suffixes.insert(0, suffix)
                return file
    return None


def _stems(folder: Path) -> Counter[str]:
    """How many images of a folder have a name, but for their suffixes."""
    return Counter(file.stem for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def _visible(cell: str) -> str:
    """Without what cells copied from a page hold: a class or a group would become two."""
    return "".join(c for c in cell if category(c) != "Cf")


def _labels(labels: Sequence[str], request: Request, path: Path) -> tuple[Sequence[str], list[str]]:
    """Labels that are numbers as the names that the request gives these; else as they are.

    Returns:
        The names, and notes.

    Raises:
        DataError: If there are fewer names.
    """
    names = request.named.names if request.named else ()
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return labels, []
    if not all(number.is_integer() for number in numbers) or set(labels) <= set(names):
        return labels, []
    if not names:
        return [label.removesuffix(".0") for label in labels], []
    check_labels(numbers, len(names), path)
    return [names[int(number)] for number in numbers], no_zero(numbers, names)


def _record(where: str, row: Row, path_column: str, file: Path, label: str) -> Record:
    named = row.get("split")
    split = split_named(named) if named else None
    if named and not split:
        raise DataError(f"{where} has the split '{named}'; expected train, val or test.")
    weight = _number(row["weight"]) if "weight" in row else None
    if weight is not None and not (isfinite(weight) and weight >= 0):
        raise DataError(f"{where} has the weight '{row['weight']}'; expected a number from 0.")
    laboratory, group = row.get("laboratory"), row.get("group")
    if group and laboratory:
        group = f"{laboratory}/{group}"  # two laboratories may both have a slide 1
    name = Path(row[path_column]).as_posix()
    return Record(name, file, label, split, group, laboratory, weight)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return nan


def _refuse(path: Path, rows: Iterable[int], what: str, remedy: str = "fill them in") -> None:
    if numbers := list(rows):
        more = " and more" if len(numbers) > _NAMED else ""
        listed = ", ".join(map(str, numbers[:_NAMED]))
        raise DataError(f"{path}: {len(numbers):,} row(s) {what} (row {listed}{more}); {remedy}.")
