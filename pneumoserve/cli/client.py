"""The command line's client: one film, one call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import urllib3

_TIMEOUT_SECONDS = 60.0


def answer_of(url: str, path: Path) -> dict[str, Any]:
    """The V1 answer for a film's file, with `ms` (milliseconds), or `error` and `prediction_id`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return {"error": f"The file cannot be read ({error.strerror}).", "prediction_id": None}
    started = time.perf_counter()
    try:
        response = urllib3.request(
            "POST", f"{url}/v1/models/pneumonia:predict", body=data, timeout=_TIMEOUT_SECONDS, retries=False
        )
        document: dict[str, Any] = response.json()
    except (urllib3.exceptions.HTTPError, ValueError):
        return {"error": f"No service answers at {url}; check that it runs.", "prediction_id": None}
    if response.status != 200:
        return document
    (prediction,) = document["predictions"]
    return {**prediction, "ms": round((time.perf_counter() - started) * 1000)}
