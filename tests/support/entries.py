"""Records and segments for tests, written as the archive's writers do."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json
from pneumoserve.decision import Decision
from pneumoserve.ids import time_of, uuid7
from pneumoserve.ledger import Header, SegmentKey, key_id_of
from pneumoserve.ledger.segment import sign_segment
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records import (
    CallDetail,
    Entry,
    ErrorDetail,
    ImageDetail,
    Label,
    ModelUse,
    ReadingRequest,
    Record,
    RefusedInput,
)
from pneumoserve.store import Store

RELEASE = "0123456789ab"
KEY = Ed25519PrivateKey.generate()
PROFILE: dict[str, str | int] = {"engine": "onnxruntime", "threads": 1}


def id_made(moment: datetime) -> str:
    """A prediction id of a moment."""
    value = (int(moment.timestamp() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    return str(uuid.UUID(int=(value & ~(0x3 << 62)) | (0x2 << 62)))


def use(name: str, probability: float) -> ModelUse:
    return ModelUse(
        name=name, version="1", weights="a" * 64, probability=probability, logit=probability * 4 - 2, profile=PROFILE
    )


def call(identifier: str) -> CallDetail:
    return CallDetail(call_id=identifier, index=0, count=1, model="pneumonia", protocol="v1", encoding="json")


def base(identifier: str | None, release: str) -> dict[str, object]:
    made = identifier or uuid7()
    return {
        "prediction_id": made,
        "time": time_of(made).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "release": release,
        "release_digest": release + "0" * 52,
        "preprocessing_version": "1",
        "call": call(made),
    }


def prediction(identifier: str | None = None, release: str = RELEASE, *, typed: bool = True) -> Record:
    """A prediction: a viral pneumonia, or a normal film, for which the typer was not asked."""
    return Record.model_validate(
        {
            **base(identifier, release),
            "kind": "prediction",
            "image": ImageDetail(
                input_sha256="1" * 64,
                input_bytes=180_000,
                pixels_sha256="2" * 64,
                stored_sha256="3" * 64,
                stored_key="images/sha256/33/" + "3" * 64,
                format="dicom",
                width=1024,
                height=768,
                modality="CR",
                body_part="CHEST",
                view_position="PA",
                age_years=3.5,
                sex="F",
            ),
            "models": (use(DETECTOR, 0.9), use(TYPER, 0.2)) if typed else (use(DETECTOR, 0.1),),
            "decision": Decision(
                finding="pneumonia" if typed else "normal",
                pneumonia_type="viral" if typed else None,
                confidence=0.9,
                referred=typed,
                reasons=("uncertain_type", "lateral_view") if typed else (),
                leaning="pneumonia" if typed else "normal",
                type_probability=0.8 if typed else None,
            ),
        }
    )


def refusal(identifier: str | None = None, release: str = RELEASE) -> Record:
    return Record.model_validate(
        {
            **base(identifier, release),
            "kind": "refusal",
            "refused": RefusedInput(input_sha256="4" * 64, input_bytes=12),
            "error": ErrorDetail(status=415, message="Send a JPEG, a PNG or a DICOM object."),
        }
    )


def label_of(record: Record, author: str = "r.17") -> Label:
    return Label(
        label_id=uuid7(),
        prediction_id=record.prediction_id,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        release=record.release,
        source="radiologist",
        author=author,
        finding="pneumonia",
        pneumonia_type="bacterial",
    )


def request_of(record: Record, minutes_ago: int = 0) -> ReadingRequest:
    made = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return ReadingRequest(
        request_id=uuid7(),
        prediction_id=record.prediction_id,
        time=made.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        release=record.release,
        reason="shadow_disagreement",
        rollout_id=uuid7(),
    )


@dataclass
class Chain:
    """A writer's segments, one after the other."""

    store: Store
    writer: str
    sequence: int = 0
    places: list[SegmentKey] = field(default_factory=list)

    def write(self, entries: Sequence[Entry], date: str | None = None, release: str = RELEASE) -> SegmentKey:
        self.sequence += 1
        day = date or (entries[0].time[:10] if entries else datetime.now(UTC).date().isoformat())
        header = Header(
            writer=self.writer,
            sequence=self.sequence,
            date=day,
            release=release,
            opened="2026-01-01T00:00:00.000Z",
            count=len(entries),
            previous=None,
            last=False,
            software="0.1.0",
            key_id=key_id_of(KEY),
        )
        body = sign_segment(header, [canonical_json(entry) for entry in entries], KEY)
        self.store.put(header.segment_key.key, body, "application/x-ndjson")
        self.places.append(header.segment_key)
        return header.segment_key
