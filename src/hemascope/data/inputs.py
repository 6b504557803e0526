"""What `predict` is given, one photograph at a time: files, folders, patterns, arrays, archives.

Nothing is ever unpacked to disk, and nothing is held but the current picture: a folder may have
millions of files, and an archive may say what it likes.
"""

import glob
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import IO, BinaryIO, cast

from PIL import Image

from hemascope.core.errors import DataError, UsageError
from hemascope.data.archive import TAR, ZIP
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
)
from hemascope.data.walk import PassedOver, count_files, has_picture_suffix, is_hidden, walk

STDIN = "-"

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


def check_inputs(paths: Sequence[str]) -> None:
    """Refuses early, before any work, what is not there.

    Raises:
        UsageError: If there is nothing at a path, or no file has a pattern's form.
    """
    for path in paths:
        if path != STDIN and not os.path.lexists(path) and not _matches(path):
            what = "no file matches" if glob.has_magic(path) else "there is no file or folder"
            raise UsageError(
                f"{what} {path}; give images, folders, patterns, .npz, .zip or .tar files, or - "
                "for an image or a list of paths on standard input."
            )


def count_items(paths: Sequence[str]) -> int | None:
    """How many files there are at most, if that can be told without reading them."""
    if any(path == STDIN or _kind(path) in ("zip", "tar", "npz") for path in paths):
        return None
    return sum(count_files(path) if Path(path).is_dir() else 1 for path in _expanded(paths))


def items(
    paths: Sequence[str], passed: PassedOver, stdin: BinaryIO | None = None
) -> Iterator[Item]:
    """All photographs of some paths, in order.

    Args:
        paths: Image files, folders, patterns such as `cells/*.png`, .npz, .zip and .tar files, and
            `-` for what is on standard input: an image, or paths of images, a line each.
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


def _items_of(path: str, passed: PassedOver, stdin: BinaryIO | None) -> Iterator[Item]:
    if path == STDIN:
        yield from _of_stdin(stdin or io.BytesIO())
    elif Path(path).is_dir():
        for found, error in walk(path, passed):
            yield _failing(found, error) if error else _of_file(found)
    elif (kind := _kind(path)) == "image":
        yield _of_file(path)
    elif kind == "npz":
        yield from _of_npz(path)
    else:
        yield from _of_archive(path, kind, passed)


def _expanded(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == STDIN or os.path.lexists(path):
            yield path
        else:
            yield from _matches(path)


def _matches(path: str) -> list[str]:
    return sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207


def _kind(path: str) -> str:
    name = path.lower()
    if name.endswith(".npz"):
        return "npz"
    return "zip" if name.endswith(ZIP) else "tar" if name.endswith(TAR) else "image"


def _of_stdin(stdin: BinaryIO) -> Iterator[Item]:
    """The image on standard input, or those that it lists."""
    buffered = io.BufferedReader(cast("io.RawIOBase", stdin))
    if is_picture(buffered.peek(NUM_PREFIX_BYTES)[:NUM_PREFIX_BYTES]):
        content = buffered.read(MAX_FILE_BYTES + 1)
        yield Item(STDIN, partial(read_picture, content), len(content))
        return
    # A byte-order mark is read, undecodable names are kept.
    for line in io.TextIOWrapper(buffered, "utf-8-sig", errors="surrogateescape"):
        if path := line.rstrip("\r\n"):
            yield _of_file(path)


def _of_file(path: str) -> Item:
    def read() -> Picture:
        if "\0" in path:
            raise BadPictureError("its name contains a zero byte")
        if not S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - as everywhere here
            raise BadPictureError("not a file")  # a pipe would be waited for without end
        return read_picture(Path(path))

    return Item(path, read)


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
            if is_hidden(name):
                passed.num_hidden += 1
                continue
            if num_bytes > MAX_FILE_BYTES and named_so:
                yield _failing(where, TOO_LARGE)
                continue
            try:
                file = opened() if num_bytes <= MAX_FILE_BYTES else None
                content = file.read(MAX_FILE_BYTES + 1) if file else b""
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
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, member.file_size, partial(archive.open, member)


def _tar_members(path: str) -> Iterator[_Member]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if member.isfile():
                yield member.name, member.size, partial(archive.extractfile, member)


def _failing(path: str, reason: str) -> Item:
    def read() -> Picture:
        raise BadPictureError(reason)

    return Item(path, read)
