"""The plan of a rollout: one YAML file that says what is tried, on what evidence, in which steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from pneumoserve.errors import PneumoserveError
from pneumoserve.rollout.comparison import ComparisonSettings
from pneumoserve.rollout.gates import RENAMED_MARGINS, GateSettings
from pneumoserve.rollout.shadow import ShadowSettings
from pneumoserve.yaml_files import YamlFile


class PlanError(PneumoserveError):
    """A plan that cannot be followed; the sentence says what to change."""

    exit_code = 2


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, alias_generator=to_camel)


class Step(_Settings):
    """A share of the calls, and what must have been seen at it before the next one."""

    percent: int = Field(ge=1, le=100, description="the candidate's share of all calls")
    min_calls: int = Field(default=0, ge=0, description="calls that the candidate must have answered")
    min_seconds: int = Field(default=0, ge=0)


class Plan(_Settings):
    """What to try and how. Times are in seconds; an id is the 12 hex digits of a release."""

    candidate: str = Field(pattern=r"^[0-9a-f]{12}$")
    evidence: str = Field(
        description="`labels`, the key of a set that `review freeze` stored, or that of an ingested dataset's manifest",
        min_length=1,
    )
    acceptance: str | None = Field(
        default=None, description="id of an acceptance of the candidate, which two people must have approved"
    )
    gates: GateSettings = GateSettings()
    shadow: ShadowSettings = ShadowSettings()
    comparison: ComparisonSettings = ComparisonSettings()
    steps: tuple[Step, ...] = Field(min_length=1)
    approval: Literal["automatic", "manual"] = "automatic"
    rollback_window_seconds: int = Field(default=3600, ge=0)
    poll_seconds: float = Field(default=5.0, gt=0, le=15)
    ready_seconds: int = Field(default=600, gt=0, description="how long pods may take to be Ready")
    drain_seconds: int = Field(default=30, ge=0, description="how long a gateway may go on sending to weight 0")
    warm_calls: int = Field(default=3, ge=0, description="calls that the candidate answers before any caller's")

    @field_validator("steps")
    @classmethod
    def _in_order(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        percents = [step.percent for step in steps]
        if percents != sorted(set(percents)) or percents[-1] != 100:
            seen = ", ".join(map(str, percents))
            raise ValueError(f"steps must rise and end with 100 percent, and are {seen}")
        return steps

    @model_validator(mode="after")
    def _promotion_waits_by_its_window(self) -> Self:
        last = self.steps[-1]
        if last.min_calls or last.min_seconds:
            raise ValueError("the step of 100 percent has no minimum; it is watched for rollbackWindowSeconds")
        return self


_FILE: Final = YamlFile(Plan, "The plan", "docs/reference/rollout-plan.md", PlanError)


def read_plan(text: str) -> Plan:
    """A plan from its YAML.

    Raises:
        PlanError: it is no plan.
    """
    return _plan_of(_FILE.parse(text))


def load_plan(path: Path) -> Plan:
    """A plan from a file.

    Raises:
        PlanError: it is no plan, or there is no such file.
    """
    return _plan_of(_FILE.read(path))


def _plan_of(document: dict[str, Any]) -> Plan:
    _refuse_renamed_margins(document)
    return _FILE.fill(document)


def _refuse_renamed_margins(document: dict[str, Any]) -> None:
    """Refuse names that are read only of rollouts that an earlier version began."""
    gates = document.get("gates")
    if not isinstance(gates, dict):
        return
    renamed = [f"gates.{old} to gates.{new}" for old, new in RENAMED_MARGINS.items() if old in gates]
    if renamed:
        raise PlanError(
            f"The plan cannot be followed: rename {' and '.join(renamed)}, the share of films that are wrong with "
            "nobody asked to look."
        )
