"""Reads .zip and .tar archives that hold a folder, a table or an .npz file."""

import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast

from hemascope.core.errors import DataError, HemascopeError
from hemascope.core.images import BadFile
from hemascope.data.folder import read_folder
from hemascope.data.npz import read_npz
from hemascope.data.source import Request, Source
from hemascope.data.table import is_table, looks_like_table, read_table
from hemascope.data.walk import has_picture_suffix, is_hidden

ZIP, TAR = ".zip", (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BAD_MEMBER = (EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # not the disk
_BAD_ARCHIVE = (*_BAD_MEMBER, OSError, RuntimeError, ValueError, LookupError, tarfile.TarError)
IS_ENCRYPTED, _IS_UTF_8 = 0x1, 0x800  # flags of a member of a .zip file
_NAME, _MAGIC = slice(100), slice(257, 262)  # of a header in a .tar file
_MOST_BYTES = 20_000_000_000  # unpacked; this stops archives made to fill a disk


def is_archive(path: Path) -> bool:
    """Whether a file calls itself an archive."""
    return path.name.lower().endswith((ZIP, *TAR))


def read_archive(path: Path, request: Request) -> Source:
    """Reads an archive by unpacking it into a temporary folder.

    Raises:
        DataError: If it is not a whole archive, too large, or holds no data set.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        try:
            damaged = (_unzip if path.name.lower().endswith(ZIP) else _untar)(path, folder)
        except _BAD_ARCHIVE as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise DataError(f"{path} is not a whole archive ({reason}); make it again.") from error

        def named(text: str) -> str:
            return text.replace(str(folder), f"{path}!")  # not the temporary folder

        try:
            source = _read(folder, replace(request, damaged=damaged), path)
        except HemascopeError as error:
            raise type(error)(named(str(error)), field=error.field) from error
    return replace(
        source,
        title=f"{path.name} (archive)",
        path=str(path),
        notes=tuple(map(named, source.notes)),
        bad=tuple(BadFile(named(bad.path), bad.reason) for bad in source.bad),
    )


def _read(folder: Path, request: Request, path: Path) -> Source:
    """The one .npz file or table in the folder that was unpacked, else its class folders."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    own = [f for f in files if not is_hidden(f.relative_to(folder).as_posix())]
    arrays = [f for f in own if f.suffix.lower() == ".npz"]
    tables = [f for f in own if is_table(f) and looks_like_table(f)]
    if len(arrays) + len(tables) > 1:
        names = ", ".join(f.name for f in (*arrays, *tables)[:9])
        raise DataError(f"{path} holds several data sets ({names}); make one archive of each.")
    if not (arrays or tables):
        return read_folder(folder, request)
    source = read_npz(arrays[0], request) if arrays else read_table(tables[0], request)
    used = 0 if arrays else sum(len(part) for part in source.parts.values()) + len(source.bad)
    if more := sum(has_picture_suffix(f.name) for f in own) - used:
        note = (
            f"{more:,} image file(s) that {(arrays or tables)[0].name} does not name were not used."
        )
        source = replace(source, notes=(*source.notes, note))
    return source


def _unzip(path: Path, folder: Path) -> dict[Path, str]:
    """Unpacks a .zip file, each member of which has a checksum; the damaged images, and why."""
    damaged: dict[Path, str] = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_size(path, sum(member.file_size for member in members))
        for member in members:
            member.filename = _named(path, member).replace("\\", "/")  # of old programs on Windows
        _check_names(path, [member.filename for member in members])
        if any(member.flag_bits & IS_ENCRYPTED for member in members):
            raise DataError(f"{path} is encrypted; unpack it and name the folder.")
        for member in members:
            try:
                archive.extract(member, folder)  # which zipfile keeps inside the folder
            except _BAD_MEMBER as error:
                damaged[_placeholder(folder, member.filename, error)] = str(error)
    return damaged


def _untar(path: Path, folder: Path) -> dict[Path, str]:
    """Unpacks a .tar file, whose headers alone have checksums; the damaged images, and why."""
    damaged: dict[Path, str] = {}
    members: list[tarfile.TarInfo] = []
    with tarfile.open(path) as archive:
        file = cast("IO[bytes]", archive.fileobj)
        while True:
            try:
                member, at = archive.next(), archive.offset
            except tarfile.ReadError:  # of a header after an extended one
                member, at = None, file.tell() - tarfile.BLOCKSIZE
            if member:
                members.append(member)
                continue
            file.seek(at)
            header = file.read(tarfile.BLOCKSIZE)
            if not header.strip(b"\0"):
                break
            if header[_MAGIC] != b"ustar":
                raise tarfile.ReadError("a header is damaged, or it ends early")
            name = header[_NAME].partition(b"\0")[0].decode("utf-8", "replace")
            error = tarfile.ReadError(f"the header of {name} is damaged")
            damaged[_placeholder(folder, name, error)] = str(error)
            while (block := file.read(tarfile.BLOCKSIZE)) and block[_MAGIC] != b"ustar":
                pass
            archive.offset = file.tell() - len(block)
        _check_size(path, sum(member.size for member in members))
        _check_names(path, [member.name for member in members])
        archive.extractall(folder, members, filter="data")
    return damaged


def _named(path: Path, member: zipfile.ZipInfo) -> str:
    """The name of a member, of which a program may not have said that it is UTF-8.

    Raises:
        DataError: If the name of a folder is not: it would be garbled, and may be a class.
    """
    name = member.filename
    if member.flag_bits & _IS_UTF_8 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        if not name.replace("\\", "/").rpartition("/")[0].isascii():
            raise DataError(
                f"{path} has folder names that are not in UTF-8, such as {name}: name the folders "
                "in ASCII letters, or make the archive with a program that writes UTF-8."
            ) from None
        return name


def _check_names(path: Path, names: list[str]) -> None:
    """Refuses an archive in which one file would be written over another, or beside the archive."""
    for name, count in Counter(names).items():
        if has_picture_suffix(name) and (count > 1 or ".." in Path(name).parts):
            what = (
                f"holds {name} {count} times" if count > 1 else f"has a name that leads out: {name}"
            )
            raise DataError(f"{path} {what}; make it again.")


def _placeholder(folder: Path, member: str, error: Exception) -> Path:
    """An empty file in the place of a damaged photo, so that it is found and counted as one."""
    file = (folder / member).resolve()
    if not has_picture_suffix(member) or not file.is_relative_to(folder):
        raise error
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def _check_size(path: Path, num_bytes: int) -> None:
    if num_bytes > _MOST_BYTES:
        raise DataError(
            f"{path} unpacks to {num_bytes / 1e9:.1f} GB (limit {_MOST_BYTES / 1e9:.0f} GB); "
            "unpack it yourself and name the folder."
        )
