"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.String(length=36), nullable=False),
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("caller", sa.String(length=255), nullable=True),
        sa.Column("answer_time", sa.String(length=24), nullable=False),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.Column("severity", sa.String(length=32), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("sent", sa.String(length=24), nullable=True),
        sa.Column("acknowledged", sa.String(length=24), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=255), nullable=True),
        sa.Column("ordered", sa.String(length=32), nullable=True),
        sa.Column("escalations", sa.Integer(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("closed", sa.String(length=24), nullable=True),
        sa.PrimaryKeyConstraint("alert_id"),
        sa.UniqueConstraint("case_id"),
    )
    op.create_index("alerts_open", "alerts", ["closed", "time"], unique=False)
    op.create_table(
        "cases",
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("opened", sa.String(length=24), nullable=False),
        sa.Column("release", sa.String(length=12), nullable=False),
        sa.Column("patient", sa.String(length=64), nullable=True),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("finding", sa.String(length=32), nullable=True),
        sa.Column("pneumonia_type", sa.String(length=32), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("referred", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("pneumonia_probability", sa.Float(), nullable=True),
        sa.Column("severity", sa.String(length=32), nullable=True),
        sa.Column("alert_due", sa.Boolean(), nullable=False),
        sa.Column("drawn", sa.Boolean(), nullable=False),
        sa.Column("adjudication_due", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("case_id"),
    )
    op.create_index("cases_alert_due", "cases", ["alert_due", "opened"], unique=False)
    op.create_index(op.f("ix_cases_opened"), "cases", ["opened"], unique=False)
    op.create_table(
        "claims",
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("reader", sa.String(length=255), nullable=False),
        sa.Column("until", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("case_id"),
    )
    op.create_index(op.f("ix_claims_reader"), "claims", ["reader"], unique=False)
    op.create_table(
        "exposures",
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("page", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("case_id", "person", "page"),
    )
    op.create_table(
        "facts",
        sa.Column("entry_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("case_id", sa.String(length=64), nullable=True),
        sa.Column("prediction_id", sa.String(length=36), nullable=True),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id"),
    )
    op.create_index(op.f("ix_facts_case_id"), "facts", ["case_id"], unique=False)
    op.create_index(op.f("ix_facts_kind"), "facts", ["kind"], unique=False)
    op.create_index(op.f("ix_facts_prediction_id"), "facts", ["prediction_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("alert_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=36), nullable=False),
        sa.Column("until", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", "step"),
    )
    op.create_table(
        "outbox",
        sa.Column("alert_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("urgent", sa.Boolean(), nullable=False),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", "step"),
    )
    op.create_index(op.f("ix_outbox_case_id"), "outbox", ["case_id"], unique=False)
    op.create_table(
        "positions",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("place"),
    )
    op.create_table(
        "predictions",
        sa.Column("prediction_id", sa.String(length=36), nullable=False),
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.Column("release", sa.String(length=12), nullable=False),
        sa.Column("caller", sa.String(length=255), nullable=True),
        sa.Column("patient", sa.String(length=64), nullable=True),
        sa.Column("finding", sa.String(length=32), nullable=True),
        sa.Column("pneumonia_type", sa.String(length=32), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("referred", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("pneumonia_probability", sa.Float(), nullable=True),
        sa.Column("stored_key", sa.Text(), nullable=False),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("prediction_id"),
    )
    op.create_index(op.f("ix_predictions_case_id"), "predictions", ["case_id"], unique=False)
    op.create_table(
        "readings",
        sa.Column("label_id", sa.String(length=36), nullable=False),
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("reader", sa.String(length=255), nullable=False),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.Column("finding", sa.String(length=32), nullable=True),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("label_id"),
    )
    op.create_index("readings_case", "readings", ["case_id", "reader"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("case_id", sa.String(length=64), nullable=False),
        sa.Column("asked", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("due", sa.String(length=24), nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("case_id"),
    )
    op.create_index("tasks_due", "tasks", ["due", "case_id"], unique=False)
