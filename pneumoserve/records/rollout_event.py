"""What a rollout did and why, on record in the archive like every call: signed, chained, sealed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

What = Literal["started", "gates", "shadow", "step", "approved", "promoted", "rolled_back", "aborted", "finished"]
Outcome = Literal["pass", "fail", "insufficient", "wait"]
Number = float | int | str | None


class GateResult(BaseModel):
    """One gate's outcome, in a sentence and in the numbers that it was decided by.

    `insufficient`: the evidence could not have shown it, however it had come out. `wait`: more is on its way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    outcome: Outcome
    sentence: str
    numbers: dict[str, Number] = {}


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
    verdicts: tuple[GateResult, ...] = ()
    evidence: str | None = Field(default=None, description="digest of the adjudicated set that the gates used")
    disagreements: tuple[str, ...] = Field(
        default=(), description="predictions that the two releases decide otherwise, for a human to read"
    )
    why: str = ""
