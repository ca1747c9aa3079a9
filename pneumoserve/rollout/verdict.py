"""What a gate of a rollout says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["pass", "fail", "insufficient", "wait"]
Number = float | int | str | None


class Verdict(BaseModel):
    """One gate's outcome, in a sentence and in the numbers that it was decided by.

    `insufficient`: the evidence could not have shown it, however it had come out. `wait`: more is on its way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    outcome: Outcome
    sentence: str
    numbers: dict[str, Number] = {}
