"""The station as a process: how it starts, what it refuses, and what survives its end."""

import runpy
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from conftest import Outcome
from hemascope.review.safety import hash_token
from stations import cell_files, served

Run = Callable[..., Outcome]
KILL = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "review_kill.py"))


def test_killed_under_load_it_loses_nothing(tmp_path: Path) -> None:
    """A small share of `benchmarks/review_kill.py`."""
    known, wrong = KILL["kill_often"](tmp_path / "station", "", kills=2, seed=3)
    assert wrong == []
    assert len(known.tokens) >= 10


def test_two_servers_share_a_postgresql_and_one_is_killed(
    postgres: Callable[[], str], tmp_path: Path
) -> None:
    known, wrong = KILL["kill_often"](tmp_path / "station", postgres(), kills=1, seed=4)
    assert wrong == []
    assert len(known.tokens) >= 5


def test_a_station_asks_for_its_token_and_keeps_only_its_hash(tmp_path: Path) -> None:
    folder = tmp_path / "station"
    with served(folder, "--new-token") as server:
        said = server.said
        token = next(line for line in said if "Token" in line).split()[-1]
        assert httpx2.get(f"{server.api}/cases").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx2.get(f"{server.api}/cases", headers=headers).status_code == 200
        rebound = {**headers, "Host": "evil.example"}
        assert httpx2.get(f"{server.api}/cases", headers=rebound).status_code == 421
        files = [("file", one) for one in cell_files(1).items()]
        answer = httpx2.post(f"{server.api}/predict", files=files, headers=headers, timeout=30)
        assert answer.status_code == 200
        busy = ("serve", "--data-dir", str(tmp_path / "x"), "--port", server.url.rpartition(":")[2])
        assert_refused(busy, "port")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        assert token.encode() not in (path.read_bytes() if path.is_file() else b"")
    assert (folder / "token.sha256").read_text().strip() == hash_token(token)


_RUN: list[Run] = []


@pytest.fixture(autouse=True)
def command(hemascope: Run) -> None:
    _RUN[:] = [hemascope]


def assert_refused(args: tuple[str, ...], *said: str) -> None:
    outcome = _RUN[0](*args)
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    for one in said:
        assert one in outcome.err


@pytest.mark.parametrize("host", ["192.0.2.1", "::", "station.example"])
def test_another_address_than_loopback_needs_tls_or_a_word(tmp_path: Path, host: str) -> None:
    args = ("serve", "--data-dir", str(tmp_path / "x"), "--host", host)
    assert_refused(args, "can be reached from other machines", "--tls-cert", "--insecure")
    assert not (tmp_path / "x").exists()


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    place = ("serve", "--data-dir", str(tmp_path / "station"))
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert_refused(("serve", "--data-dir", str(file)), str(file))
    assert_refused(("serve", "--data-dir", str(file / "inside")), str(file))
    assert_refused((*place, "--model", "no model"), "no model")
    assert_refused((*place, "--tls-cert", str(file)), "--tls-key")
    assert_refused((*place, "--roles", str(tmp_path / "none.toml")), "none.toml")
    assert_refused((*place, "--database", "nonsense"), "cannot be opened")
    for content, said in (
        ("roles = 5", "roles"),
        ("[roles]\nmonocyte = 'red'", "monocyte"),
        ("[roles]\nstrange = 'white'", "strange"),
        ("[roles", "TOML"),
    ):
        file.write_text(content)
        assert_refused((*place, "--roles", str(file)), said)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        args = ("serve", "--data-dir", str(tmp_path / "station"), "--port", port)
        assert_refused(args, f"cannot listen at 127.0.0.1, port {port}", "--port")
