"""One walk over files: images by content, in order; what is passed over is counted and named."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from hemascope.data.pictures import NUM_PREFIX_BYTES, SUFFIXES, is_picture

_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
_NAMED = 3  # of the files passed over
_SORTED_AT_ONCE = 100_000  # names of a folder; a larger one is read in parts that are each sorted


@dataclass
class PassedOver:
    """Files that are not images, counted, the first of them by name; hidden ones apart."""

    count: int = 0
    num_hidden: int = 0
    names: list[str] = field(default_factory=list)
    wanted: str = "images"

    def add(self, path: str) -> None:
        """Takes note of a file that is not an image."""
        self.count += 1
        if len(self.names) < _NAMED:
            self.names.append(PurePosixPath(path).name)

    def merge(self, other: "PassedOver") -> None:
        """Takes note of those that were passed over elsewhere."""
        self.count += other.count
        self.num_hidden += other.num_hidden
        self.names = [*self.names, *other.names][:_NAMED]

    def notes(self) -> tuple[str, ...]:
        """What was passed over, in sentences; none where nothing was."""
        more = ", ..." if self.count > len(self.names) else ""
        found: list[str] = []
        if self.count:
            named = f"{', '.join(self.names)}{more}"
            found.append(
                f"{self.count:,} file(s) that are not {self.wanted} were passed over ({named})."
            )
        if self.num_hidden:
            found.append(f"{self.num_hidden:,} hidden or system file(s) were passed over.")
        return tuple(found)


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder it lies in, is hidden or the system's own."""
    return any(part[0] == "." or part.casefold() in _SYSTEM for part in PurePosixPath(path).parts)


def walk(folder: str, passed: PassedOver) -> Iterator[tuple[str, str]]:
    """The images below a folder, by name.

    A file counts as an image by its content, or, lest a damaged one be lost, by its suffix. A link
    to a folder is followed once, and not at all where it leads into or above one that is walked:
    its images would come twice, or for ever.

    Yields:
        The path of an image and ""; or of a folder that cannot be read, and why.
    """
    for entry in _files(folder, passed):
        if isinstance(entry, tuple):
            yield entry
        elif _is_picture_file(entry.path):
            yield entry.path, ""
        else:
            passed.add(entry.path)


def count_files(folder: str) -> int:
    """How many files `walk` looks at: at least as many as it finds images."""
    return sum(1 for _ in _files(folder, PassedOver()))


def _files(folder: str, passed: PassedOver) -> Iterator[os.DirEntry[str] | tuple[str, str]]:
    """The files below a folder that are not hidden; errors where a folder cannot be read."""
    walked = [Path(folder).resolve()]
    waiting = [_entries(folder)]  # and not a call for each level: there may be thousands
    while waiting:
        for entry in waiting[-1]:
            if isinstance(entry, tuple):
                yield entry
            elif is_hidden(entry.name):
                passed.num_hidden += not entry.is_dir(follow_symlinks=False)
            elif not entry.is_dir():
                yield entry
            elif entry.is_symlink() and not _is_new(Path(entry.path).resolve(), walked):
                yield entry  # not an image; by its name perhaps one that cannot be read
            else:
                waiting.append(_entries(entry.path))
                break
        else:
            waiting.pop()


def _is_new(folder: Path, walked: list[Path]) -> bool:
    """Whether a folder lies apart from those that are walked; then it is one of them."""
    if any(folder.is_relative_to(other) or other.is_relative_to(folder) for other in walked):
        return False
    walked.append(folder)
    return True


def has_picture_suffix(path: str) -> bool:
    """Whether a file calls itself an image."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def _is_picture_file(path: str) -> bool:
    if has_picture_suffix(path):
        return True
    try:
        if not S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe would be waited for
            return False
        with open(path, "rb") as file:  # noqa: PTH123 - a path from scandir, in a hot loop
            return is_picture(file.read(NUM_PREFIX_BYTES))
    except OSError:
        return False


def _entries(folder: str) -> Iterator[os.DirEntry[str] | tuple[str, str]]:
    """What lies in a folder, by name; an error where the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            while part := sorted(islice(entries, _SORTED_AT_ONCE), key=lambda entry: entry.name):
                yield from part
    except OSError as error:
        yield folder, f"the folder cannot be read: {error.strerror or error}"
