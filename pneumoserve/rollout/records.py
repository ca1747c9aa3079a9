"""What a rollout did and why, on record in the archive like every call: signed, chained, sealed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.rollout.verdict import Verdict

if TYPE_CHECKING:
    from pneumoserve.archive.store import ObjectStore

What = Literal["started", "gates", "shadow", "step", "approved", "promoted", "rolled_back", "aborted", "finished"]
WRITERS = "rollout"


class RolloutEvent(BaseModel):
    """One thing that happened in a rollout. `release` is the candidate; `percent` its weight from then on."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.rollout/1"] = Field(default="pneumoserve.rollout/1", alias="schema")
    event_id: str = Field(description="UUIDv7, lower case with hyphens")
    rollout_id: str
    number: int = Field(ge=1, description="its place among the rollout's events, without gaps")
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    release: str
    stable: str
    what: What
    percent: int = Field(ge=0, le=100)
    verdicts: tuple[Verdict, ...] = ()
    evidence: str | None = Field(default=None, description="digest of the adjudicated set that the gates used")
    disagreements: tuple[str, ...] = Field(
        default=(), description="predictions that the two releases decide otherwise, for a human to read"
    )
    why: str = ""


def events_of(store: ObjectStore, since: datetime, rollout_id: str) -> list[RolloutEvent]:
    """What is on record of a rollout since a moment, the first first.

    Raises:
        StoreError: the store does not answer.
        ValueError: an entry cannot be read.
    """
    # An entry's form is known to the reader, and so it imports this module.
    from pneumoserve.archive.read import entries  # noqa: PLC0415

    found = (entry for entry in entries(store, since) if isinstance(entry, RolloutEvent))
    return sorted((each for each in found if each.rollout_id == rollout_id), key=lambda event: event.number)
