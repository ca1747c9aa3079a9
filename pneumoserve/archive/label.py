"""The label: what became known of a prediction afterwards, and from whom."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Source = Literal["radiologist", "blood_test", "follow_up"]


class Label(BaseModel):
    """One statement about one prediction; a later one does not change it, but stands beside it.

    `author` is who says so: a role or a staff id, never a patient. `finding` is what the film or the patient had;
    None where the source could not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.label/1"] = Field(default="pneumoserve.label/1", alias="schema")
    label_id: str = Field(description="UUIDv7, lower case with hyphens")
    prediction_id: str
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    release: str = Field(description="the release that made the prediction")
    source: Source
    author: str
    finding: Literal["normal", "pneumonia"] | None
    pneumonia_type: Literal["bacterial", "viral"] | None = None
