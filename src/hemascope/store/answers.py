"""Answers in a file, row by row: CSV, JSON Lines or Parquet, and what an interrupted one holds."""

import csv
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from hemascope.core.answers import Answer
from hemascope.core.errors import DataError, UsageError
from hemascope.store.files import explained, on_one_line, written_whole

Format = Literal["csv", "jsonl", "parquet"]
Cell = str | float | bool | Sequence[str] | None
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_FIXED = ("path", "predicted_class", "confidence", "prediction_set", "abstain", "error")
_PROB, _LAST = "prob:", ("note", "warning", "distance")
_TEXTS = ("path", "predicted_class", "error", "note", "warning")
_DIGITS = 6
_JOINT = "|"  # between the classes of a prediction set in CSV
_ROWS_AT_ONCE = 10_000  # of a Parquet row group


def format_of(out: Path) -> Format:
    """Which format a file's name asks for.

    Raises:
        UsageError: If none, or one that needs a library that is not there.
    """
    if out.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"the name {out} must end in {', '.join(_SUFFIXES)}.", field="out")
    chosen = _SUFFIXES[out.suffix.lower()]
    if chosen == "parquet" and find_spec("pyarrow") is None:
        raise UsageError(
            f"{out} is Parquet, which needs pyarrow; run pip install 'hemascope[parquet]', or "
            "write .csv or .jsonl.",
            field="out",
        )
    return chosen


@dataclass(frozen=True)
class Row:
    """An answer about one photograph, as the files hold it.

    `confidence`, `distance` and the probabilities are rounded, and None where there is an error;
    the other fields are those of `Answer`.
    """

    path: str
    predicted_class: str
    confidence: float | None
    prediction_set: Sequence[str]
    abstain: bool
    error: str
    probs: Mapping[str, float | None]
    note: str
    warning: str
    distance: float | None

    def cells(self) -> dict[str, Cell]:
        """The values by the names of the columns, in order."""
        fixed: dict[str, Cell] = {name: getattr(self, name) for name in _FIXED}
        probs = {f"{_PROB}{name}": prob for name, prob in self.probs.items()}
        return {**fixed, **probs, **{name: getattr(self, name) for name in _LAST}}


def row_of(path: str, answer: Answer, class_names: Sequence[str]) -> Row:
    """The row of an answer."""
    failed = bool(answer.error)
    return Row(
        path=path,
        predicted_class=answer.predicted_class,
        confidence=None if failed else round(answer.confidence, _DIGITS),
        prediction_set=answer.prediction_set,
        abstain=answer.abstain,
        error=answer.error,
        probs=dict.fromkeys(class_names)
        if failed
        else {
            name: round(prob, _DIGITS) for name, prob in zip(class_names, answer.probs, strict=True)
        },
        note=answer.note,
        warning=answer.warning,
        distance=None if answer.distance is None else round(answer.distance, _DIGITS),
    )


class Journal:
    """Rows as they come, a line of JSON each, in a file that outlives an interruption.

    Args:
        path: The file; rows are added to those that it holds.
        on_row: Told of each row that it holds.

    Attributes:
        path: The file.
        num_done: How many rows it held when it was opened.

    Raises:
        DataError: If it holds something else.
        OutputError: If it cannot be written.
    """

    def __init__(self, path: Path, on_row: Callable[[Row], None] = lambda _row: None) -> None:
        self.path = path
        hashes, whole, self._last = array("Q"), 0, 0
        if path.exists():
            self._last = path.stat().st_mtime_ns
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # cut off while it was written
                    row = _parsed(line, path)
                    hashes.append(_hash(row.path))
                    on_row(row)
                    whole += len(line)
        self.num_done = len(hashes)
        self._done, self._left = np.unique(
            np.frombuffer(hashes, dtype=np.uint64), return_counts=True
        )
        with explained(path):
            self._file = path.open("ab")
            self._file.truncate(whole)

    def take(self, path: str) -> bool:
        """Whether it held a row of this photograph when it was opened, that was not yet taken.

        A photograph that is given twice has two rows. 16 bytes a row are kept.
        """
        place = np.searchsorted(self._done, value := np.uint64(_hash(path)))
        if place == len(self._done) or self._done[place] != value or not self._left[place]:
            return False
        self._left[place] -= 1
        return True

    @property
    def num_left(self) -> int:
        """How many of the rows that it held are of photographs that were not taken."""
        return int(self._left.sum())

    def is_older_than(self, file: Path) -> bool:
        """Whether a file was changed after the last row that was there when it was opened."""
        try:
            return file.stat().st_mtime_ns > self._last
        except OSError:  # not a file of this machine
            return False

    def add(self, rows: Iterable[Row]) -> None:
        """Adds rows.

        Raises:
            OutputError: If they cannot be written.
        """
        text = "".join(json.dumps(row.cells()) + "\n" for row in rows)
        with explained(self.path):
            self._file.write(text.encode())
            self._file.flush()

    def close(self) -> None:
        """Ends writing; the file stays."""
        self._file.close()

    def leave(self) -> bool:
        """Ends writing before all is done; the file stays if it holds rows, and whether it does."""
        with suppress(OSError):  # of a full disk, which has been told of
            self.close()
        if holds := self.path.stat().st_size > 0:
            return holds
        self.path.unlink()
        return False

    def finish(
        self, out: Path, how: Format, columns: Sequence[str], *, by_confidence: bool = False
    ) -> None:
        """Ends writing, makes the file asked for of all rows, and takes the journal away.

        Args:
            out: The file.
            how: Its format.
            columns: Of `columns_of`.
            by_confidence: Whether the least confident answers come first, after errors.

        Raises:
            OutputError: If it cannot be written; the journal is then still there.
        """
        self.close()
        with written_whole(out) as file:
            WRITERS[how](self._rows(by_confidence=by_confidence), file, columns)
        self.path.unlink()

    def _rows(self, *, by_confidence: bool) -> Iterator[Row]:
        with self.path.open("rb") as file:
            if not by_confidence:
                yield from (_parsed(line, self.path) for line in file)
                return
            places, keys = array("Q"), array("d")
            while line := file.readline():
                places.append(file.tell() - len(line))
                keys.append(confidence_of(_parsed(line, self.path)))
            for place in np.argsort(keys, kind="stable"):
                file.seek(places[place])
                yield _parsed(file.readline(), self.path)


def confidence_of(row: Row) -> float:
    """What rows are sorted by: photographs that could not be read come first."""
    return -1.0 if row.confidence is None else row.confidence


def columns_of(class_names: Sequence[str]) -> list[str]:
    """The columns of every format, in order."""
    return [*_FIXED, *(f"{_PROB}{name}" for name in class_names), *_LAST]


def _write_csv(rows: Iterable[Row], file: IO[bytes], columns: Sequence[str]) -> None:
    """Writes rows as CSV to a binary file, which stays open."""
    text = TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = row.cells()
        cells |= {
            "prediction_set": _JOINT.join(row.prediction_set),
            "abstain": str(row.abstain).lower(),
        }
        writer.writerow({name: on_one_line(value) for name, value in cells.items()})
    text.flush()
    text.detach()  # the file is its owner's to close


def _write_jsonl(rows: Iterable[Row], file: IO[bytes], columns: Sequence[str]) -> None:
    del columns
    for row in rows:
        file.write(json.dumps(row.cells()).encode() + b"\n")


def _write_parquet(rows: Iterable[Row], file: IO[bytes], columns: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    kinds = {"prediction_set": pa.list_(pa.string()), "abstain": pa.bool_()}
    fields = [(c, kinds.get(c, pa.string() if c in _TEXTS else pa.float64())) for c in columns]
    schema = pa.schema(fields)
    remaining = iter(rows)
    with ParquetWriter(file, schema) as writer:
        while part := [row.cells() for row in islice(remaining, _ROWS_AT_ONCE)]:
            for cells in part:
                for text in _TEXTS:
                    cells[text] = str(cells[text]).encode(errors="backslashreplace").decode()
            writer.write_table(pa.Table.from_pylist(part, schema))


WRITERS: dict[Format, Callable[[Iterable[Row], IO[bytes], Sequence[str]], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}


def read_parquet(file: IO[bytes]) -> Iterator[Row]:
    """The rows of a Parquet file that was written here."""
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
        yield from map(_row, batch.to_pylist())


def _row(cells: Any) -> Row:
    fixed = {name: cells[name] for name in (*_FIXED, *_LAST)}
    probs = {key.removeprefix(_PROB): cells[key] for key in cells if key.startswith(_PROB)}
    return Row(**fixed, probs=probs)


def _parsed(line: bytes, path: Path) -> Row:
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and start over.") from error
    if not isinstance(cells, dict) or not {*_FIXED, *_LAST} <= cells.keys():
        raise DataError(f"{path} does not hold answers; delete it and start over.")
    return _row(cells)


def _hash(path: str) -> int:
    content = path.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")
