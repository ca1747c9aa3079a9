"""The label: what became known of a prediction afterwards, and from whom; a reading of a study is one too."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Source = Literal["radiologist", "blood_test", "follow_up"]
Finding = Literal["normal", "pneumonia"]
PneumoniaType = Literal["bacterial", "viral"]
Certainty = Literal["sure", "unsure", "cannot_tell"]
# Why a study was given to a reader.
Asked = Literal["flag", "referral", "qa_draw", "disagreement", "second_reading", "third_reading"]
NotBlind = Literal["opened_alert", "opened_answer", "opened_case", "result_seen"]
# What a person may state, and in which columns of a file.
LABEL_SOURCES: Final = get_args(Source)
LABEL_FINDINGS: Final = (*get_args(Finding), "unknown")
LABEL_TYPES: Final = get_args(PneumoniaType)
LABEL_COLUMNS: Final = ("prediction_id", "source", "finding", "pneumonia_type", "author")


class ReadingDetail(BaseModel):
    """How a study was read in the reading room.

    An estimate may count readings that were `blind` and whose `probability` is known, and no others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str = Field(description="keyed hash of the study, or the prediction where the caller named no study")
    prediction_ids: tuple[str, ...] = Field(min_length=1, description="the images that were shown")
    asked: Asked
    no_result_seen: bool = Field(description="the reader says that they saw no result of it, in the PACS or elsewhere")
    not_blind: tuple[NotBlind, ...] = Field(description="why it does not count as blind; empty: it was blind")
    probability: float | None = Field(
        gt=0, le=1, description="of having been asked for; null: not by chance alone, so that nobody knows"
    )
    second_probability: float | None = Field(
        default=None, gt=0, le=1, description="of a first reading: how likely a second reader was to be asked"
    )
    second_drawn: bool = Field(default=False, description="of a first reading: whether a second reader is asked")

    @property
    def blind(self) -> bool:
        """Whether the reader knew nothing of the answer, as far as the record and they themselves say."""
        return not self.not_blind


class Label(BaseModel):
    """One statement about one prediction, or the study it is of; a later one stands beside it and changes nothing.

    `author` is who says so: a role or a staff id, never a patient. `finding` is what the film or the patient had;
    None where the source did not know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.label/1", "pneumoserve.label/2"] = Field(
        default="pneumoserve.label/2", alias="schema", description="1 had no certainty, comment and reading"
    )
    label_id: str = Field(description="UUIDv7, lower case with hyphens")
    prediction_id: str = Field(description="the prediction, of a study its first one")
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    release: str = Field(description="the release that made the prediction")
    source: Source
    author: str
    finding: Finding | None
    pneumonia_type: PneumoniaType | None = None
    certainty: Certainty | None = Field(default=None, description="null: not asked")
    comment: str = ""
    reading: ReadingDetail | None = Field(default=None, description="null: not read in the reading room")

    @property
    def prediction_ids(self) -> tuple[str, ...]:
        """The predictions that it speaks of."""
        return (self.prediction_id,) if self.reading is None else self.reading.prediction_ids
