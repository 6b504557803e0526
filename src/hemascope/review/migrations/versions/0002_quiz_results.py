"""Results of quizzes, which outlive the cells that they were of."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column."""
    op.add_column("quiz", sa.Column("result", sa.JSON(), nullable=True))
