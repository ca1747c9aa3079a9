"""The record of one film's call: what was asked, with which release, what was answered.

One record a film, written before its answer is sent. A record names no person: it holds digests, closed lists
and numbers. The caller's request id is left out on purpose, since integrators put accession numbers there.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.decision import Decision
from pneumoserve.release.schema import Sha256

RecordKind = Literal["prediction", "refusal", "failure"]
Protocol = Literal["v1", "v2", "grpc"]
Encoding = Literal["json", "binary", "plain"]


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


class RefusedInput(_Strict):
    """What is known of an input that was not decoded: never its bytes, which may hold anything."""

    input_sha256: Sha256 | None
    input_bytes: int | None


class ModelUse(_Strict):
    """One model's part in an answer. `probability` is calibrated; `profile` tells how it was computed.

    `chest_probability` is how likely the film is an upright chest film at all, by the gate of a model that has one.

    `profile` is the execution profile: engine, its version, threads, instruction set, ... Within one profile the
    same pixels give the same bits.
    """

    name: str
    version: str
    weights: Sha256
    probability: float
    logit: float
    chest_probability: float | None = None
    profile: dict[str, str | int]


class ErrorDetail(_Strict):
    """Why a call got no answer: its HTTP status and the sentence the caller was told."""

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


class Record(_Strict):
    """`kind` prediction has `image`, `models` and (for the model `pneumonia`) `decision`; the others `error`."""

    schema_: Literal["pneumoserve.record/1", "pneumoserve.record/2", "pneumoserve.record/3", "pneumoserve.record/4"] = (
        Field(
            default="pneumoserve.record/4",
            alias="schema",
            description="1 had neither study nor patient, 2 no chest_probability, 3 no duration_ms",
        )
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
    image: ImageDetail | None = None
    refused: RefusedInput | None = None
    models: tuple[ModelUse, ...] = ()
    decision: Decision | None = None
    error: ErrorDetail | None = None


class Receipt(_Strict):
    """Where a record stands: segment `sequence` of `writer`; `hash` is the SHA-256 of its canonical JSON line."""

    writer: str
    sequence: int
    hash: Sha256
    recorded: Literal["store", "journal"] = "store"
