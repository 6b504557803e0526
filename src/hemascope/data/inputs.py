"""What `predict` is given, one picture at a time: files, folders, patterns, arrays, archives.

Nothing is ever unpacked to disk, and nothing is held but the picture at hand: a folder may have
millions of files, and an archive may say what it likes.
"""

import glob
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO

from PIL import Image

from hemascope.core.errors import DataError, UsageError
from hemascope.data.npz import rows_of
from hemascope.data.pictures import SUFFIXES, BadPictureError, read_rgb

_ZIP, _TAR = ".zip", (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MAX_FILE_BYTES = 50_000_000  # of one picture in an archive, unpacked
_SORTED_AT_ONCE = 100_000  # names of a folder; a larger one is read in parts that are each sorted


@dataclass(frozen=True, eq=False)
class Item:
    """One picture, not yet decoded.

    Attributes:
        path: What it is called in results: a path, or `archive!/member`, or `file.npz!/test/12`.
        read: Gives it in RGB, or raises a `BadPictureError` or `OSError`; in any thread.
        num_bytes: What is held of it already.
    """

    path: str
    read: Callable[[], Image.Image]
    num_bytes: int = 0


def check_inputs(paths: Sequence[str]) -> None:
    """Refuses early, before any work, what is not there.

    Raises:
        UsageError: If there is nothing at a path, or no file has a pattern's form.
    """
    for path in paths:
        if path != "-" and not os.path.lexists(path) and not _matches(path):
            what = "no file matches" if glob.has_magic(path) else "there is no file or folder"
            raise UsageError(
                f"{what} {path}; give images, folders, patterns, .npz, .zip or .tar files, or - "
                "for a list of paths on standard input."
            )


def count_items(paths: Sequence[str]) -> int | None:
    """How many pictures there are, if that can be told without reading them."""
    if any(path == "-" or _kind(path) in ("zip", "tar", "npz") for path in paths):
        return None
    return sum(
        sum(1 for _ in _walk(path)) if Path(path).is_dir() else 1 for path in _expanded(paths)
    )


def items(paths: Sequence[str], listed: Iterable[str] = ()) -> Iterator[Item]:
    """All pictures of some paths, in order; what is no picture in a folder or archive is left out.

    Args:
        paths: Image files, folders, patterns such as `cells/*.png`, .npz, .zip and .tar files, and
            `-` for those in `listed`.
        listed: Paths of images, a line each.
    """
    for path in _expanded(paths):
        if path == "-":
            yield from (_of_file(line) for text in listed if (line := text.rstrip("\r\n")))
        elif Path(path).is_dir():
            yield from _walk(path)
        else:
            yield from _READERS[_kind(path)](path)


def _expanded(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == "-" or os.path.lexists(path):
            yield path
        else:
            yield from _matches(path)


def _matches(path: str) -> list[str]:
    return sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207


def _kind(path: str) -> str:
    name = path.lower()
    if name.endswith(".npz"):
        return "npz"
    return "zip" if name.endswith(_ZIP) else "tar" if name.endswith(_TAR) else "image"


def _walk(folder: str) -> Iterator[Item]:
    """The image files below a folder, by name; links to folders are not followed."""
    waiting = [_entries(folder)]  # and not a call for each level: there may be thousands
    while waiting:
        for entry in waiting[-1]:
            if isinstance(entry, Item):
                yield entry
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(_entries(entry.path))
                break
            elif _is_picture(entry.name):
                yield _of_file(entry.path)
        else:
            waiting.pop()


def _entries(folder: str) -> Iterator[os.DirEntry[str] | Item]:
    """What lies in a folder, by name; an item that fails where the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            while part := sorted(islice(entries, _SORTED_AT_ONCE), key=lambda entry: entry.name):
                yield from part
    except OSError as error:
        yield _failing(folder, f"the folder cannot be read: {error.strerror or error}")


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not PurePosixPath(
        name
    ).name.startswith(".")


def _of_file(path: str) -> Item:
    def read() -> Image.Image:
        if "\0" in path:
            raise BadPictureError("its name holds a zero byte")
        if not S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - as everywhere here
            raise BadPictureError("it is no file")  # a pipe would be waited for without end
        return read_rgb(Path(path))[0]

    return Item(path, read)


def _of_image(path: str) -> Iterator[Item]:
    yield _of_file(path)


def _of_npz(path: str) -> Iterator[Item]:
    try:
        for image_id, pixels in rows_of(Path(path)):
            yield Item(f"{path}!/{image_id}", partial(Image.fromarray, pixels), pixels.nbytes)
    except DataError as error:
        yield _failing(path, str(error))


def _of_zip(path: str) -> Iterator[Item]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir() and _is_picture(member.filename):
                    opened = partial(archive.open, member)
                    yield _of_member(
                        f"{path}!/{member.filename}", member.file_size, opened, (Exception,)
                    )  # each member is found by the list: one that is damaged hides no other
    except Exception as error:  # whatever a reader may raise on damaged bytes
        yield _failing(path, f"it is no whole zip archive ({error})")


def _of_tar(path: str) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile() and _is_picture(member.name):
                    opened = partial(archive.extractfile, member)
                    yield _of_member(f"{path}!/{member.name}", member.size, opened, ())
    except Exception as error:  # whatever a reader may raise on damaged bytes
        yield _failing(path, f"it is no whole tar archive ({error})")


def _of_member(
    path: str,
    num_bytes: int,
    opened: Callable[[], IO[bytes] | None],
    refused: tuple[type[Exception], ...],
) -> Item:
    """A picture in an archive, whose bytes are read at once and decoded later.

    What is raised of `refused` concerns this picture alone.
    """
    if num_bytes > _MAX_FILE_BYTES:
        return _failing(path, f"its {num_bytes:,} bytes are too many")
    try:
        file = opened()
        content = file.read(_MAX_FILE_BYTES + 1) if file else b""
    except refused as error:
        return _failing(path, str(error) or type(error).__name__)
    return Item(path, lambda: read_rgb(io.BytesIO(content))[0], len(content))


def _failing(path: str, reason: str) -> Item:
    def read() -> Image.Image:
        raise BadPictureError(reason)

    return Item(path, read)


_READERS: dict[str, Callable[[str], Iterator[Item]]] = {
    "image": _of_image,
    "npz": _of_npz,
    "zip": _of_zip,
    "tar": _of_tar,
}
