"""Calls of the service by V1: several images of one study, their answers, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import urllib3

from pneumoserve.decision import Decision
from pneumoserve.intake.errors import ServiceAwayError, ServiceFaultError, ServiceRefusalError

# The service's limits of one call, with room for the form around the images.
MAX_IMAGES: Final = 16
MAX_BYTES: Final = 43 * 1024 * 1024
_PATH: Final = "/v1/models/pneumonia:predict"
# A call of 16 large images on a busy machine; the gateway's own limit is a minute.
_TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=120.0)
# The service is away, busy, or has not finished a first try of the same call.
_LATER: Final = {408, 409, 429}
# A fault of its own, maybe at what these images hold.
_FAULT: Final = 500
_CULPRIT: Final = re.compile(r"Image (\d+): (.+)", re.DOTALL)


@dataclass(frozen=True)
class Answers:
    """What one call was answered with, in the order of its images; `notice` goes with a stated type."""

    predictions: list[tuple[str, Decision]]
    release: str
    intended_use: str
    assumed_prevalence: float
    notice: str | None


class Caller:
    """Calls the service at an address such as http://127.0.0.1:8080, with further headers."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT, maxsize=4)

    def ask(self, images: Sequence[bytes], named: Mapping[str, str], key: str) -> Answers:
        """The answers for images of one study; the same images under the same key get the first answers again.

        Raises:
            ServiceAwayError: there may be an answer later; ServiceFaultError: or the service fails at it each time.
            ServiceRefusalError: there will be none, by an image's fault or the call's.
        """
        fields: list[tuple[str, Any]] = [("file", ("image", image, "application/dicom")) for image in images]
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            response = self._pool.request_encode_body(
                "POST", self._url + _PATH, fields=[*fields, *named.items()], headers=headers
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServiceAwayError(f"The service does not answer ({type(error).__name__}); see that it runs.") from None
        if response.status != 200:
            raise _refusal(response.status, response.data)
        return _read(orjson.loads(response.data))

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _refusal(status: int, body: bytes) -> ServiceAwayError | ServiceRefusalError:
    try:
        sentence = str(orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        sentence = "It gives no reason."
    if status == _FAULT:
        return ServiceFaultError(f"The service answers {status}: {sentence}")
    if status in _LATER or status >= 500:
        return ServiceAwayError(f"The service answers {status}: {sentence}")
    culprit = _CULPRIT.fullmatch(sentence)
    if culprit is not None:
        return ServiceRefusalError(culprit[2], int(culprit[1]))
    return ServiceRefusalError(f"The service answers {status}: {sentence}")


def _read(document: dict[str, Any]) -> Answers:
    rows = document["predictions"]
    fields = Decision.model_fields
    decisions = [Decision.model_validate({name: row[name] for name in fields}) for row in rows]
    return Answers(
        predictions=[(row["prediction_id"], decision) for row, decision in zip(rows, decisions, strict=True)],
        release=rows[0]["release"],
        intended_use=document["intended_use"],
        assumed_prevalence=document["assumed_prevalence"],
        notice=next((row["notice"] for row in rows if row["notice"] is not None), None),
    )
