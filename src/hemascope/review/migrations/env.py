"""How Alembic runs the station's migrations: in one transaction, one process at a time."""

from alembic import context
from sqlalchemy import text

from hemascope.review.database import Base, open_engine

_LOCK = 7_302_114  # any number that no other program takes

engine = open_engine(context.config.attributes["url"])
with engine.connect().execution_options(writes=True) as connection:
    context.configure(connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context.run_migrations()
engine.dispose()
