"""BloodMNIST itself: found where MedMNIST's library keeps it, or downloaded there."""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hemascope.core.errors import DataError, UnreachableError
from hemascope.data.collections import collection
from hemascope.data.npz import read_npz
from hemascope.data.source import OnDownload, Request, Source
from hemascope.store.files import explained, md5_of

VARIABLE = "HEMASCOPE_BLOODMNIST"
FILE_NAME = "bloodmnist.npz"

_CONNECT_SECONDS = 4.0  # a machine without a connection learns it in a few seconds
_READ_SECONDS = 10.0
_CHUNK_BYTES = 1 << 16


def medmnist_cache() -> Path:
    """Where MedMNIST's own library keeps its files (found without importing it: it needs torch)."""
    return Path.home() / ".medmnist"


def find_bloodmnist() -> Path | None:
    """The cached BloodMNIST file: `$HEMASCOPE_BLOODMNIST`, then MedMNIST's cache.

    Raises:
        DataError: If the variable names no file.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise DataError(f"{VARIABLE} names {named}, which is not a file; correct or unset it.")
        return Path(named)
    cached = medmnist_cache() / FILE_NAME
    return cached if cached.is_file() else None


def official_md5() -> str:
    """The md5 of the official file, of 28 pixels."""
    return collection("bloodmnist").md5s[28]


def load_bloodmnist(request: Request, *, retries: int) -> Source:
    """BloodMNIST from `$HEMASCOPE_BLOODMNIST`, MedMNIST's cache, or its download page.

    Raises:
        DataError: If the cached file is damaged.
        UnreachableError: If it has to be downloaded and cannot be.
    """
    path = find_bloodmnist() or download(retries=retries, on_download=request.on_download)
    if path.parent == medmnist_cache() and (md5 := md5_of(path)) != official_md5():
        raise DataError(
            f"{path} is not the official BloodMNIST (md5 {md5}, expected {official_md5()}); remove "
            "it so that it can be downloaded again, or name it by `data`."
        )
    asked = request.settings
    if not (asked.collection or asked.classes):  # whoever sets the variable says what it is
        request = replace(request, settings=asked.model_copy(update={"collection": "bloodmnist"}))
    return read_npz(path, request)


def download(*, retries: int, on_download: OnDownload) -> Path:
    """Downloads BloodMNIST into MedMNIST's cache; a broken download is taken up where it stopped.

    Returns:
        The path of the verified file; a whole file that is there already is not fetched again.

    Raises:
        UnreachableError: If it could not be had after `retries` more tries, with instructions.
    """
    path = medmnist_cache() / FILE_NAME
    if path.is_file() and md5_of(path) == official_md5():
        return path
    import pooch
    import requests

    url = collection("bloodmnist").url
    store = pooch.create(
        path=path.parent,
        base_url="",
        registry={FILE_NAME: f"md5:{official_md5()}"},
        urls={FILE_NAME: url},
        retry_if_failed=retries,
    )
    downloader: Any = partial(_resume, path.with_suffix(".npz.part"), on_download)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.fetch(FILE_NAME, downloader=downloader)
        except (requests.RequestException, ValueError) as error:
            silent = isinstance(error, requests.ConnectionError | requests.Timeout)
            reason = "the server did not answer" if silent else " ".join(str(error).split())
            raise UnreachableError(
                f"BloodMNIST could not be downloaded from {url} ({reason}). Connect and try again; "
                f"or copy {FILE_NAME} to {path.parent} or anywhere and set {VARIABLE} to its path; "
                "or use `data` synthetic."
            ) from error
    return path


def _resume(part: Path, on_download: OnDownload, url: str, output: str, _store: object) -> None:
    """Downloads for pooch, which checks the md5 and tries again; continues a part file."""
    import requests

    done = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    timeout = (_CONNECT_SECONDS, _READ_SECONDS)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # longer than the file: not a part of it
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            done = 0  # the server sends the whole file whatever was asked
        total = done + int(response.headers.get("Content-Length", 0))
        with part.open("r+b" if done else "wb") as file:
            file.seek(done)
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                on_download(done, total)
    if done < total:
        raise requests.ConnectionError("the connection broke off")
    shutil.move(part, output)
