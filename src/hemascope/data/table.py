"""Reads a table of images: a CSV or Parquet file with a column of paths and a column of labels."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path, PurePosixPath

from hemascope.core.classes import Split, split_named
from hemascope.core.errors import DataError
from hemascope.core.images import BadFile
from hemascope.data.collections import collection
from hemascope.data.groups import grouped
from hemascope.data.pictures import SUFFIXES
from hemascope.data.source import Record, Request, Source, read_records, with_bad

TABLES = (".csv", ".tsv", ".parquet")
_PATHS = ("path", "image_id", "filename", "file")
_FILLED = ("label", "split", "group", "laboratory")  # in every row, or in none
_OTHERS = (*_FILLED, "weight")
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
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    columns = list(rows[0]) if rows else []
    path_column = next((name for name in _PATHS if name in columns), None)
    if path_column is None or "label" not in columns:
        raise DataError(
            f"{path} needs a column 'label' and one of {', '.join(_PATHS)}; it has "
            f"{', '.join(columns) or 'no rows'}."
        )
    notes: list[str] = []
    if ignored := [name for name in columns if name not in (path_column, *_OTHERS)]:
        notes.append(f"Columns that were not used: {', '.join(ignored)}.")
    files, missing = _files(path, [row[path_column] for row in rows], request)
    records = [_record(path, number, rows[number - 2], file) for number, file in files.items()]
    for column in _FILLED:
        empty = [n for n in files if column in columns and not rows[n - 2][column]]
        if column == "label" or len(empty) < len(files):
            _refuse(path, empty, f"have no {column}")
    labels = _named([record.label for record in records], request, path)
    records = [replace(r, label=label) for r, label in zip(records, labels, strict=True)]
    if request.settings.group_from:
        parents = [PurePosixPath(record.id).parent for record in records]
        folders = [parent.as_posix() if parent.name else "" for parent in parents]
        records = grouped(records, folders, request.settings.group_from)
    title = f"{path.name} (table of images)"
    source = read_records(records, request, title=title, path=str(path), notes=notes)
    return with_bad(source, missing)


def is_table(path: Path) -> bool:
    """Whether a file calls itself a table."""
    return path.suffix.lower() in TABLES


def looks_like_table(path: Path) -> bool:
    """Whether a file is a table of images: its first row names the columns that one needs."""
    try:
        rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except DataError:
        return False
    columns = set(rows[0]) if rows else set[str]()
    return "label" in columns and bool(columns & set(_PATHS))


def _read_csv(path: Path) -> list[Row]:
    try:
        content = path.read_bytes()
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig")  # spreadsheets write a byte-order mark
        first = text.lstrip().partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first.count)
        reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        table = [row for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table in UTF-8 ({error}); save it again so.") from error
    if not table:
        return []
    header = [name.strip().casefold() for name in table[0]]
    if len(set(header)) < len(header):
        raise DataError(f"{path} has two columns of one name; its columns are {', '.join(header)}.")
    _refuse(
        path,
        [n for n, row in enumerate(table[1:], 2) if len(row) > len(header)],
        "have more cells than the header",
        "put cells that hold the separator in quotes",
    )
    padded = ([*row, *[""] * (len(header) - len(row))] for row in table[1:])
    return [dict(zip(header, map(str.strip, row), strict=True)) for row in padded]


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
        names = [*_PATHS, *_OTHERS]
        columns = parquet.read_schema(path).names
        table = parquet.read_table(path, columns=[c for c in columns if c.casefold() in names])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a whole Parquet file ({error}).") from error
    rows = table.to_pylist()
    others = {name.casefold(): "" for name in columns if name.casefold() not in names}
    return [
        {**{k.casefold(): "" if v is None or v != v else str(v) for k, v in row.items()}, **others}
        for row in rows
    ]


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
    for number, name in enumerate(names, 2):
        if name and (file := _file(path.parent, name, suffixes)):
            found[number] = file
        else:
            missing.append(BadFile(f"row {number} ({name or 'empty'})", "no such file"))
    seen: dict[Path, int] = {}
    again = [n for n, file in found.items() if seen.setdefault(file, n) != n]
    _refuse(path, again, "name a file that an earlier row names", "keep one row for each file")
    if missing and not (request.settings.skip_bad and found):
        listed = ", ".join(bad.path for bad in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise DataError(
            f"{path}: {len(missing):,} row(s) name a file that is not there: {listed}{more}; "
            "correct the paths, or leave the rows out by `skip_bad`."
        )
    return found, missing


def _file(folder: Path, name: str, suffixes: list[str]) -> Path | None:
    """The file that a table names, with or without its suffix, its path as on any system."""
    for one in dict.fromkeys((name, name.replace("\\", "/"))):
        for suffix in ("", *suffixes):
            if (file := folder / f"{one}{suffix}").is_file():
                if suffix:  # most likely that of the next row too
                    suffixes.remove(suffix)
                    suffixes.insert(0, suffix)
                return file
    return None


def _named(labels: Sequence[str], request: Request, path: Path) -> Sequence[str]:
    """Labels that are numbers as the names that the request gives these; else as they are.

    Raises:
        DataError: If there are fewer names.
    """
    asked = request.settings
    names = collection(asked.collection).classes if asked.collection else asked.classes
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return labels
    if not all(number.is_integer() for number in numbers) or set(labels) <= set(names):
        return labels
    if not names:
        return [label.removesuffix(".0") for label in labels]
    if min(numbers) < 0 or max(numbers) >= len(names):
        wrong = min(numbers) if min(numbers) < 0 else max(numbers)
        raise DataError(
            f"{path} holds the label {wrong:.0f}, but there are {len(names)} class names, for the "
            f"labels 0 to {len(names) - 1}."
        )
    return [names[int(number)] for number in numbers]


def _record(path: Path, number: int, row: Row, file: Path) -> Record:
    split: Split | None = None
    if named := row.get("split"):
        split = split_named(named)
        if split is None:
            raise DataError(
                f"{path}: row {number} has the split '{named}'; expected train, val or test."
            )
    weight: float | None = None
    if "weight" in row:
        try:
            weight = float(row["weight"])
        except ValueError:
            weight = float("nan")
        if not isfinite(weight) or weight < 0:
            raise DataError(
                f"{path}: row {number} has the weight '{row['weight']}'; expected a number from 0."
            )
    name = row[next(name for name in _PATHS if name in row)]
    laboratory = row.get("laboratory")
    group = row.get("group")
    if group and laboratory:
        group = f"{laboratory}/{group}"  # two laboratories may both have a slide 1
    return Record(Path(name).as_posix(), file, row["label"], split, group, laboratory, weight)


def _refuse(path: Path, rows: Iterable[int], what: str, remedy: str = "fill them in") -> None:
    if numbers := list(rows):
        more = " and more" if len(numbers) > _NAMED else ""
        listed = ", ".join(map(str, numbers[:_NAMED]))
        raise DataError(f"{path}: {len(numbers):,} row(s) {what} (row {listed}{more}); {remedy}.")
