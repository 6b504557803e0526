"""What is uploaded, as pictures: the same readers as `predict`, within the station's limits."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import SEEK_END
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hemascope.data import pictures
from hemascope.data.inputs import Item
from hemascope.data.walk import PassedOver, has_picture_suffix, is_hidden
from hemascope.review.problems import Refused

Files = Sequence[tuple[str, BinaryIO]]  # as they were sent
Content = tuple[str, bytes, str]  # a name, bytes, and what is wrong with them
_MB = 1_000_000
_MOST_NAME = 300  # letters of a file's name that are kept


@dataclass(frozen=True)
class Limits:
    """What a request may hold."""

    max_file_bytes: int = 20_000_000
    max_request_bytes: int = 512_000_000
    max_files: int = 1000  # of one request, members of archives included
    max_cells: int = 20_000  # of a case
    max_inflation: int = 100  # bytes unpacked for each byte of an archive


@dataclass(frozen=True, eq=False)
class Received:
    """An image that came, or why it is none.

    Attributes:
        name: As the client calls it: text, never a path of this machine.
        key: Of its name and bytes.
        picture: Its pixels; None where there is an error.
        error: Why it could not be read.
    """

    name: str
    key: str
    picture: pictures.Picture | None
    error: str = ""


def received(files: Files, limits: Limits, passed: PassedOver) -> Iterator[Received]:
    """The images of uploaded files and archives, one after another.

    Raises:
        Refused: As `uploaded`.
    """
    for name, content, problem in uploaded(files, limits, passed):
        key = blake2b(name.encode(errors="replace") + b"\0" + content, digest_size=16).hexdigest()
        try:
            yield Received(name, key, item_of(name, content, problem).read())
        except pictures.BadPictureError as error:
            yield Received(name, key, None, str(error))


def uploaded(files: Files, limits: Limits, passed: PassedOver) -> Iterator[Content]:
    """Names and bytes of uploaded images, by content, and why one cannot be read, if that shows.

    Raises:
        Refused: If there are more than may be, or an archive is damaged.
    """
    num_bytes = 0
    for count, (name, content, problem) in enumerate(_contents(files, limits, passed), 1):
        num_bytes += len(content)
        if count > limits.max_files or num_bytes > limits.max_request_bytes:
            most = f"{limits.max_files:,} images, unpacked {limits.max_request_bytes // _MB} MB"
            why = f"a request may hold {most}; send the rest in another."
            raise Refused(413, why, field="file")
        if len(content) > limits.max_file_bytes:
            problem = f"file too large (limit {limits.max_file_bytes // _MB} MB)"
        yield name, content, problem


def item_of(name: str, content: bytes, problem: str) -> Item:
    """An uploaded image for the stream of answers; decoded when it is asked for."""

    def read() -> pictures.Picture:
        if problem:
            raise pictures.BadPictureError(problem)
        return pictures.read_picture(content)

    return Item(name, read, len(content))


def _contents(files: Files, limits: Limits, passed: PassedOver) -> Iterator[Content]:
    """Names, bytes (of which one more than allowed are read at most), and what is wrong."""
    for given, file in files:
        name = safe_name(given)
        prefix = file.read(pictures.NUM_PREFIX_BYTES)
        file.seek(0)
        if prefix.startswith(b"PK\x03\x04"):
            yield from _members(name, file, limits, passed)
        elif pictures.is_picture(prefix) or has_picture_suffix(name):
            yield name, file.read(limits.max_file_bytes + 1), ""
        else:
            passed.add(name)


def _members(name: str, file: BinaryIO, limits: Limits, passed: PassedOver) -> Iterator[Content]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            if len(members) > limits.max_files:
                why = f"{name} holds more than {limits.max_files:,} files; send it in parts."
                raise Refused(413, why, field="file")
            packed = min(sum(one.compress_size for one in members), file.seek(0, SEEK_END))
            if sum(one.file_size for one in members) > limits.max_inflation * max(packed, 1):
                why = f"{name} unpacks to more than {limits.max_inflation} times its size"
                raise Refused(413, f"{why}; send the images themselves.", field="file")
            for one in members:
                inside = f"{name}!/{safe_name(one.filename)}"
                if is_hidden(one.filename):
                    passed.num_hidden += 1
                    continue
                try:
                    with archive.open(one) as member:
                        content = member.read(pictures.NUM_PREFIX_BYTES)
                        is_one = has_picture_suffix(inside) or pictures.is_picture(content)
                        content += member.read(limits.max_file_bytes) if is_one else b""
                except Exception:  # of this member alone; what it says may hold a name
                    is_locked = one.flag_bits & 1
                    why = "encrypted: unpack the archive" if is_locked else "damaged in its archive"
                    yield inside, b"", why
                    continue
                if is_one:
                    yield inside, content, ""
                else:
                    passed.add(inside)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        why = f"{name} is not a whole zip archive ({error}); make it again."
        raise Refused(422, why, field="file") from error


def safe_name(given: str) -> str:
    """A client's name of a file as text: without what a screen or a table may not show."""
    text = "".join(c for c in given.replace("\\", "/") if c.isprintable())
    parts = [part for part in PurePosixPath(text).parts if part not in ("/", "..", ".")]
    return "/".join(parts)[-_MOST_NAME:] or "unnamed"


def stored_item(name: str, path: Path) -> Item:
    """An image of the station, for the stream of answers."""
    return Item(name, lambda: pictures.read_picture(path))
