"""What a rollout has come to: one document, written before the cluster changes, so that anybody can go on from it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.rollout.cluster import ClusterError
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.records import What
from pneumoserve.rollout.verdict import Verdict

Phase = Literal[
    "warming", "gates", "shadow", "scaling", "serving", "window", "settling", "returning", "removing", "ended"
]
Outcome = Literal["promoted", "refused", "insufficient", "rolled back", "aborted"]

# What callers may reach; before it the route leads to the stable release alone.
WITH_TRAFFIC: Final = frozenset({"serving", "scaling", "window"})


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Wish(_Strict):
    """What a person asked for while the rollout ran, in the words of `abort --reason`."""

    kind: Literal["abort"]
    reason: str
    by: str


class Note(_Strict):
    """One thing that happened, to be recorded and told as an event; `number` counts from 1. `time` is RFC 3339, UTC."""

    number: int
    time: str
    what: What
    sentence: str
    percent: int
    verdicts: tuple[Verdict, ...] = ()
    evidence: str | None = None
    disagreements: tuple[str, ...] = ()


class State(_Strict):
    """A rollout. `percent` is the candidate's weight as it is meant to be; the route follows it.

    `step` counts from 0. `since` is when the phase began, `serving_since` when the gateway had taken the step's
    weights. `approved` is how many steps a person has let pass. `notes` are those not on record yet.
    """

    schema_: Literal["pneumoserve.rollout-state/1"] = Field(default="pneumoserve.rollout-state/1", alias="schema")
    rollout: str = Field(description="UUIDv7")
    plan: Plan
    stable: str
    marked: str = Field(default="", description="the release that the route named as settled before")
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
    wish: Wish | None = None
    outcome: Outcome | None = None
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    noted: int = Field(default=0, description="how many things happened")
    notes: tuple[Note, ...] = ()

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
    def mark(self) -> str:
        """The release that the route names as the one for the operator's values; as before, where nothing was won."""
        return self.marked if self.phase == "ended" and self.outcome != "promoted" else self.settled

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

    @classmethod
    def of_json(cls, text: str) -> State:
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
