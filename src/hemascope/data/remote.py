"""Files by URL, in object storage and elsewhere, through fsspec."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from hemascope.core.errors import UnreachableError, UsageError
from hemascope.store.files import explained, written_whole


def is_url(path: str) -> bool:
    """Whether a path says by which protocol it is reached."""
    return "://" in path


def open_file(path: str) -> IO[bytes]:
    """A file of this machine or by URL, to be read."""
    if not is_url(path):
        return Path(path).open("rb")
    files, place = filesystem(path)
    return files.open(place, "rb")


@contextmanager
def file_written_whole(path: str) -> Generator[IO[bytes]]:
    """A file of this machine or by URL to write to, there at the end of the block, or never.

    Raises:
        OutputError: If it cannot be written.
    """
    if not is_url(path):
        with written_whole(Path(path)) as file:
            yield file
        return
    files, place = filesystem(path)
    # Without the transaction, what was written before an error would be kept.
    with explained(Path(path)), files.transaction, files.open(place, "wb") as file:
        yield file


def found_at(url: str) -> list[str]:
    """What a URL stands for: the matches of a pattern, the files below a folder, or itself.

    In order, and empty if there is nothing.

    Raises:
        UnreachableError: If its storage does not answer, or refuses.
        UsageError: If fsspec, or what it needs for the protocol, is not installed.
    """
    files, place = filesystem(url)
    with _reached(url):
        if "*" in place:
            found = sorted(files.glob(place))
        elif files.isdir(place):
            found = sorted(files.find(place))
        else:
            return [url] if files.exists(place) else []
    return [str(files.unstrip_protocol(one)) for one in found]


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of fsspec that a URL or a path is of, and its place there.

    Raises:
        UsageError: If fsspec, or what it needs for the protocol, is not installed.
        UnreachableError: If its storage does not answer, or refuses.
    """
    try:
        from fsspec.core import url_to_fs

        with _reached(url):
            files, place = url_to_fs(url, use_listings_cache=False)  # others write
    except ImportError as error:
        raise UsageError(
            f"{url} cannot be reached ({error}); run pip install 'hemascope[scale]', and what "
            "fsspec needs for its protocol (s3fs, gcsfs or adlfs)."
        ) from error
    except ValueError as error:  # an unknown protocol
        raise UsageError(f"{url} cannot be reached ({error}).") from error
    return files, cast("str", place)


@contextmanager
def _reached(url: str) -> Generator[None]:
    """Whatever a client of a storage may raise, as one sentence."""
    try:
        yield
    except (ImportError, ValueError):
        raise
    except Exception as error:
        raise UnreachableError(f"{url} cannot be reached ({error}); try again later.") from error
