"""An acceptance on record: what a site's labelled images showed of a release, and who approved it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.canonical import Sha256

AcceptanceOutcome = Literal["accepted", "refused", "insufficient"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    time: str = Field(description="RFC 3339, UTC, milliseconds")
    release: str
    acceptance_id: str = Field(description="UUIDv7, lower case with hyphens")


class CriterionResult(BaseModel):
    """What one look showed of one criterion. `rate` is a share of images, `bound` one-sided and by patient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: str
    limit: float
    rate: float
    bound: float
    patients: int
    shown: bool


class Acceptance(_Entry):
    """One run of `accept`, whatever came of it."""

    schema_: Literal["pneumoserve.acceptance/1"] = Field(default="pneumoserve.acceptance/1", alias="schema")
    site: str
    plan: Sha256 = Field(description="SHA-256 of the plan as canonical JSON")
    labels: Sha256 = Field(
        description="SHA-256 of the manifest of the labelled images; of labels of the archive, of what a release that "
        "is fitted to them has as data/labels.json"
    )
    report: Sha256 = Field(description="SHA-256 of acceptance.json, which the report's page is made of")
    look: int = Field(ge=0, description="which look of the plan; 0: too few patients for one, and no figure was shown")
    outcome: AcceptanceOutcome
    sick_patients: int
    well_patients: int
    missing_sick: int = Field(default=0, ge=0, description="of insufficient: patients with pneumonia that are missing")
    missing_well: int = Field(default=0, ge=0)
    criteria: tuple[CriterionResult, ...] = ()


class AcceptanceApproval(_Entry):
    """A person approves an accepted release, by a signature over the acceptance's entry."""

    schema_: Literal["pneumoserve.acceptance_approval/1"] = Field(
        default="pneumoserve.acceptance_approval/1", alias="schema"
    )
    signature: str = Field(
        description="one document of signatures, as release.json.sig, over the entry's canonical JSON"
    )
