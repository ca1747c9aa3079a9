"""The reading queue: films of predictions that a human is asked to read, on record until somebody has."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.archive.label import Label

if TYPE_CHECKING:
    from pneumoserve.archive.store import ObjectStore

WRITERS: Final = "reading"


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


def open_requests(store: ObjectStore, since: datetime) -> list[ReadingRequest]:
    """What was asked for since a moment and no radiologist has read, the oldest first; one for each prediction.

    Raises:
        StoreError: the store does not answer.
        ValueError: an entry cannot be read.
    """
    # An entry's form is known to the reader, and so it imports this module.
    from pneumoserve.archive.find import LABEL_WRITERS  # noqa: PLC0415
    from pneumoserve.archive.read import entries  # noqa: PLC0415

    asked: dict[str, ReadingRequest] = {}
    read: set[str] = set()
    for entry in entries(store, since, roles=(f"{WRITERS}-", LABEL_WRITERS)):
        if isinstance(entry, ReadingRequest):
            # A shadow that was interrupted asks again; the first request counts.
            earlier = asked.get(entry.prediction_id, entry)
            asked[entry.prediction_id] = min(earlier, entry, key=lambda each: each.time)
        elif isinstance(entry, Label) and entry.source == "radiologist":
            read.add(entry.prediction_id)
    return sorted((each for each in asked.values() if each.prediction_id not in read), key=lambda each: each.time)
