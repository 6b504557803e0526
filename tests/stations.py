"""Review stations for tests: in this process, on SQLite and on a real PostgreSQL."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psycopg
import pytest
from httpx2 import Response
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from hemascope.data.rendered import render
from hemascope.inference.predictor import Predictor
from hemascope.review.api import build
from hemascope.review.database import open_database
from hemascope.review.front import front
from hemascope.review.intake import Limits
from hemascope.review.safety import Safety
from hemascope.review.station import Meanings, Station

PACKAGED = "hemanet-64-labs"
_REQUIRED = os.environ.get("HEMASCOPE_POSTGRES") == "required"
_START_SECONDS = 30
_EMPTIED: list[str] = []  # databases of PostgreSQL that can be used again


def png(pixels: NDArray[np.uint8] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, kind, **options)
    return file.getvalue()


def cell_files(count: int, seed: int = 3, size: int = 96) -> dict[str, bytes]:
    """Rendered cells as PNG files."""
    pictures = render(np.arange(count) % 8, seed=seed, image_size=size)
    return {f"cell-{i:03d}.png": png(one) for i, one in enumerate(pictures)}


@dataclass
class Desk:
    """A station in this process, and somebody who sits before it."""

    station: Station
    client: TestClient
    readers: dict[str, str] = field(default_factory=dict[str, str])

    def ask(self, method: str, path: str, *, status: int | None = None, **options: Any) -> Response:
        """A request; what is refused is refused as RFC 9457 says it."""
        answer = self.client.request(method, path, **options)
        if status is not None:
            assert answer.status_code == status, answer.text[:500]
        if answer.status_code >= 400:
            assert_problem(answer)
        return answer

    def get(self, path: str, **params: Any) -> Any:
        return self.ask("GET", path, params=params, status=200).json()

    def post(self, path: str, content: Any, status: int = 200) -> Any:
        answer = self.ask("POST", path, json=content, status=status)
        return answer.json() if answer.content else None

    def reader(self, name: str) -> str:
        """The id of a reader."""
        if name not in self.readers:
            self.readers[name] = self.ask("POST", "/readers", json={"name": name}).json()["id"]
        return self.readers[name]

    def case(self, name: str = "a case", reader: str = "Ann") -> str:
        """The id of a new case."""
        return self.post("/cases", {"name": name, "reader": self.reader(reader)}, 201)["id"]

    def upload(
        self, case: str, files: Mapping[str, bytes], reader: str = "Ann", status: int = 200
    ) -> Any:
        return self.ask(
            "POST",
            f"/cases/{case}/files",
            params={"reader": self.reader(reader)},
            files=[("file", (name, content)) for name, content in files.items()],
            status=status,
        ).json()

    def analyze(self, case: str, reader: str = "Ann") -> list[dict[str, Any]]:
        """The messages of an analysis."""
        answer = self.ask(
            "POST", f"/cases/{case}/analysis", json={"reader": self.reader(reader)}, status=200
        )
        return [json.loads(line) for line in answer.text.splitlines()]

    def info(self, case: str, reader: str = "Ann") -> Any:
        return self.get(f"/cases/{case}", reader=self.reader(reader))

    def cells(self, case: str, reader: str = "Ann") -> list[dict[str, Any]]:
        return self.get(f"/cases/{case}/cells", reader=self.reader(reader))["items"]

    def correct(
        self,
        case: str,
        changes: list[dict[str, Any]],
        reader: str = "Ann",
        status: int | None = 200,
    ) -> Any:
        sent = {"reader": self.reader(reader), "changes": changes}
        return self.ask("POST", f"/cases/{case}/corrections", json=sent, status=status).json()

    def identify(self, case: str, reader: str = "Ann", name: str = "monocyte") -> None:
        """Names every unidentified cell, and looks through every class."""
        changes = [
            change(cell, "not counted" if cell["error"] else name)
            for cell in self.cells(case, reader)
            if not cell["class"]
        ]
        if changes:
            self.correct(case, changes, reader)
        if unseen := self.info(case, reader)["unseen"]:
            sent = {"reader": self.reader(reader), "classes": unseen}
            self.ask("PUT", f"/cases/{case}/seen", json=sent, status=200)

    def act(self, case: str, what: str, reader: str = "Ann", status: int = 200, **more: str) -> Any:
        """Joins, finishes, signs or reopens."""
        return self.post(f"/cases/{case}/{what}", {"reader": self.reader(reader), **more}, status)

    def filled(self, count: int = 8, seed: int = 3, reader: str = "Ann", name: str = "") -> str:
        """A case whose cells are answered."""
        case = self.case(name or f"case {seed}", reader)
        self.upload(case, cell_files(count, seed), reader)
        self.analyze(case, reader)
        return case

    def signed(self, count: int = 8, seed: int = 3, name: str = "") -> str:
        """A case that is signed."""
        case = self.filled(count, seed, name=name)
        self.identify(case)
        self.act(case, "sign")
        return case


def change(cell: Mapping[str, Any], to: str, **more: str) -> dict[str, Any]:
    """A correction of a cell as it was shown."""
    return {"cell": cell["id"], "from": cell["class"], "to": to, **more}


def assert_problem(answer: Response) -> None:
    """A refusal has its own media type, one sentence, and no traceback."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text[:300]
    content = answer.json()
    assert content["status"] == answer.status_code
    assert content["type"] == "about:blank"
    assert content["title"]
    assert content["detail"].strip()
    assert "Traceback" not in answer.text


@contextmanager
def desk_at(
    folder: Path,
    predictor: Predictor,
    url: str = "",
    *,
    safety: Safety | None = None,
    **limits: int,
) -> Generator[Desk]:
    """A station in a folder."""
    folder.mkdir(exist_ok=True)
    database = open_database(folder, url)
    station = Station(
        database, folder, predictor, meanings=Meanings(), limits=replace(Limits(), **limits)
    )
    safety, registry, opened = safety or Safety(), CollectorRegistry(), Future[ASGIApp]()
    opened.set_result(build(station, safety, registry))
    app = front(opened, safety, registry)
    try:
        with TestClient(
            app, base_url="http://localhost/api/v1", raise_server_exceptions=False
        ) as client:
            yield Desk(station, client)
    finally:
        database.engine.dispose()


@pytest.fixture(scope="session")
def packaged() -> Predictor:
    """The packaged model for photographs."""
    return Predictor(PACKAGED, threads=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'station.db'}"
        return
    url = _EMPTIED.pop() if _EMPTIED else request.getfixturevalue("postgres")()
    yield url
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    _EMPTIED.append(url)


@pytest.fixture
def desk(database_url: str, packaged: Predictor, tmp_path: Path) -> Iterator[Desk]:
    """A station on each kind of database."""
    with desk_at(tmp_path / "station", packaged, database_url) as made:
        yield made


@pytest.fixture
def local_desk(packaged: Predictor, tmp_path: Path) -> Iterator[Desk]:
    """A station on SQLite, for what does not depend on its database."""
    with desk_at(tmp_path / "station", packaged) as made:
        yield made


def _missing(reason: str) -> None:
    """Skips, or fails where HEMASCOPE_POSTGRES=required."""
    if _REQUIRED:
        pytest.fail(f"{reason}, and HEMASCOPE_POSTGRES=required")
    pytest.skip(f"{reason}: the station is not tested on PostgreSQL")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A PostgreSQL of these tests' own; gives the URL of a new database each time."""
    programs = postgres_programs()
    if programs is None:
        _missing("initdb is not installed (Debian: postgresql)")
        raise AssertionError
    with running_postgres(programs) as new_database:
        yield new_database


def postgres_programs() -> Path | None:
    """Where PostgreSQL's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(found[-1]) if found else None)
    return Path(initdb).resolve().parent if initdb else None


@contextmanager
def running_postgres(programs: Path) -> Generator[Callable[[], str]]:
    """A PostgreSQL server on a socket in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hemascope-pg-"))  # which another user can enter
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "nobody")
        owner = {"user": "nobody", "group": folder.stat().st_gid, "extra_groups": []}
    data, log = folder / "data", folder / "log"
    running: subprocess.Popen[Any] | None = None
    try:
        made = [programs / "initdb", "-D", data, "-U", "hemascope", "--auth=trust", "--no-sync"]
        subprocess.run(
            [*map(str, made), "--encoding=UTF8", "--locale=C"],
            check=True,
            capture_output=True,
            cwd=folder,
            **owner,
        )
        # No TCP: only who may enter the folder reaches it. What a test writes need not outlive a
        # power cut.
        options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
        settings = [f"--{name}={value}" for name, value in options.items()]
        with log.open("wb") as file:
            running = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), *settings],
                stdout=file,
                stderr=file,
                cwd=folder,
                **owner,
            )
        _wait_for(folder, running, log)
        count = 0

        def new_database() -> str:
            nonlocal count
            count += 1
            with _connected(folder) as connection:
                connection.execute(f"CREATE DATABASE station_{count}".encode())
            return f"postgresql+psycopg://hemascope@/station_{count}?host={folder}"

        yield new_database
    finally:
        if running:
            running.send_signal(signal.SIGQUIT)  # at once: nothing of it is needed any more
            running.wait(_START_SECONDS)
        shutil.rmtree(folder)


@dataclass
class Server:
    """`hemascope serve` in a process of its own."""

    process: "subprocess.Popen[str]"
    url: str
    said: list[str]

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    def kill(self) -> None:
        """At once, without a chance to tidy up."""
        self.process.kill()
        self.process.wait(_START_SECONDS)


@contextmanager
def served(folder: Path, *options: str) -> Generator[Server]:
    """A server at a free port, stopped at the end unless it was killed."""
    with served_many(folder, *options, count=1) as [server]:
        yield server


@contextmanager
def served_many(folder: Path, *options: str, count: int) -> Generator[list[Server]]:
    """Servers that start at the same time."""
    command = [sys.executable, "-m", "hemascope", "serve", "--port", "0", "--data-dir"]
    processes = [
        subprocess.Popen([*command, str(folder), *options], stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield [_started(one) for one in processes]
    finally:
        for one in processes:
            if one.poll() is None:
                one.send_signal(signal.SIGINT)
        for one in processes:
            one.communicate(timeout=_START_SECONDS)


def _started(process: "subprocess.Popen[str]") -> Server:
    said: list[str] = []
    assert process.stderr
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"https?://\S+:[0-9]+", line):
            server = Server(process, found[0], said)
            _wait_until_ready(server)
            return server
    pytest.fail(f"the station did not start: {''.join(said)}")


def _wait_until_ready(server: Server) -> None:
    until = time.monotonic() + _START_SECONDS
    while httpx2.get(f"{server.api}/ready", timeout=_START_SECONDS).status_code != 200:
        if time.monotonic() > until:
            pytest.fail("the station is not ready")
        time.sleep(0.05)


def _connected(folder: Path) -> psycopg.Connection[Any]:
    return psycopg.connect(f"host={folder} user=hemascope dbname=postgres", autocommit=True)


def _wait_for(folder: Path, running: "subprocess.Popen[Any]", log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while running.poll() is None and time.monotonic() < until:
        try:
            with _connected(folder):
                return
        except psycopg.OperationalError:
            time.sleep(0.05)
    pytest.fail(f"PostgreSQL did not start: {log.read_text()[-500:]}")
