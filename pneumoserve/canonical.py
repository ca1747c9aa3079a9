"""One form of JSON, so that the same content has the same bytes and the same digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

Sha256 = str


def canonical_json(value: BaseModel | dict[str, Any]) -> bytes:
    """Canonical JSON bytes: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: where a number is not finite.
    """
    plain = value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(data: bytes) -> Sha256:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
