"""The record of one film's call: what was asked, with which release, what was answered.

One record a film, written before its answer is sent. A record names no person: it holds digests, closed lists
and numbers. The caller's request id is left out on purpose, since integrators put accession numbers there.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.canonical import Sha256
from pneumoserve.decision import STOPPED, Decision
from pneumoserve.imaging import Facts

RecordKind = Literal["prediction", "refusal", "failure"]
Protocol = Literal["v1", "v2", "grpc"]
Encoding = Literal["json", "binary", "plain"]
# How an image came to be sent: by a rule that sends all like it, or since somebody chose it.
CallOrigin = Literal["routed", "flagged"]

_WITHOUT_LEANING: Final = frozenset(f"pneumoserve.record/{version}" for version in range(1, 5))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ImageDetail(_Strict):
    """The film. `stored_key` is where the archive keeps it; sizes in pixels and bytes, age in years."""

    input_sha256: Sha256
    input_bytes: int
    pixels_sha256: Sha256
    stored_sha256: Sha256
    stored_key: str
    format: Literal["jpeg", "png", "dicom"]
    width: int
    height: int
    modality: str | None
    body_part: str | None
    view_position: str | None
    age_years: float | None
    sex: str | None

    @property
    def facts(self) -> Facts:
        """What the file said of itself, as decisions take it."""
        return Facts(**{each.name: getattr(self, each.name) for each in fields(Facts)})


class RefusedInput(_Strict):
    """What is known of an input that was not decoded: never its bytes, which may hold anything."""

    input_sha256: Sha256 | None
    input_bytes: int | None


class ModelUse(_Strict):
    """One model's part in an answer. `probability` is calibrated; `profile` is how it was computed.

    `chest_probability` is how likely the film is an upright chest film at all, by the gate of a model that has one.

    `profile` is the execution profile: engine, its version, threads, instruction set, ... Within one profile the
    same pixels give the same bits. Its `server`, torchserve or inprocess, is what ran the model: bits do not depend
    on that.
    """

    name: str
    version: str
    weights: Sha256
    probability: float
    logit: float
    chest_probability: float | None = None
    profile: dict[str, str | int]


class ErrorDetail(_Strict):
    """Why a call got no answer: its HTTP status and the sentence that the caller got."""

    status: int
    message: str


class CallDetail(_Strict):
    """How the film came: the model asked, protocol, encoding, and its place among the films of one call."""

    call_id: str
    index: int
    count: int
    model: str
    protocol: Protocol
    encoding: Encoding
    subject: str | None = Field(default=None, description="the verified caller, where the gateway gives one")
    study: Sha256 | None = Field(default=None, description="keyed HMAC-SHA-256 of the caller's study reference")
    patient: Sha256 | None = Field(default=None, description="keyed HMAC-SHA-256 of the caller's patient reference")
    origin: CallOrigin | None = Field(
        default=None, description="routed by a rule, or flagged by a radiologist, as the caller says; null: not said"
    )


class Record(_Strict):
    """`kind` prediction has `image`, `models` and (for the model `pneumonia`) `decision`; the others `error`."""

    schema_: Literal[
        "pneumoserve.record/1",
        "pneumoserve.record/2",
        "pneumoserve.record/3",
        "pneumoserve.record/4",
        "pneumoserve.record/5",
        "pneumoserve.record/6",
    ] = Field(
        default="pneumoserve.record/6",
        alias="schema",
        description="1 had neither study nor patient, 2 no chest_probability, 3 no duration_ms, 4 neither leaning nor "
        "type_probability, 5 no traceparent, stop or origin",
    )
    kind: RecordKind
    prediction_id: str = Field(description="UUIDv7, lower case with hyphens")
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    arm: Literal["live", "shadow"] = "live"
    release: str = Field(description="the first 12 hex digits of release_digest")
    release_digest: Sha256
    preprocessing_version: str
    call: CallDetail
    duration_ms: float | None = Field(
        default=None, description="milliseconds from when the call was read until its record was made; null: not taken"
    )
    traceparent: str | None = Field(
        default=None,
        pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        description="the call's span in its trace (W3C Trace Context); null: calls were not traced",
    )
    image: ImageDetail | None = None
    refused: RefusedInput | None = None
    models: tuple[ModelUse, ...] = ()
    decision: Decision | None = None
    stop: str | None = Field(
        default=None, description="stop_id of the stop that stood over the release, so that the answer is referred"
    )
    error: ErrorDetail | None = None

    def restate(self, decision: Decision) -> Decision:
        """A decision as this record states it, by its version and its stop, to compare it with the one on record."""
        if self.stop is not None:
            return STOPPED
        if self.schema_ not in _WITHOUT_LEANING:
            return decision
        return decision.model_copy(update={"leaning": None, "type_probability": None})
