"""A reading request: asks a human to read the image of a prediction."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

READING_WRITERS: Final = "reading"


class ReadingRequest(BaseModel):
    """Asks a human to read the film of one prediction. What they read is a label of it, never an answer in here."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.reading/1"] = Field(default="pneumoserve.reading/1", alias="schema")
    request_id: str = Field(description="UUIDv7, lower case with hyphens")
    prediction_id: str
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    release: str = Field(description="the release that made the prediction")
    reason: Literal["shadow_disagreement"] = Field(
        description="shadow_disagreement: another release in shadow decided otherwise"
    )
    rollout_id: str = Field(description="the rollout that asks")
