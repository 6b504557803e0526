"""The station's first tables, and triggers that keep the audit trail."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Boolean, Column, ForeignKey, Integer, LargeBinary, String, Text
from sqlalchemy import UniqueConstraint as Unique

revision = "0001"
down_revision = None

_TABLES = sa.MetaData()


def _table(name: str, *columns: Column[Any] | Unique) -> None:
    sa.Table(name, _TABLES, *columns)


def _text(name: str, length: int = 32, *, of: str = "", **options: Any) -> Column[Any]:
    references = [ForeignKey(of)] if of else []
    kind = String(length) if length else Text()
    options.setdefault("nullable", False)
    return Column(name, kind, *references, **options)


def _number(name: str, **options: Any) -> Column[Any]:
    return Column(name, Integer(), nullable=False, **options)


def _flag(name: str) -> Column[Any]:
    return Column(name, Boolean(), nullable=False)


_table(
    "reader", _text("id", primary_key=True), _text("name", 100, unique=True), _text("created_at")
)
_table("own_class", _text("name", 60, primary_key=True), _text("role", 20), _text("created_at"))
_table(
    "cases",
    _text("id", primary_key=True),
    _text("creation_key", 200, nullable=True, unique=True),
    _text("name", 100),
    _text("created_at", index=True),
    _number("version"),
    Column("model", sa.JSON(), nullable=False),
    Column("frame", sa.JSON()),
    _text("shift", 0),
    _text("first_id", of="reader.id"),
    _text("second_id", of="reader.id", nullable=True),
    _flag("second_finished"),
    _text("signed_at", nullable=True),
    _text("signed_by", of="reader.id", nullable=True),
)
_table("image", _text("sha256", 64, primary_key=True), _number("num_bytes"), _text("created_at"))
_table(
    "cell",
    _text("id", primary_key=True),
    _text("case_id", of="cases.id", index=True),
    _number("position"),
    _text("key", 64),
    _text("name", 0),
    _text("image", 64, of="image.sha256", nullable=True, index=True),
    _text("error", 0),
    _text("note", 0),
    Column("look", sa.JSON()),
    _text("predicted_class", 200, nullable=True),
    _flag("abstain"),
    Column("answer", sa.JSON()),
    Column("features", LargeBinary()),
    _text("final_class", 200, nullable=True, index=True),
    Unique("case_id", "position"),
    Unique("case_id", "key"),
)
_table(
    "reading",
    _text("cell_id", of="cell.id", primary_key=True),
    _text("reader_id", of="reader.id", primary_key=True),
    _text("class_name", 200, nullable=True),
    _text("comment", 0),
    _text("at"),
)
_table(
    "seen",
    _text("case_id", of="cases.id", primary_key=True),
    _text("reader_id", of="reader.id", primary_key=True),
    _text("class_name", 200, primary_key=True),
)
_table(
    "event",
    _number("id", primary_key=True),
    _text("case_id", index=True),
    _text("at"),
    _text("reader", 100),
    _text("kind", 20),
    _text("cell_id"),
    _text("before", 0),
    _text("after", 0),
    _text("detail", 0),
)
_table(
    "quiz",
    _text("id", primary_key=True),
    _text("reader_id", of="reader.id", index=True),
    _text("created_at"),
)
_table(
    "quiz_cell",
    _text("quiz_id", of="quiz.id", primary_key=True),
    _number("number", primary_key=True),
    _text("cell_id", of="cell.id", index=True),
    _text("signed", 200),
    _text("answer", 200),
)

_KEPT = "the audit trail is never changed"
_ITS_CASE = "EXISTS (SELECT 1 FROM cases WHERE id = OLD.case_id)"
_SQLITE = (
    f"CREATE TRIGGER event_fixed BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END",
    "CREATE TRIGGER event_kept BEFORE DELETE ON event "
    f"WHEN OLD.kind = 'deleted' OR {_ITS_CASE} BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END",
)
_POSTGRESQL = (
    f"""CREATE FUNCTION event_refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'UPDATE' OR OLD.kind = 'deleted' OR {_ITS_CASE} THEN
            RAISE EXCEPTION '{_KEPT}';
        END IF;
        RETURN OLD;
    END $$""",
    "CREATE TRIGGER event_kept BEFORE UPDATE OR DELETE ON event "
    "FOR EACH ROW EXECUTE FUNCTION event_refused()",
)


def upgrade() -> None:
    """Makes them."""
    _TABLES.create_all(op.get_bind())
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in _POSTGRESQL if is_postgresql else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    """Takes them away, with all that they hold."""
    _TABLES.drop_all(op.get_bind())
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION event_refused()")
