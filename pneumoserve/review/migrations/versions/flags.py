"""Studies that a radiologist chose, and those whose answers were withdrawn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add their columns, and have all read anew: what is here does not say which studies those are."""
    op.add_column("predictions", sa.Column("origin", sa.String(length=32), nullable=True))
    op.add_column("cases", sa.Column("flagged", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("cases", sa.Column("withdrawn", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("cases", sa.Column("alerted", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("alerts", sa.Column("retracted", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("delete from positions")
