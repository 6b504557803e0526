"""Files that are whole or not there: temporary names, renames, and folders that are not lost."""

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import mkstemp
from types import FrameType
from typing import IO

from pydantic import BaseModel

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, OutputError
from hemascope.settings.output import Output

# Written first into every folder of results: one that holds it may be replaced with `overwrite`.
MARK = "fingerprint.json"
FIGURES = "figures"  # the folder of figures in every folder of results
# Lies in a folder while a process writes into it, and after one was killed; not one of its results.
LOCK = ".lock"


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
            "Make room or choose another `out`."
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
    write_text(path, json_text(content) + "\n")


def json_text(content: object) -> str:
    """The same as text."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    msg = f"{type(value).__name__} cannot be written as JSON"
    raise TypeError(msg)


def read_json(path: Path) -> dict[str, object]:
    """Reads a JSON object.

    Raises:
        DataError: If the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({error}); train the run again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object: it is damaged; train the run again.")
    return content


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV, whose lines end alike on every system."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([on_one_line(value) for value in row] for row in rows)
    return text.getvalue()


def on_one_line(value: object) -> object:
    """A cell without carriage returns, which csv leaves unquoted and readers take for line ends."""
    return value.replace("\r", "\\r") if isinstance(value, str) else value


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
                f"{out} cannot be made, since {parent} is not a folder that can be written to; "
                "choose another place.",
                field="out",
            )
        return
    for needed in (Path(), *inputs):
        if overwrite and needed.resolve().is_relative_to(out.resolve()):
            raise OutputError(
                f"{out} holds {needed.resolve()}, which this command needs, so `overwrite` will "
                "not delete it; choose another folder.",
                field="out",
            )
    if not out.is_dir():
        raise OutputError(f"{out} is a file; give the name of a new folder.", field="out")
    if not _content(out):
        return
    if not overwrite:
        raise OutputError(
            f"{out} exists and is not empty; choose another folder, or add `overwrite`.",
            field="out",
        )
    if out.is_symlink() or not _is_ours(out):
        raise OutputError(
            f"{out} does not look like a folder made by hemascope, so `overwrite` will not delete "
            "it; choose another folder.",
            field="out",
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
    with claimed(out), explained(out):
        runs = [mark.parent for mark in out.glob(f"*/{MARK}")]
        with ExitStack() as held:
            for run in runs:
                held.enter_context(claimed(run))
            for run in runs:
                _empty(run)
        _empty(out)


def _content(folder: Path) -> list[Path]:
    """What lies in a folder, its mark last."""
    found = [path for path in folder.iterdir() if path.name != LOCK]
    return sorted(found, key=lambda path: path.name == MARK)


def _empty(folder: Path) -> None:
    """Deletes the content of a claimed folder, which itself stays, since it holds the claim.

    The mark goes last: what a full disk or the like leaves can still be recognized as ours.
    """
    for path in _content(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def made_out(output: Output) -> Generator[Path]:
    """`make_out`, and nobody else writes there for as long as the block takes.

    Yields:
        The folder.

    Raises:
        OutputError: As `make_out`.
    """
    with claimed(output.folder):
        make_out(output.folder, overwrite=output.overwrite)
        yield output.folder


@contextmanager
def claimed(folder: Path) -> Generator[None]:
    """Keeps other processes from writing into a folder for as long as the block takes.

    Makes the folder if need be, and takes it away again if the block fails and leaves it empty. The
    claim ends with the process, however that ends. A process may claim a folder again while it
    holds it.

    Raises:
        OutputError: If another process has claimed it, or it cannot be made.
    """
    from filelock import FileLock, Timeout

    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.resolve() / LOCK
        lock = FileLock(file, blocking=False, is_singleton=True, thread_local=False)
        is_inner = lock.is_locked
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"another process is writing into {folder}; wait until it is done, or choose "
                "another `out`."
            ) from error
    failed = True
    try:
        yield
        failed = False
    finally:
        if not is_inner:
            with suppress(OSError):  # Windows deletes no open file, and filelock does it there
                file.unlink()  # while it is locked: nobody else can be in between
        lock.release()
        if failed:
            with suppress(OSError):  # it holds something
                folder.rmdir()


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
