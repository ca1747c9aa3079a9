"""A repeated call over the real store: by another front, and by several clients at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx

from pneumoserve.ids import uuid7
from pneumoserve.records import find_record
from tests.conftest import Stack
from tests.integration.front.conftest import StartFront
from tests.support import films

FILM = films.sample_films()[0].read_bytes()


def send(url: str, key: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/models/pneumonia:predict", files={"file": FILM}, headers={"Idempotency-Key": key}, timeout=60
    )


def test_another_front_gives_the_first_answer(stack: Stack, start_front: StartFront) -> None:
    key = uuid7()
    first = send(stack.url, key)
    assert first.status_code == 200, first.text
    with start_front() as second:
        again = send(second.url, key)
    assert again.content == first.content
    for name in ("pneumoserve-receipts", "pneumoserve-release", "pneumoserve-recorded"):
        assert again.headers[name] == first.headers[name]
    (answer,) = first.json()["predictions"]
    assert find_record(stack.reader, answer["prediction_id"])


def test_of_many_at_once_one_is_put_on_record(stack: Stack) -> None:
    key = uuid7()
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda _: send(stack.url, key), range(8)))
    responses.append(send(stack.url, key))
    assert {response.status_code for response in responses} <= {200, 409}
    assert responses[-1].status_code == 200
    assert len({response.content for response in responses if response.status_code == 200}) == 1
