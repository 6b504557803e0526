"""`hemascope serve`: listens at once, puts a station together meanwhile, and runs it.

Nothing heavy is imported before the station listens.
"""

import gc
import json
import logging
import os
import secrets
import socket
import sys
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from hemascope.core.errors import RESEARCH_USE_ONLY, OutputError, UsageError
from hemascope.core.packaged import FOR_PHOTOGRAPHS
from hemascope.review.front import front
from hemascope.review.safety import Safety, hash_token
from hemascope.store.files import explained, write_text
from hemascope.workflows.progress import Reporter

if TYPE_CHECKING:
    from hemascope.review.station import Station

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_FILE = "token.sha256"  # noqa: S105 - a file's name
_HOUR = 3600.0
_SWITCH = 0.001  # seconds, after which what answers gives way to what receives: five times as often
_LOG = logging.getLogger("hemascope.review")


@dataclass(frozen=True)
class Served:
    """How a station is run.

    Attributes:
        folder: Where its images are, and its database if no other is named.
        model: A packaged model or an exported one.
        database: URL of a database; "" for SQLite in the folder.
        host: Address to listen at.
        port: Port to listen at; 0 for a free one.
        roles: TOML file of `Meanings`, if any.
        frame: How cells are framed, if not as the model says.
        keep_days: After how many days signed cases are deleted; 0 for never.
        tls: Files of a certificate and its key, if any.
        insecure: Whether another address than loopback may do without TLS.
        new_token: Whether to make a new token.
    """

    folder: Path
    model: str = FOR_PHOTOGRAPHS
    database: str = ""
    host: str = "127.0.0.1"
    port: int = 8765
    roles: Path | None = None
    frame: str = ""
    keep_days: int = 0
    tls: tuple[Path, Path] | None = None
    insecure: bool = False
    new_token: bool = False


def serve(served: Served, reporter: Reporter) -> None:
    """Runs a station until it is stopped.

    Raises:
        UsageError: If the address may not be used so, or is taken.
        DataError: If there is no such model, or the roles cannot be read.
        OutputError: If the folder or the database cannot be used.
    """
    is_local = _is_loopback(served.host)
    if not is_local and not served.tls and not served.insecure:
        why = f"{served.host} can be reached from other machines"
        remedy = "`insecure` if a proxy in front of the station does TLS."
        raise UsageError(f"{why}: give `tls_cert` and `tls_key`, or {remedy}", field="host")
    os.umask(0o077)
    folder = make_folder(served.folder)
    token = _token(folder, served, reporter, is_local=is_local)
    safety = Safety(token, _LOOPBACK_NAMES if is_local else frozenset())
    listener = _listener(served)
    _log_lines(logging.WARNING if is_local else logging.INFO)
    opened, registry = Future[ASGIApp](), CollectorRegistry()
    cert, key = served.tls or (None, None)
    config = uvicorn.Config(
        front(opened, safety, registry),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ssl_certfile=cert,
        ssl_keyfile=key,
        timeout_graceful_shutdown=5,
    )
    sys.setswitchinterval(_SWITCH)
    config.load()  # imports a little, before another thread imports much
    server, stopping = uvicorn.Server(config), Event()
    scheme = "https" if served.tls else "http"
    host = f"[{served.host}]" if ":" in served.host else served.host
    url, model = f"{scheme}://{host}:{listener.getsockname()[1]}", served.model
    reporter.say(f"Review station: {url} ({model}; {folder})")
    reporter.say(f"Ctrl-C stops it. {RESEARCH_USE_ONLY}")

    def work() -> None:
        gc.disable()  # until all is imported
        try:
            station, app = _opened(served, folder, safety, registry)
            gc.freeze()  # what stays is not looked through again, which takes 80 ms each time
        except Exception as error:  # which is raised below
            opened.set_exception(error)
            server.should_exit = True
            return
        finally:
            gc.enable()
        opened.set_result(app)
        while not stopping.wait(_tidied(station, served.keep_days)):
            pass
        station.database.engine.dispose()

    worker = Thread(target=work)
    worker.start()
    try:
        with suppress(KeyboardInterrupt):  # which uvicorn raises again when it has stopped
            server.run(sockets=[listener])
    finally:
        stopping.set()
        worker.join()
    if error := opened.exception():
        raise error


def _opened(
    served: Served, folder: Path, safety: Safety, registry: CollectorRegistry
) -> tuple["Station", ASGIApp]:
    """A station and its application: all that takes a while."""
    from hemascope.inference.predictor import Predictor
    from hemascope.review.api import build
    from hemascope.review.database import open_database
    from hemascope.review.intake import Limits
    from hemascope.review.station import Meanings, Station, read_meanings

    predictor = Predictor(served.model, frame=served.frame, threads=1)
    meanings = read_meanings(served.roles, predictor.class_names) if served.roles else Meanings()
    database, limits = open_database(folder, served.database), Limits()
    station = Station(database, folder, predictor, meanings=meanings, limits=limits)
    return station, build(station, safety, registry)


def make_folder(folder: Path) -> Path:
    """The station's folder, made if need be, that nobody else can look into.

    Raises:
        OutputError: If it cannot be made or written to.
    """
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} cannot be written to; choose another.", field="data_dir")
    return folder


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host in _LOOPBACK_NAMES


def _token(folder: Path, served: Served, reporter: Reporter, *, is_local: bool) -> str:
    """The SHA-256 of the token asked for; "" for none. A new token is shown once."""
    path = folder / _TOKEN_FILE
    if served.new_token or (not is_local and not path.is_file()):
        token = secrets.token_urlsafe(32)
        write_text(path, hash_token(token) + "\n")
        reporter.say(f"Token of this station, shown only now: {token}")
    return path.read_text("utf-8").strip() if path.is_file() else ""


def _listener(served: Served) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in served.host else socket.AF_INET
        return socket.create_server((served.host, served.port), family=family, backlog=2048)
    except OSError as error:
        where, why = f"{served.host}, port {served.port}", os.strerror(error.errno or 0)
        said = f"cannot listen at {where} ({why}); choose another, or 0 for a free one."
        raise UsageError(said, field="port") from error


def _tidied(station: "Station", days: int) -> float:
    """Takes away what nobody holds any more, and says in how many seconds to do so again."""
    from hemascope.review.retention import delete_older, delete_strays

    try:
        delete_strays(station)
        if days:
            delete_older(station, days)
    except Exception:  # the next hour may be better; the station carries on
        _LOG.exception("retention")
    return _HOUR


class _Line(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"at": self.formatTime(record), "level": record.levelname}
        said = record.getMessage()
        line["said"] = json.loads(said) if said.startswith("{") else said
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_lines(level: int) -> None:
    """Requests as lines of JSON on standard error, without names or images."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    _LOG.addHandler(handler)
    _LOG.setLevel(level)
