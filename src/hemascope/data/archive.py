"""Reads .zip and .tar archives that hold a folder, a table or an .npz file."""

import lzma
import tarfile
import zipfile
import zlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hemascope.core.errors import DataError, HemascopeError
from hemascope.core.images import BadFile
from hemascope.data.folder import read_folder
from hemascope.data.npz import read_npz
from hemascope.data.source import Request, Source, unless_skipped, with_bad
from hemascope.data.table import is_table, looks_like_table, read_table
from hemascope.data.walk import has_picture_suffix, is_hidden

ZIP, TAR = ".zip", (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGED = (EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # one member, not the disk
_BAD_ARCHIVE = (*_DAMAGED, OSError, RuntimeError, ValueError, LookupError, tarfile.TarError)
_MOST_BYTES = 20_000_000_000  # unpacked; this stops archives made to fill a disk


def is_archive(path: Path) -> bool:
    """Whether a file calls itself an archive."""
    return path.name.lower().endswith((ZIP, *TAR))


def read_archive(path: Path, request: Request) -> Source:
    """Reads an archive by unpacking it into a temporary folder.

    Raises:
        DataError: If it is not a whole archive, too large, or holds no data set.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
        bad: list[BadFile] = []
        try:
            if path.name.lower().endswith(ZIP):
                bad = _unzip(path, folder)
            else:
                _untar(path, folder)
        except _BAD_ARCHIVE as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise DataError(f"{path} is not a whole archive ({reason}); make it again.") from error

        if bad and not request.settings.skip_bad:
            raise DataError(unless_skipped(bad))

        def named(text: str) -> str:
            return text.replace(str(folder), f"{path}!")  # not the temporary folder

        try:
            source = _read(folder, request, path)
        except HemascopeError as error:
            raise type(error)(named(str(error)), field=error.field) from error
    source = replace(
        source,
        title=f"{path.name} (archive)",
        path=str(path),
        notes=tuple(map(named, source.notes)),
        bad=tuple(BadFile(named(one.path), one.reason) for one in source.bad),
    )
    return with_bad(source, bad)


def _read(folder: Path, request: Request, path: Path) -> Source:
    """The one .npz file or table in the folder that was unpacked, else its class folders."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    own = [f for f in files if not is_hidden(f.relative_to(folder).as_posix())]
    arrays = [f for f in own if f.suffix.lower() == ".npz"]
    tables = [f for f in own if is_table(f) and looks_like_table(f)]
    if len(arrays) + len(tables) > 1:
        names = ", ".join(f.name for f in (*arrays, *tables)[:9])
        raise DataError(f"{path} holds several data sets ({names}); make one archive of each.")
    if arrays:
        return read_npz(arrays[0], request)
    if tables:
        return read_table(tables[0], request)
    return read_folder(folder, request)


def _unzip(path: Path, folder: Path) -> list[BadFile]:
    """Unpacks a .zip file, each member of which has a checksum; returns the damaged pictures."""
    bad: list[BadFile] = []
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_size(path, sum(member.file_size for member in members))
        for member in members:
            member.filename = member.filename.replace("\\", "/")  # of old programs on Windows
            try:
                archive.extract(member, folder)
            except _DAMAGED as error:
                if not has_picture_suffix(member.filename):
                    raise
                bad.append(BadFile(f"{path}!/{member.filename}", str(error)))
                part = (folder / member.filename).resolve()
                if part.is_relative_to(folder.resolve()):
                    part.unlink(missing_ok=True)
    return bad


def _untar(path: Path, folder: Path) -> None:
    with tarfile.open(path) as archive:
        _check_size(path, sum(member.size for member in archive))
        archive.extractall(folder, filter="data")


def _check_size(path: Path, num_bytes: int) -> None:
    if num_bytes > _MOST_BYTES:
        raise DataError(
            f"{path} unpacks to {num_bytes / 1e9:.1f} GB (limit {_MOST_BYTES / 1e9:.0f} GB); "
            "unpack it yourself and name the folder."
        )
