"""What the station remembers: migrations, and an audit trail that nobody changes."""

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.exc import DBAPIError

from hemascope.core.errors import OutputError
from hemascope.review.database import (
    REVISIONS,
    Base,
    Case,
    Database,
    Event,
    Reader,
    migration_config,
    new_id,
    open_engine,
)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.engine.dispose()


def names_of(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def test_migrations_lead_to_the_models(database: Database) -> None:
    engine = database.engine
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    assert names_of(engine) == set(Base.metadata.tables)


def test_only_a_database_that_needs_it_is_migrated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [
        one.revision
        for one in ScriptDirectory.from_config(migration_config(database.url)).walk_revisions()
    ]
    assert known[::-1] == REVISIONS
    migrated: list[str] = []
    monkeypatch.setattr("hemascope.review.database._migrate", migrated.append)
    Database(database.url).engine.dispose()
    assert migrated == []
    with database.engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    Database(database.url).engine.dispose()
    assert migrated == [database.url]


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(OutputError, match=r"newer version of hemascope \(migration 9999\)") as said:
        Database(database.url)
    assert said.value.field == "database"
    assert "hemascope@" not in str(said.value)
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nonexistent/folder/station.db",
        "postgresql+psycopg://someone:secret@127.0.0.1:1/none",
        "oracle://x",
        "no url",
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    with pytest.raises(OutputError, match="cannot be opened") as said:
        Database(url)
    assert said.value.field == "database"
    assert "secret" not in str(said.value)
    assert "\n" not in str(said.value)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(OutputError, match=r"pip install 'hemascope\[postgres\]'"):
        Database("postgresql+psycopg://someone@127.0.0.1:1/none")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    path.write_bytes(b"not a database, but a text that somebody keeps" * 50)
    with pytest.raises(OutputError, match="cannot be opened"):
        Database(f"sqlite:///{path}")
    assert path.read_bytes().startswith(b"not a database")


def test_a_database_that_cannot_be_migrated_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    with sqlite3.connect(path) as plain:
        plain.execute("CREATE TABLE ix_cell_case_id (x)")  # in the way of an index
    plain.close()
    with pytest.raises(OutputError, match=r"cannot be opened \(there is already a table named"):
        Database(f"sqlite:///{path}")
    with sqlite3.connect(path) as plain:  # nothing is half made
        assert plain.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
    plain.close()


@pytest.fixture
def case_id(database: Database) -> str:
    with database.write() as session:
        reader = Reader(name="Ann", id=new_id())
        session.add(reader)
        session.flush()
        case = Case(id=new_id(), name="x", model={}, first_id=reader.id)
        session.add(case)
        session.add(Event(case_id=case.id, kind="created", reader="Ann"))
    return case.id


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET reader = 'somebody else'",
        "DELETE FROM event",
        "INSERT OR REPLACE INTO event SELECT * FROM event",
        "TRUNCATE event",
    ],
)
def test_the_database_refuses_to_change_the_trail(
    database: Database, case_id: str, statement: str
) -> None:
    is_sqlite = database.engine.dialect.name == "sqlite"
    if statement.startswith("TRUNCATE" if is_sqlite else "INSERT"):
        statement = "DELETE FROM event"  # which the other kind does not know
    with pytest.raises(DBAPIError, match="the audit trail is never changed"), database.write() as s:
        s.execute(text(statement))
    with database.read() as session:
        [kept] = session.scalars(select(Event).where(Event.case_id == case_id))
    assert (kept.kind, kept.reader) == ("created", "Ann")


def test_of_a_deleted_case_only_the_deletion_is_kept_for_good(
    database: Database, case_id: str
) -> None:
    with database.write() as session:
        session.execute(text("DELETE FROM cases"))
        session.execute(text("DELETE FROM event"))
        session.add(Event(case_id=case_id, kind="deleted"))
    with pytest.raises(DBAPIError, match="never changed"), database.write() as session:
        session.execute(text("DELETE FROM event"))


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    def fails() -> None:
        with database.write() as session:
            session.add(Reader(name="half"))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    with database.read() as session:
        assert session.scalars(select(Reader)).all() == []


def test_a_locked_database_is_waited_for_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemascope.review.database._BUSY_MS", 100)
    first = Database(f"sqlite:///{tmp_path / 'station.db'}")
    second = Database(first.url)
    try:
        with first.write() as session:
            session.add(Reader(name="Ann"))
            session.flush()
            with second.read() as other:  # readers wait for nobody
                assert other.scalars(select(Reader)).all() == []
            with pytest.raises(DBAPIError, match="locked"), second.write() as other:
                other.add(Reader(name="Ben"))
        with second.write() as other:
            other.add(Reader(name="Ben"))
        with second.read() as other:
            assert set(other.scalars(select(Reader.name))) == {"Ann", "Ben"}
    finally:
        first.engine.dispose()
        second.engine.dispose()


def test_engines_of_sqlite_keep_foreign_keys_and_a_log(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'x.db'}")
    try:
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    finally:
        engine.dispose()
