"""A front behind a gateway, started by its options: callers stand in records alone."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from pneumoserve.records import find_record
from pneumoserve.store import S3Store
from tests.conftest import Stack
from tests.integration.front.conftest import SecondFront, StartFront
from tests.support import films

HEADER = "pneumoserve-subject"
SUBJECT = "radiologist-4711@clinic.example"
FILM = films.sample_films()[0].read_bytes()


@pytest.fixture(scope="module")
def front(start_front: StartFront) -> Iterator[SecondFront]:
    with start_front(f"--subject-header={HEADER}") as running:
        yield running


def predict(url: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{url}/v1/models/pneumonia:predict", content=content, headers=headers, timeout=60)


def subject_of(stack: Stack, prediction_id: str) -> str | None:
    record = find_record(stack.reader, prediction_id)
    assert record is not None
    return record.call.subject


def test_callers_stand_in_records_and_in_no_log_metric_key_or_error(front: SecondFront, stack: Stack) -> None:
    answer = predict(front.url, FILM, {HEADER: SUBJECT})
    assert subject_of(stack, answer.json()["predictions"][0]["prediction_id"]) == SUBJECT
    error = predict(front.url, b"no film", {HEADER: SUBJECT})
    assert subject_of(stack, error.json()["prediction_id"]) == SUBJECT
    assert predict(front.url, FILM, {}).status_code == 401
    shown = [error.text, httpx.get(front.metrics).text, front.log.read_text()]
    shown += [item.key for item in S3Store(stack.s3).list("")]
    assert not [text for text in shown if SUBJECT in text or "radiologist" in text]


def test_without_a_gateway_the_header_means_nothing(stack: Stack) -> None:
    response = predict(stack.url, FILM, {HEADER: SUBJECT})
    assert subject_of(stack, response.json()["predictions"][0]["prediction_id"]) is None
