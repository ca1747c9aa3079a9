"""What Alembic runs for each step: on the connection that it is given, in the transaction that is open there."""

from __future__ import annotations

from alembic import context

from pneumoserve.review.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
