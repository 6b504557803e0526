"""`hemascope serve`: puts a station together and runs it until it is stopped."""

import json
import logging
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread

import uvicorn
from sqlalchemy import select

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, OutputError, UsageError
from hemascope.core.packaged import FOR_PHOTOGRAPHS
from hemascope.inference.predictor import Predictor
from hemascope.review import cases
from hemascope.review.api import build
from hemascope.review.database import Case, Database, StoredImage
from hemascope.review.images import ImageStore
from hemascope.review.intake import Limits
from hemascope.review.safety import Safety, hash_token
from hemascope.review.station import Meanings, Station
from hemascope.settings.base import load_toml
from hemascope.store.files import explained, write_text
from hemascope.workflows.progress import Reporter

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_FILE = "token.sha256"  # noqa: S105 - a file's name
_DATABASE = "station.db"
_HOUR = 3600.0
_LOG = logging.getLogger("hemascope.review")


@dataclass(frozen=True)
class Served:
    """How a station is run.

    Attributes:
        folder: Where its images are, and its database if no other is named.
        model: A packaged model or an exported one; "" for the packaged one for photographs.
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
    model: str = ""
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
        raise UsageError(
            f"{served.host} can be reached from other machines: give `tls_cert` and `tls_key`, or "
            "`insecure` if a proxy in front of the station does TLS.",
            field="host",
        )
    os.umask(0o077)
    predictor = Predictor(served.model or FOR_PHOTOGRAPHS, frame=served.frame, threads=1)
    meanings = read_meanings(served.roles, predictor.class_names) if served.roles else Meanings()
    folder = make_folder(served.folder)
    database = open_database(folder, served.database)
    token_sha256 = _token(folder, served, reporter, is_local=is_local)
    limits = Limits()
    station = Station(database, folder, predictor, meanings=meanings, limits=limits)
    listener = _listener(served)
    port = listener.getsockname()[1]
    safety = Safety(
        token_sha256=token_sha256,
        hosts=_LOOPBACK_NAMES if is_local else frozenset(),
        max_request_bytes=limits.max_request_bytes,
    )
    _log_lines(logging.WARNING if is_local else logging.INFO)
    cert, key = served.tls or (None, None)
    config = uvicorn.Config(
        build(station, safety),
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=cert,
        ssl_keyfile=key,
        timeout_graceful_shutdown=5,
    )
    scheme = "https" if served.tls else "http"
    shown = f"[{served.host}]" if ":" in served.host else served.host
    reporter.say(f"Review station: {scheme}://{shown}:{port} ({station.model.name}; {folder})")
    reporter.say(f"Ctrl-C stops it. {RESEARCH_USE_ONLY}")
    stopping = Event()
    Thread(target=_tidy, args=(station, served.keep_days, stopping), daemon=True).start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # which uvicorn raises again when it has stopped
        pass
    finally:
        stopping.set()
        database.engine.dispose()


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


def open_database(folder: Path, url: str = "") -> Database:
    """The station's database.

    Raises:
        OutputError: If it cannot be opened.
    """
    return Database(url or f"sqlite:///{(folder / _DATABASE).resolve()}")


def open_images(folder: Path) -> ImageStore:
    """The station's pictures."""
    return ImageStore(folder / "images")


def read_meanings(path: Path, class_names: tuple[str, ...]) -> Meanings:
    """What classes count as, from a TOML file with the tables `roles` and `ranges`.

    Raises:
        DataError: If it cannot be read, or names classes that the model does not have.
    """
    found = load_toml(path, Meanings)
    if unknown := sorted({*found.roles, *found.ranges} - set(class_names)):
        raise DataError(
            f"{path} names classes that the model does not have: {', '.join(unknown)}; it has "
            f"{', '.join(class_names)}.",
            field="roles",
        )
    return found


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return False


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
        why = os.strerror(error.errno or 0)
        raise UsageError(
            f"cannot listen at {served.host}, port {served.port} ({why}); choose another, or 0 for "
            "a free one.",
            field="port",
        ) from error


def _tidy(station: Station, days: int, stopping: Event) -> None:
    """Takes away what nobody holds any more, now and every hour."""
    while True:
        try:
            delete_strays(station)
            if days:
                delete_older(station, days)
        except Exception:  # the next hour may be better; the station carries on
            _LOG.exception("retention")
        if stopping.wait(_HOUR):
            return


def delete_strays(station: Station) -> None:
    """Deletes images that no case holds: of uploads and deletions that were cut short."""
    there = station.images.digests()
    with station.database.read() as session:
        there -= set(session.scalars(select(StoredImage.sha256)))
    if there:
        cases.drop_files(station, there)


def delete_older(station: Station, days: int) -> int:
    """Deletes cases that were signed more than so many days ago, and says how many."""
    before = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    with station.database.read() as session:
        old = session.scalars(select(Case.id).where(Case.signed_at < before)).all()
    for case_id in old:
        cases.remove(station, case_id, signed_before=before)
    return len(old)


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
