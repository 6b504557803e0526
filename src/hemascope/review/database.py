"""What the station remembers: tables, on SQLite or PostgreSQL, and their migrations.

An event is never changed, and never deleted while its case is there: the database itself refuses.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from sqlalchemy import Engine, ForeignKey, UniqueConstraint, create_engine, inspect, text
from sqlalchemy.event import listens_for
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.types import JSON, String, Text

from hemascope.core.errors import OutputError
from hemascope.core.fit import LaboratoryFit
from hemascope.review.problems import missing

if TYPE_CHECKING:
    from alembic.config import Config

_BUSY_MS = 5000  # that a writer waits for another
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
_FILE = "station.db"
_MIGRATIONS = Path(__file__).parent / "migrations"
REVISIONS = sorted(path.name[:4] for path in _MIGRATIONS.glob("versions/[0-9]*.py"))


def new_id() -> str:
    """An id that no other has."""
    return uuid4().hex


def now() -> str:
    """The time, as it is stored and shown."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Base(DeclarativeBase):
    """All tables."""

    def values(self) -> dict[str, Any]:
        """What a row holds."""
        return {column.key: getattr(self, column.key) for column in self.__table__.columns}


R = TypeVar("R", bound=Base)


def find(session: Session, kind: type[R], key: object, field: str = "", **how: Any) -> R:
    """The row of a key, read as `Session.get` reads it.

    Raises:
        Refused: If there is none.
    """
    row = session.get(kind, key, **how)
    if row is None:
        raise missing(kind.__name__.lower(), field)
    return row


def added(session: Session, row: R) -> R:
    """A new row, with what the database fills in."""
    session.add(row)
    session.flush()
    return row


class _Own:
    """What is kept by an id."""

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    created_at: Mapped[str] = mapped_column(String(32), default=now)


class Reader(_Own, Base):
    """Someone who names cells."""

    __tablename__ = "reader"
    name: Mapped[str] = mapped_column(String(100), unique=True)


class OwnClass(Base):
    """A class that the station has beside the model's."""

    __tablename__ = "own_class"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[str] = mapped_column(String(32), default=now)


class Case(_Own, Base):
    """Cells that are counted together. `version` grows with every change."""

    __tablename__ = "cases"
    creation_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[str] = mapped_column(String(32), default=now, index=True)
    version: Mapped[int] = mapped_column(default=1)
    model: Mapped[dict[str, Any]] = mapped_column(JSON)
    frame: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    shift: Mapped[str] = mapped_column(Text, default="")
    first_id: Mapped[str] = mapped_column(ForeignKey("reader.id"))
    second_id: Mapped[str | None] = mapped_column(ForeignKey("reader.id"))
    second_finished: Mapped[bool] = mapped_column(default=False)
    signed_at: Mapped[str | None] = mapped_column(String(32))
    signed_by: Mapped[str | None] = mapped_column(ForeignKey("reader.id"))

    def values(self) -> dict[str, Any]:
        """What a row holds, and whether it is signed."""
        return {**super().values(), "status": "signed" if self.signed_at else "open"}

    @property
    def fit(self) -> LaboratoryFit:
        """How its images are framed and answered."""
        return LaboratoryFit.model_validate(self.frame or {})

    @property
    def is_blind(self) -> bool:
        """Whether a second reader is at work, who does not see the first one's answers."""
        return self.second_id is not None and not self.second_finished


class StoredImage(Base):
    """An image on disk, named by its SHA-256."""

    __tablename__ = "image"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    num_bytes: Mapped[int]
    created_at: Mapped[str] = mapped_column(String(32), default=now)


class Cell(Base):
    """An image of a case, and what the model says of it. Its name is text, never a path."""

    __tablename__ = "cell"
    __table_args__ = (UniqueConstraint("case_id", "position"), UniqueConstraint("case_id", "key"))
    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), index=True)
    position: Mapped[int]
    key: Mapped[str] = mapped_column(String(64))  # of its name and bytes: nothing comes twice
    name: Mapped[str] = mapped_column(Text)
    image: Mapped[str | None] = mapped_column(ForeignKey("image.sha256"), index=True)
    error: Mapped[str] = mapped_column(Text, default="")
    note: Mapped[str] = mapped_column(Text, default="")
    look: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    predicted_class: Mapped[str | None] = mapped_column(String(200))
    abstain: Mapped[bool] = mapped_column(default=True)
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    features: Mapped[bytes | None]
    final_class: Mapped[str | None] = mapped_column(String(200), index=True)


class Reading(Base):
    """What a reader says a cell is; "" for unidentified again."""

    __tablename__ = "reading"
    cell_id: Mapped[str] = mapped_column(ForeignKey("cell.id"), primary_key=True)
    reader_id: Mapped[str] = mapped_column(ForeignKey("reader.id"), primary_key=True)
    class_name: Mapped[str | None] = mapped_column(String(200))  # None: only a comment so far
    comment: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[str] = mapped_column(String(32), default=now)


class Seen(Base):
    """A class of a case that a reader has looked through."""

    __tablename__ = "seen"
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    reader_id: Mapped[str] = mapped_column(ForeignKey("reader.id"), primary_key=True)
    class_name: Mapped[str] = mapped_column(String(200), primary_key=True)


class Event(Base):
    """One line of the audit trail."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[str] = mapped_column(String(32), index=True)
    at: Mapped[str] = mapped_column(String(32), default=now)
    reader: Mapped[str] = mapped_column(String(100), default="")
    kind: Mapped[str] = mapped_column(String(20))
    cell_id: Mapped[str] = mapped_column(String(32), default="")
    before: Mapped[str] = mapped_column(Text, default="")
    after: Mapped[str] = mapped_column(Text, default="")
    detail: Mapped[str] = mapped_column(Text, default="")


class Quiz(_Own, Base):
    """Signed cells that are shown to a reader again, blind.

    A result is kept here when some of its cells are deleted; until then it is what they say.
    """

    __tablename__ = "quiz"
    reader_id: Mapped[str] = mapped_column(ForeignKey("reader.id"), index=True)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    cells: Mapped[list["QuizCell"]] = relationship(order_by="QuizCell.number")


class QuizCell(Base):
    """A cell of a quiz: what was signed, and what the reader says now."""

    __tablename__ = "quiz_cell"
    quiz_id: Mapped[str] = mapped_column(ForeignKey("quiz.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    cell_id: Mapped[str] = mapped_column(ForeignKey("cell.id"), index=True)
    signed: Mapped[str] = mapped_column(String(200))
    answer: Mapped[str] = mapped_column(String(200), default="")
    cell: Mapped[Cell] = relationship(lazy="selectin")


class Database:
    """Sessions that read, and sessions that write one after another.

    Args:
        url: SQLAlchemy's, such as `sqlite:////data/station.db` or `postgresql+psycopg://...`.

    Raises:
        OutputError: If it cannot be opened, or a newer version of hemascope wrote it.
    """

    def __init__(self, url: str) -> None:
        self.url, self._line = url, Lock()
        try:
            self.engine = open_engine(url)
            with self.engine.connect() as connection:
                current = ""
                if inspect(connection).has_table("alembic_version"):
                    current = connection.scalar(text("SELECT version_num FROM alembic_version"))
            if not current or current in REVISIONS[:-1]:
                _migrate(url)
        except (SQLAlchemyError, ImportError) as error:
            why = str(getattr(error, "orig", None) or error).partition("\n")[0]
            said = f"the database {self.engine_name} cannot be opened ({why})"
            remedy = "check the path or the URL, and that its server runs."
            if isinstance(error, ImportError):
                remedy = "install its driver: for PostgreSQL, pip install 'hemascope[postgres]'."
            raise OutputError(f"{said}; {remedy}", field="database") from error
        if current and current not in REVISIONS:
            self.engine.dispose()
            said = f"the database {self.engine_name} was written by a newer version of hemascope"
            remedy = "update hemascope, or choose another data folder."
            raise OutputError(f"{said} (migration {current}); {remedy}", field="database")

    @property
    def engine_name(self) -> str:
        """Where it is, without a password."""
        return self.url.rpartition("@")[2].removeprefix("sqlite:///")

    @contextmanager
    def read(self) -> Generator[Session]:
        """A session that changes nothing."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Generator[Session]:
        """A session whose changes are all kept, or none."""
        writing = self.engine.execution_options(writes=True)
        # SQLite has one writer at a time: here they wait in line, there they would ask again.
        line = self._line if self.engine.dialect.name == "sqlite" else nullcontext()
        with line, Session(writing, expire_on_commit=False) as session, session.begin():
            yield session


def open_database(folder: Path, url: str = "") -> Database:
    """The station's database: the one in its folder if no other is named.

    Raises:
        OutputError: If it cannot be opened.
    """
    return Database(url or f"sqlite:///{(folder / _FILE).resolve()}")


def _migrate(url: str) -> None:
    """Leads the tables to those of this version."""
    from alembic import command  # late: a start without a migration does not wait for it

    command.upgrade(migration_config(url), "head")


def migration_config(url: str) -> "Config":
    """What Alembic needs to know."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = url
    return config


def open_engine(url: str) -> Engine:
    """Connections to a database; SQLite's has a log beside it, so that readers do not wait."""
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name != "sqlite":
        return engine

    @listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None  # transactions begin as `began` says
        for pragma in (f"busy_timeout = {_BUSY_MS}", *_PRAGMAS):
            connection.execute(f"PRAGMA {pragma}")

    @listens_for(engine, "begin")
    def began(connection: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
