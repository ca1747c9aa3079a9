"""Identifiers that carry their time, and how times are written."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime
from typing import Final

_RUNS: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:pneumoserve:training-run")


def uuid7() -> str:
    """A UUIDv7 (RFC 9562 5.7): 48 bits of Unix milliseconds, then random bits; lower case with hyphens."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def time_text(moment: datetime) -> str:
    """A moment as records tell it: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_of(identifier: str) -> datetime:
    """When a UUIDv7 was made, in UTC.

    Raises:
        ValueError: where `identifier` is no UUIDv7.
    """
    try:
        value = uuid.UUID(identifier)
    except ValueError:
        value = uuid.UUID(int=0)
    if value.version != 7:
        raise ValueError("A prediction id is a UUIDv7 such as 01890a5d-ac96-774b-bcce-b302099a8057; copy it whole.")
    return datetime.fromtimestamp((value.int >> 80) / 1000, tz=UTC)


def openlineage_run_of(run_id: str) -> str:
    """The id of a training run in OpenLineage's events (which take UUIDs): derived, so a release need not carry it."""
    return str(uuid.uuid5(_RUNS, run_id))
