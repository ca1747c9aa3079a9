"""What a rollout has come to: one document, written before the cluster changes, so that anybody can go on from it."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.ids import time_text
from pneumoserve.records import GateResult, What
from pneumoserve.rollout.cluster import ClusterError
from pneumoserve.rollout.plan import Plan

Phase = Literal[
    "warming", "gates", "shadow", "scaling", "serving", "window", "settling", "returning", "removing", "ended"
]
Outcome = Literal["promoted", "refused", "insufficient", "rolled back", "aborted"]

# What callers may reach; before it the route leads to the stable release alone.
WITH_TRAFFIC: Final = frozenset({"serving", "scaling", "window"})


# What a state that lacks an approval says it waits for.
WAITS_FOR_APPROVAL: Final = "approval: pneumoserve rollout promote"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class AbortRequest(_Strict):
    """A person's request to end the rollout, in the words of `abort --reason`."""

    kind: Literal["abort"]
    reason: str
    by: str


class PendingEvent(_Strict):
    """One thing that happened and is not on record yet; `number` counts from 1. `time` is RFC 3339, UTC."""

    number: int
    time: str
    what: What
    sentence: str
    percent: int
    verdicts: tuple[GateResult, ...] = ()
    evidence: str | None = None
    disagreements: tuple[str, ...] = ()


# What the state's JSON calls fields that have a clearer name here: rollouts under way were begun with these.
_STORED_NAMES: Final = {
    "schema_": "schema",
    "earlier_annotation": "marked",
    "abort_request": "wish",
    "event_count": "noted",
    "pending_events": "notes",
}


class RolloutState(_Strict):
    """A rollout. `percent` is the candidate's weight as it is meant to be; the route follows it.

    `step` counts from 0. `since` is when the phase began, `serving_since` when the gateway had taken the step's
    weights. `approved` is how many steps a person has let pass. `pending_events` are those not on record yet.
    """

    model_config = ConfigDict(alias_generator=lambda name: _STORED_NAMES.get(name, name))

    schema_: Literal["pneumoserve.rollout-state/1"] = "pneumoserve.rollout-state/1"
    rollout: str = Field(description="UUIDv7")
    plan: Plan
    stable: str
    earlier_annotation: str = Field(default="", description="the release that the route named as settled before")
    pods: int = Field(description="pods of the stable release when the rollout began")
    phase: Phase = "warming"
    step: int = 0
    percent: int = Field(default=0, ge=0, le=100)
    since: str
    serving_since: str | None = None
    split_since: str | None = Field(
        default=None, description="when the last step began in which both releases answered"
    )
    approved: int = 0
    calls: dict[str, int] = Field(default_factory=dict, description="calls of each release in this step")
    waits_for: str = ""
    abort_request: AbortRequest | None = None
    outcome: Outcome | None = None
    reason: str = ""
    verdicts: tuple[GateResult, ...] = ()
    event_count: int = Field(default=0, description="how many things happened")
    pending_events: tuple[PendingEvent, ...] = ()

    @property
    def candidate(self) -> str:
        """Id of the release that is tried."""
        return self.plan.candidate

    @property
    def settled(self) -> str:
        """The release that the operator's values should name: the candidate once it has won for good."""
        won = self.outcome == "promoted" and self.phase in ("settling", "ended")
        return self.candidate if won else self.stable

    @property
    def stable_annotation(self) -> str:
        """The release that the route names as the one for the operator's values; as before, where nothing was won."""
        return self.earlier_annotation if self.phase == "ended" and self.outcome != "promoted" else self.settled

    @property
    def weights(self) -> dict[str, int]:
        """The weight of each release that the route should name; they sum to 100."""
        match self.phase:
            case "warming" | "gates" | "shadow" | "removing":
                return {self.stable: 100}
            case "settling":
                return {self.candidate: 100}
            case "ended":
                return {self.settled: 100}
            case _:
                return {self.stable: 100 - self.percent, self.candidate: self.percent}

    def pods_for(self, percent: int) -> int:
        """Pods for a share of the calls that the stable release's pods take."""
        return max(1, math.ceil(self.pods * percent / 100))

    def with_event(
        self,
        now: datetime,
        what: What,
        sentence: str,
        *,
        verdicts: tuple[GateResult, ...] = (),
        evidence: str | None = None,
        disagreements: tuple[str, ...] = (),
    ) -> RolloutState:
        """The state with one more event that is to be recorded."""
        event = PendingEvent(
            number=self.event_count + 1,
            time=time_text(now),
            what=what,
            sentence=sentence,
            percent=self.percent,
            verdicts=verdicts,
            evidence=evidence,
            disagreements=disagreements,
        )
        return self.model_copy(update={"event_count": event.number, "pending_events": (*self.pending_events, event)})

    @classmethod
    def of_json(cls, text: str) -> RolloutState:
        """As it was kept.

        Raises:
            ClusterError: it is of a form that this version does not read.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            raise ClusterError(
                "This rollout was started by another version of pneumoserve; go on with that one, or end it there."
            ) from None

    def to_json(self) -> str:
        """As it is kept."""
        return self.model_dump_json(by_alias=True)
