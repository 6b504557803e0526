"""Files that are whole or not there: temporary names, renames, and folders that are not lost."""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import mkstemp
from types import FrameType
from typing import IO, Any

from pydantic import BaseModel

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, OutputError

# Written first into every folder of results: one that holds it may be replaced with --overwrite.
MARK = "fingerprint.json"


@contextmanager
def explained(path: Path) -> Generator[None]:
    """Turns the system's refusal to write `path` into one clear sentence.

    Raises:
        OutputError: If the disk is full, read-only, not permitted, and the like.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; what was finished before is kept. "
            "Make room or choose another --out."
        ) from error


@contextmanager
def written_whole(path: Path) -> Generator[IO[bytes]]:
    """A file to write to, which takes the place of `path` at the end of the block, or never.

    Raises:
        OutputError: If it cannot be written; the old file, if any, is untouched.
    """
    with explained(path):
        handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)  # mkstemp makes it private; results are for sharing
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole: a reader sees the old content or the new one, never a part.

    Raises:
        OutputError: If it cannot be written; the old file, if any, is untouched.
    """
    with written_whole(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes a UTF-8 text file whole; see `write_bytes`."""
    write_bytes(path, content.encode(errors="backslashreplace"))  # of undecodable file names


def write_json(path: Path, content: object) -> None:
    """Writes readable JSON whole; a NaN in it is a programming error, write None.

    Dataclasses and pydantic models in it become objects whose keys are the names of their fields.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    write_text(path, text + "\n")


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    msg = f"{type(value).__name__} cannot be written as JSON"
    raise TypeError(msg)


def read_json(path: Path, *, needed: Collection[str] = ()) -> dict[str, Any]:
    """Reads a JSON object that holds at least the keys `needed`.

    Raises:
        DataError: If the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({error}); train the run again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is no JSON object: it is damaged; train the run again.")
    missing = [key for key in needed if key not in content]
    if missing:
        raise DataError(f"{path} has no '{missing[0]}': it is damaged; train the run again.")
    return content


def append_line(path: Path, line: str) -> None:
    """Adds one line to a log."""
    with explained(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def md5_of(path: Path) -> str:
    """The file's md5, by which data sets are named (not a security measure)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_out(out: Path, *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuses early, before any work, a folder that results may not go to.

    Args:
        out: The folder asked for.
        overwrite: Whether an older folder of ours may be deleted.
        inputs: What the command reads: never deleted.

    Raises:
        OutputError: If `out` exists with content and may not be replaced.
    """
    for path in (out, *inputs):
        if not _is_utf8(path):
            raise OutputError(
                f"the name {str(path)!r} is not UTF-8, so that no results file can hold it; rename "
                "it or choose another."
            )
    if not out.exists():
        parent = next(folder for folder in out.absolute().parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise OutputError(
                f"--out {out} cannot be made, since {parent} is not a folder that can be written "
                "to; choose another place."
            )
        return
    for needed in (Path(), *inputs):
        if overwrite and needed.resolve().is_relative_to(out.resolve()):
            raise OutputError(
                f"--out {out} holds {needed.resolve()}, which this command needs, so --overwrite "
                "will not delete it; choose another folder."
            )
    if not out.is_dir():
        raise OutputError(f"--out {out} is a file; give the name of a new folder.")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise OutputError(
            f"--out {out} exists and is not empty; choose another folder, or add --overwrite."
        )
    if out.is_symlink() or not _is_ours(out):
        raise OutputError(
            f"--out {out} does not look like a folder made by hemascope, so --overwrite will not "
            "delete it; choose another folder."
        )


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_ours(folder: Path) -> bool:
    """Whether our own mark lies in the folder, and not just any file of its name."""
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(mark, dict) and mark.get("notice") == RESEARCH_USE_ONLY


def make_out(out: Path, *, overwrite: bool) -> None:
    """Makes the folder `out`, empty; an older one of ours is deleted only with `overwrite`.

    Raises:
        OutputError: As `check_out`, if another process writes into it or into a run inside it, or
            if the folder cannot be made.
    """
    check_out(out, overwrite=overwrite)
    with claimed(out), ExitStack() as held, explained(out):
        for mark in out.glob(f"*/{MARK}"):
            held.enter_context(claimed(mark.parent))
        # The folder itself stays, since it is what is claimed; its mark goes last, so that what a
        # full disk or the like leaves can still be told for ours.
        for path in sorted(out.iterdir(), key=lambda path: path.name == MARK):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def made_out(out: Path, *, overwrite: bool) -> Generator[None]:
    """`make_out`, and nobody else writes there for as long as the block takes.

    Raises:
        OutputError: As `make_out`.
    """
    with claimed(out):
        make_out(out, overwrite=overwrite)
        yield


_claimed_here: set[Path] = set()


@contextmanager
def claimed(folder: Path) -> Generator[None]:
    """Keeps other processes from writing into a folder for as long as the block takes.

    Makes the folder if need be, and takes it away again if the block fails and leaves it empty. The
    system forgets the claim when the process ends, however it ends. Windows has no such claims on
    folders; there nothing is held.

    Raises:
        OutputError: If another process has claimed it, or it cannot be made.
    """
    path = folder.resolve()
    if fcntl is None or path in _claimed_here:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another process is writing into {folder} just now; wait until it is done, or "
                "choose another --out."
            ) from error
        except OSError:  # a file system without such claims
            yield
            return
        _claimed_here.add(path)
        yield
    except BaseException:
        with suppress(OSError):  # it holds something
            folder.rmdir()
        raise
    finally:
        _claimed_here.discard(path)
        os.close(handle)


def make_folder(folder: Path) -> Path:
    """Makes a folder inside the results, if it is not there.

    Raises:
        OutputError: If it cannot be made.
    """
    with explained(folder):
        folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def uninterrupted() -> Generator[None]:
    """Holds Ctrl-C back until the block is done, so that files written together fit together."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    held: list[tuple[int, FrameType | None]] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held and callable(previous):
        previous(*held[0])
