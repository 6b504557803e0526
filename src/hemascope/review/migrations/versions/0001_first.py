"""The station's first tables, and triggers that keep the audit trail."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

_KEPT = "the audit trail is never changed"
_ITS_CASE = "EXISTS (SELECT 1 FROM cases WHERE id = OLD.case_id)"
_TRIGGERS = {
    "sqlite": (
        f"CREATE TRIGGER event_fixed BEFORE UPDATE ON event "
        f"BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END",
        f"CREATE TRIGGER event_kept BEFORE DELETE ON event "
        f"WHEN OLD.kind = 'deleted' OR {_ITS_CASE} BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END",
        # REPLACE deletes without the trigger for it.
        "CREATE TRIGGER event_once BEFORE INSERT ON event WHEN EXISTS "  # noqa: S608 - constants
        f"(SELECT 1 FROM event WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END",
    ),
    "postgresql": (
        f"""CREATE FUNCTION event_refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF TG_OP = 'DELETE' AND OLD.kind <> 'deleted' AND NOT {_ITS_CASE} THEN
                RETURN OLD;
            END IF;
            RAISE EXCEPTION '{_KEPT}';
        END $$""",
        "CREATE TRIGGER event_kept BEFORE UPDATE OR DELETE ON event "
        "FOR EACH ROW EXECUTE FUNCTION event_refused()",
        "CREATE TRIGGER event_all_kept BEFORE TRUNCATE ON event EXECUTE FUNCTION event_refused()",
    ),
}
_KINDS = {
    "sqlite": {"{bytes}": "BLOB", "{counter}": "INTEGER"},
    "postgresql": {"{bytes}": "BYTEA", "{counter}": "SERIAL"},
}


def upgrade() -> None:
    """Makes them."""
    database = op.get_bind().dialect.name
    tables = Path(__file__).with_suffix(".sql").read_text("utf-8")
    for name, kind in _KINDS[database].items():
        tables = tables.replace(name, kind)
    for statement in (*tables.split(";\n"), *_TRIGGERS[database]):
        op.execute(statement)
