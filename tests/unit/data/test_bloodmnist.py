"""Finding and downloading BloodMNIST, against a server on this machine that misbehaves."""

import hashlib
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hemascope.core.errors import DataError, UnreachableError
from hemascope.core.images import Dataset
from hemascope.data import bloodmnist, collections, load
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Sends CONTENT; breaks off after `limit` bytes as often as `failures` says."""

    limit = 5 << 16  # whole chunks of the downloader
    failures = 0
    honors_ranges = True
    ranges: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if self.server.honors_ranges else 0
        if start > len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if self.server.honors_ranges else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        if self.server.failures > 0:
            self.server.failures -= 1
            self.wfile.write(CONTENT[start : start + self.server.limit])
        else:
            self.wfile.write(CONTENT[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HEMASCOPE_BLOODMNIST", raising=False)
    return tmp_path


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/bloodmnist.npz"
    _published(monkeypatch, url=url, md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _download(*, retries: int = 4) -> Path:
    return bloodmnist.download(retries=retries, on_download=lambda _done, _total: None)


def _published(monkeypatch: pytest.MonkeyPatch, *, url: str = "", md5: str = "") -> None:
    """The collection as if it were published elsewhere, or as another file."""
    known = collections.collection("bloodmnist")
    changes = {"url": url or known.url, "md5s": {28: md5 or known.md5s[28]}}
    changed = known.model_copy(update=changes)
    monkeypatch.setitem(collections.collections(), "bloodmnist", changed)  # type: ignore[arg-type]


def _load(source: str, **options: object) -> Dataset:
    return load(Request(DataSettings.model_validate({"sources": (source,), **options})))


def test_a_broken_download_goes_on_where_it_stopped(server: Server, home: Path) -> None:
    server.failures = 2
    progress: list[tuple[int, int]] = []
    path = bloodmnist.download(retries=4, on_download=lambda *pair: progress.append(pair))
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={i * server.limit}-" for i in range(3)]
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert list(path.parent.iterdir()) == [path]


def test_what_was_had_before_a_failure_is_kept_for_the_next_command(server: Server) -> None:
    server.failures = 1
    with pytest.raises(UnreachableError):
        _download(retries=0)
    assert _download(retries=0).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={server.limit}-"


def test_a_server_without_ranges_is_asked_again_from_the_start(server: Server) -> None:
    server.honors_ranges = False
    server.failures = 1
    assert _download().read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, home: Path) -> None:
    (home / ".medmnist").mkdir(exist_ok=True)
    (home / ".medmnist" / "bloodmnist.npz.part").write_bytes(CONTENT + b"more")
    assert _download().read_bytes() == CONTENT


def test_a_whole_file_is_not_fetched_again(server: Server) -> None:
    _download()
    _download()
    assert len(server.ranges) == 1


def test_a_file_with_another_md5_is_not_kept(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _published(monkeypatch, url=collections.collection("bloodmnist").url, md5="0" * 32)
    with pytest.raises(UnreachableError, match="MD5"):
        _download(retries=1)
    assert not (home / ".medmnist" / "bloodmnist.npz").exists()


def test_without_a_connection_the_user_is_told_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _published(monkeypatch, url="http://127.0.0.1:1/bloodmnist.npz")
    with pytest.raises(UnreachableError, match="HEMASCOPE_BLOODMNIST") as error:
        _load("bloodmnist")
    assert error.value.exit_code == 3
    assert "`data` synthetic" in str(error.value)


def test_auto_falls_back_to_rendered_cells_and_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _published(monkeypatch, url="http://127.0.0.1:1/bloodmnist.npz")
    monkeypatch.setattr(
        "hemascope.data.synthetic.COUNTS", dict.fromkeys(("train", "val", "test"), (1,) * 8)
    )
    dataset = _load("auto", image_size=16)
    assert dataset.title == "RENDERED CELLS, NOT BLOODMNIST"
    assert "could not be downloaded" in dataset.notes[0]


@pytest.mark.usefixtures("server")
def test_auto_falls_back_from_a_damaged_cache_but_not_from_a_wrong_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hemascope.data.synthetic.COUNTS", dict.fromkeys(("train", "val", "test"), (1,) * 8)
    )
    (home / ".medmnist").mkdir(exist_ok=True)
    (home / ".medmnist" / "bloodmnist.npz").write_bytes(b"damaged")
    dataset = _load("auto", image_size=16)
    assert dataset.kind == "rendered"
    assert "is not the official BloodMNIST" in dataset.notes[0]
    monkeypatch.setenv("HEMASCOPE_BLOODMNIST", str(home / "none.npz"))
    with pytest.raises(DataError, match="HEMASCOPE_BLOODMNIST names"):
        _load("auto")


def test_the_variable_comes_before_the_cache(
    home: Path, small_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = home / ".medmnist"
    cache.mkdir(exist_ok=True)
    (cache / "bloodmnist.npz").write_bytes(b"damaged")
    monkeypatch.setenv("HEMASCOPE_BLOODMNIST", str(small_npz))
    assert _load("bloodmnist").source == str(small_npz)
    monkeypatch.setenv("HEMASCOPE_BLOODMNIST", str(home / "none.npz"))
    with pytest.raises(DataError, match="HEMASCOPE_BLOODMNIST names"):
        _load("bloodmnist")


def test_another_file_in_medmnist_s_cache_is_not_taken_for_bloodmnist(
    home: Path, small_npz: Path
) -> None:
    cache = home / ".medmnist"
    cache.mkdir(exist_ok=True)
    (cache / "bloodmnist.npz").write_bytes(small_npz.read_bytes())
    with pytest.raises(DataError, match="is not the official BloodMNIST"):
        _load("bloodmnist")
