"""What `predict` is given, one photograph at a time, from any kind of path.

Nothing is ever unpacked to disk, and nothing is held but the current picture: a folder may have
millions of files, and an archive may say what it likes.
"""

import glob
import io
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, BinaryIO, Literal, NoReturn, cast

from PIL import Image

from hemascope.core.errors import DataError, UsageError
from hemascope.data.archive import IS_ENCRYPTED, TAR, ZIP
from hemascope.data.npz import rows_of
from hemascope.data.pictures import (
    MAX_FILE_BYTES,
    NUM_PREFIX_BYTES,
    TOO_LARGE,
    BadPictureError,
    Picture,
    is_picture,
    read_picture,
    to_picture,
    unread,
)
from hemascope.data.remote import found_at, is_url, open_file
from hemascope.data.walk import PassedOver, count_files, has_picture_suffix, is_hidden, walk

STDIN = "-"
PART_SIZE = 4096  # pictures that one process answers before it is given others; more in archives
_PARQUET, _SHEETS = ".parquet", (".csv", ".tsv", ".xlsx", ".ods")
_COLUMNS = ("image", "bytes", "path", "image_id", "filename", "file")  # that may hold pictures
_ROWS_AT_ONCE, _BUFFER_BYTES = 64, 1 << 20  # of a Parquet file

_LOOKED_AT = 4096  # bytes of standard input
_NO_LIST = "holds zero bytes: neither an image that is read nor a list of paths, a line each"

Kind = Literal["image", "npz", "zip", "tar", "parquet"]
# A member's name, size and bytes once opened.
_Member = tuple[str, int, Callable[[], IO[bytes] | None]]


@dataclass(frozen=True, eq=False)
class Item:
    """One photograph, not yet decoded.

    Attributes:
        path: What it is called in results: a path, or `archive!/member`, or `file.npz!/test/12`.
        read: Gives it in RGB, or raises a `BadPictureError` or `OSError`; in any thread.
        num_bytes: What is held of it already.
    """

    path: str
    read: Callable[[], Picture]
    num_bytes: int = 0


@dataclass(frozen=True)
class Part:
    """Images that one process reads after one another.

    Attributes:
        files: Paths or URLs of images; or
        path: of one archive, array or Parquet file, and
        groups: the first row group of the latter, and the one after the last.
        num_images: How many images there are; None if that is not known.
    """

    files: tuple[str, ...] = ()
    path: str = ""
    groups: tuple[int, int] | None = None
    num_images: int | None = None

    @property
    def name(self) -> str:
        """What to call it."""
        return self.path or f"{self.files[0]} to {self.files[-1]}"

    def items(self, passed: PassedOver) -> Iterator[Item]:
        """The images in order; the same as those of `items`."""
        if self.path:
            yield from _of_container(self.path, _kind(self.path), passed, self.groups)
        yield from map(_of_file, self.files)


def check_inputs(paths: Sequence[str]) -> None:
    """Refuses early, before any work, what is not there.

    Raises:
        UsageError: If there is nothing at a path, no file has a pattern's form, or what reads it
            is not installed.
        UnreachableError: If a URL does not answer.
    """
    for path in paths:
        kind = _kind(path)
        if kind == "parquet" and find_spec("pyarrow") is None:
            raise UsageError(f"{path} needs pyarrow: run pip install 'hemascope[parquet]'.")
        if Path(path).suffix.lower() in _SHEETS and Path(path).is_file():
            raise UsageError(
                f"{path} is a table, not an image; give the images or their folder, or their paths "
                "on standard input by -."
            )
        if kind == "npz" and is_url(path):
            raise UsageError(f"{path}: an .npz file is read on this machine only; copy it.")
        if path != STDIN and not os.path.lexists(path) and not _matches(path):
            what = "no file matches" if glob.has_magic(path) else "there is no file or folder"
            raise UsageError(
                f"{what} {path}; give images, folders, patterns, .npz, .zip, .tar or .parquet "
                "files, URLs of these, or - for an image or a list of paths on standard input."
            )


def count_items(paths: Sequence[str]) -> int | None:
    """How many files there are at most, if that can be told without reading them."""
    if any(path == STDIN or is_url(path) or _kind(path) != "image" for path in paths):
        return None
    return sum(count_files(path) if Path(path).is_dir() else 1 for path in _expanded(paths))


def count_again(paths: Sequence[str]) -> int:
    """How many of some paths are named a second time, or lie in a folder that is named too."""
    own = [path for path in paths if not is_url(path)]  # others would be listed once more
    places = [Path(path).resolve() for path in _expanded(own)]
    named = Counter(places)
    folders = {place for place in named if place.is_dir()}
    nested = sum(bool(folders.intersection(place.parents)) for place in named)
    return nested + len(places) - len(named)


def items(
    paths: Sequence[str], passed: PassedOver, stdin: BinaryIO | None = None
) -> Iterator[Item]:
    """All photographs of some paths, in order.

    Args:
        paths: Image files, folders, patterns such as `cells/*.png`, .npz, .zip, .tar and .parquet
            files, URLs of these, and `-` for what is on standard input: an image, or paths of
            images, a line each. A Parquet file holds encoded images in a column `image` (as bytes,
            or as Hugging Face's datasets do) or `bytes`, or names them in a column `path`,
            `image_id`, `filename` or `file`, from its own folder.
        passed: Takes note of the files in folders and archives that are not photographs.
        stdin: Standard input.

    Raises:
        DataError: If there is no photograph at all.
    """
    found = False
    for path in _expanded(paths):
        for item in _items_of(path, passed, stdin):
            found = True
            yield item
    if not found:
        notes = " ".join(passed.notes())
        raise DataError(f"there is no image in {', '.join(paths)}. {notes}".strip())


def parts(paths: Sequence[str], passed: PassedOver) -> Iterator[Part]:
    """The images of `items`, in the same order, in parts for several processes.

    Folders are walked through and the ends of Parquet files read, no picture.
    """
    for kind, found in groupby(_sources(paths, passed), lambda one: one[0]):
        named = (path for _, path, _ in found)
        if kind == "image":
            while files := tuple(islice(named, PART_SIZE)):
                yield Part(files, num_images=len(files))
        elif kind == "parquet":
            for path in named:
                yield from _parts_of_parquet(path)
        else:
            yield from (Part(path=path) for path in named)


def _sources(paths: Sequence[str], passed: PassedOver) -> Iterator[tuple[Kind, str, str]]:
    """Files that hold images, and why one cannot be read."""
    for path in _expanded(paths):
        if not is_url(path) and Path(path).is_dir():
            for found, error in walk(path, passed):
                yield "image", found, error
        elif is_url(path) and _kind(path) == "image" and not has_picture_suffix(path):
            below = _matches(path)
            for found in below if below != [path] else ():  # as below a folder of this machine
                if has_picture_suffix(found):
                    yield "image", found, ""
                else:
                    passed.add(found)
            if below == [path]:
                yield "image", path, ""
        else:
            yield _kind(path), path, ""


def _items_of(path: str, passed: PassedOver, stdin: BinaryIO | None) -> Iterator[Item]:
    if path == STDIN:
        yield from _of_stdin(stdin or io.BytesIO())
        return
    for kind, found, error in _sources([path], passed):
        if error:
            yield _failing(found, error)
        elif kind == "image":
            yield _of_file(found)
        else:
            yield from _of_container(found, kind, passed)


def _of_container(
    path: str, kind: Kind, passed: PassedOver, groups: tuple[int, int] | None = None
) -> Iterator[Item]:
    if kind == "npz":
        yield from _of_npz(path)
    elif kind == "parquet":
        yield from _of_parquet(path, groups)
    else:
        yield from _of_archive(path, kind, passed)


def _expanded(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == STDIN or os.path.lexists(path) or (is_url(path) and "*" not in path):
            yield path
        else:
            yield from _matches(path)


def _matches(path: str) -> list[str]:
    if is_url(path):
        return found_at(path)
    return sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207


def _kind(path: str) -> Kind:
    name = path.lower()
    if name.endswith(".npz"):
        return "npz"
    if name.endswith(_PARQUET):
        return "parquet"
    return "zip" if name.endswith(ZIP) else "tar" if name.endswith(TAR) else "image"


def _of_stdin(stdin: BinaryIO) -> Iterator[Item]:
    """The image on standard input, or those that it lists."""
    buffered = io.BufferedReader(cast("io.RawIOBase", stdin))
    first = buffered.peek(_LOOKED_AT)[:_LOOKED_AT]
    if is_picture(first[:NUM_PREFIX_BYTES]):
        content = buffered.read(MAX_FILE_BYTES + 1)
        yield Item(STDIN, partial(read_picture, content), len(content))
        return
    is_wide = first.startswith((b"\xff\xfe", b"\xfe\xff"))  # as PowerShell writes
    if why := unread(first) or ("" if is_wide or b"\0" not in first else _NO_LIST):
        yield _failing(STDIN, why)
        return
    # A byte-order mark is read, undecodable names are kept.
    encoding, errors = ("utf-16", "replace") if is_wide else ("utf-8-sig", "surrogateescape")
    for line in io.TextIOWrapper(buffered, encoding, errors=errors):
        if path := line.rstrip("\r\n"):
            yield _of_file(path)


def _of_file(path: str) -> Item:
    def read() -> Picture:
        if "\0" in path:
            raise BadPictureError("its name contains a zero byte")
        if is_url(path):
            return _read_url(path)
        if not S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - as everywhere here
            raise BadPictureError("not a file")  # a pipe would be waited for without end
        return read_picture(Path(path))

    return Item(path, read)


def _read_url(url: str) -> Picture:
    try:
        with open_file(url) as file:
            return read_picture(cast("BinaryIO", file))
    except BadPictureError:
        raise
    except Exception as error:  # whatever a client of a storage may raise
        raise BadPictureError(str(error) or type(error).__name__) from error


def _of_npz(path: str) -> Iterator[Item]:
    try:
        for image_id, pixels in rows_of(Path(path)):
            yield Item(
                f"{path}!/{image_id}",
                lambda p=pixels: to_picture(Image.fromarray(p)),
                pixels.nbytes,
            )
    except DataError as error:
        yield _failing(path, str(error))


def _of_archive(path: str, kind: str, passed: PassedOver) -> Iterator[Item]:
    """The photographs in an archive, whose bytes are read at once and decoded later."""
    try:
        for name, num_bytes, opened in (_zip_members if kind == "zip" else _tar_members)(path):
            where, named_so = f"{path}!/{name}", has_picture_suffix(name)
            if is_hidden(name.replace("\\", "/")):
                passed.num_hidden += 1
                continue
            if _kind(name) in ("npz", "zip", "tar"):
                yield _failing(where, "an archive inside an archive is not read; unpack it")
                continue
            if num_bytes > MAX_FILE_BYTES and named_so:
                yield _failing(where, TOO_LARGE)
                continue
            try:
                file = opened() if num_bytes <= MAX_FILE_BYTES else None
                content = file.read(MAX_FILE_BYTES + 1) if file else b""
            except BadPictureError as error:
                yield _failing(where, str(error))
                continue
            except Exception as error:
                if kind == "tar":
                    raise  # what follows cannot be found; a .zip has a list of its members
                yield _failing(where, str(error) or type(error).__name__)
                continue
            if named_so or is_picture(content[:NUM_PREFIX_BYTES]):
                yield Item(where, partial(read_picture, content), len(content))
            else:
                passed.add(name)
    except Exception as error:  # whatever a reader may raise on damaged bytes
        yield _failing(path, f"not a whole {kind} archive ({error})")


def _zip_members(path: str) -> Iterator[_Member]:
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.flag_bits & IS_ENCRYPTED:
                yield member.filename, 0, partial(_refuse, "it is encrypted; unpack the archive")
            elif not member.is_dir():
                yield member.filename, member.file_size, partial(archive.open, member)


def _tar_members(path: str) -> Iterator[_Member]:
    with open_file(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            if member.isfile():
                yield member.name, member.size, partial(archive.extractfile, member)
            elif (member.islnk() or member.issym()) and has_picture_suffix(member.name):
                reason = f"it is a link to {member.linkname}, which is not followed"
                yield member.name, 0, partial(_refuse, reason)


def _refuse(reason: str) -> NoReturn:
    raise BadPictureError(reason)


def _parts_of_parquet(path: str) -> Iterator[Part]:
    """Row groups, so many together that a process has enough to do; a damaged file is one part."""
    try:
        with _opened_parquet(path) as file:
            counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    except Exception:  # whatever a reader may raise on damaged bytes: the row will say it
        counts = []
    if not counts:
        yield Part(path=path)
    first = num_images = 0
    for group, count in enumerate(counts, 1):
        num_images += count
        if num_images >= PART_SIZE or group == len(counts):
            yield Part(path=path, groups=(first, group), num_images=num_images)
            first, num_images = group, 0


def _of_parquet(path: str, groups: tuple[int, int] | None) -> Iterator[Item]:
    """The images in a Parquet file, a few rows at a time; of a damaged group, a row for each."""
    try:
        with _opened_parquet(path) as file:
            names = file.schema_arrow.names
            column = next((name for name in _COLUMNS if name in names), None)
            if column is None:
                listed = ", ".join(names) or "none"
                reason = f"no column {', '.join(_COLUMNS)}; its columns are {listed}"
                yield _failing(path, reason)
                return
            counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            for group in range(*(groups or (0, len(counts)))):
                row = sum(counts[:group])
                end = row + counts[group]
                how: dict[str, object] = {"columns": [column], "use_threads": False}
                try:
                    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], **how):
                        for value in batch.column(0).to_pylist():
                            yield _of_cell(path, row, value)
                            row += 1
                except Exception as error:
                    for lost in range(row, end):
                        yield _failing(f"{path}!/{lost}", f"row group {group} is damaged ({error})")
    except Exception as error:  # whatever a reader may raise on damaged bytes
        yield _failing(path, f"not a whole Parquet file ({error})")


@contextmanager
def _opened_parquet(path: str) -> Generator[Any]:
    from pyarrow.parquet import ParquetFile

    # Columns are read a buffer at a time: a row group may be larger than memory.
    with (
        open_file(path) as file,
        ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as parquet,
    ):
        yield parquet


def _of_cell(path: str, row: int, value: Any) -> Item:
    """An image in a row of a Parquet file: bytes, a path, or both as in Hugging Face's."""
    where = f"{path}!/{row}"
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return Item(where, partial(read_picture, value), len(value))
    if isinstance(value, str):
        folder, slash, _ = path.rpartition("/")
        return _of_file(value if is_url(value) else os.path.join(folder + slash, value))  # noqa: PTH118
    return _failing(where, "no image in this row")


def _failing(path: str, reason: str) -> Item:
    return Item(path, partial(_refuse, reason))
