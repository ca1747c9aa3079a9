"""Decoding in the live stack: workers die and callers send the worst that is accepted; everybody else is answered."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from pneumoserve.records import find_record
from tests.conftest import Stack
from tests.support import films

ATTACKS = [found for folder in Path(__file__).parents if (found := folder / "shared" / "data" / "attacks").is_dir()]
# With a comment, so that what is remembered of films that ended a worker here is of no other test's films.
FILMS = [
    path.read_bytes().replace(b"\xff\xd8", b"\xff\xd8\xff\xfe\x00\x06here", 1)
    for path in films.sample_films()
    if path.suffix == ".jpeg"
]


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def sent(stack: Stack, film: bytes) -> httpx.Response:
    return httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=film, timeout=120)


def workers(stack: Stack) -> list[psutil.Process]:
    """Decode workers; one that has just died is none any more."""
    found = []
    for each in stack.child("pneumoserve.front").children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("imaging.worker" in part for part in each.cmdline()):
                found.append(each)
    return found


def fast_workers(stack: Stack) -> list[psutil.Process]:
    """Those that are ready and have the fast lane's little memory; one that still warms up has no limit yet."""
    return [each for each in workers(stack) if 0 < each.rlimit(psutil.RLIMIT_AS)[0] < 600 * 1024 * 1024]


def metric(stack: Stack, name: str) -> float:
    lines = httpx.get(stack.metrics_url).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def check_refused_on_record(stack: Stack, answer: httpx.Response) -> None:
    assert answer.status_code == 400
    assert "could not be decoded safely" in answer.json()["error"]
    record = find_record(stack.reader, answer.json()["prediction_id"])
    assert record is not None
    assert (record.kind, record.refused is not None) == ("refusal", True)


def test_workers_that_crash_cost_their_own_films_and_nothing_else(stack: Stack, callers: ThreadPoolExecutor) -> None:
    front = stack.child("pneumoserve.front").pid
    until(lambda: len(fast_workers(stack)) == 2)
    victims = fast_workers(stack)
    for worker in victims:
        worker.suspend()
    calls = [callers.submit(sent, stack, film) for film in FILMS[:6]]
    # Two are with these then.
    until(lambda: metric(stack, 'pneumoserve_decode_waiting{lane="fast"}') == 4)
    for worker in victims:
        worker.send_signal(signal.SIGSEGV)
        worker.resume()
    answers = [call.result() for call in calls]
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [400] * 2
    crashed = next(index for index, answer in enumerate(answers) if answer.status_code == 400)
    for answer in answers:
        if answer.status_code == 400:
            check_refused_on_record(stack, answer)
    starts = metric(stack, "pneumoserve_decoder_starts")
    check_refused_on_record(stack, sent(stack, FILMS[crashed]))
    assert metric(stack, "pneumoserve_decoder_starts") == starts
    assert metric(stack, 'pneumoserve_decode_seconds_count{lane="fast",outcome="died"}') >= 2
    assert stack.child("pneumoserve.front").pid == front
    assert httpx.get(f"{stack.url}/v2/health/ready").status_code == 200


def test_workers_that_somebody_kills_cost_nothing(stack: Stack, callers: ThreadPoolExecutor) -> None:
    calls = [callers.submit(sent, stack, film) for film in FILMS[6:26]]
    for number, worker in enumerate(workers(stack)):
        until(lambda enough=number: sum(call.done() for call in calls) >= enough)  # type: ignore[misc]
        worker.kill()
    assert {call.result().status_code for call in calls} == {200}


@pytest.mark.skipif(not ATTACKS, reason="the attack files lie beside the checkout on the developers' machine only")
def test_films_that_crashed_the_front_are_refused_on_record(stack: Stack) -> None:
    front = stack.child("pneumoserve.front").pid
    deaths = sorted(ATTACKS[0].glob("*death*"))
    assert deaths
    for path in deaths:
        answer = sent(stack, path.read_bytes())
        assert answer.status_code in (400, 413, 415), path.name
        assert find_record(stack.reader, answer.json()["prediction_id"]) is not None
    assert sent(stack, FILMS[30]).status_code == 200
    assert stack.child("pneumoserve.front").pid == front


def test_a_normal_film_is_answered_whatever_others_send(stack: Stack, callers: ThreadPoolExecutor) -> None:
    """Six calls of sixteen 16-bit PNGs of 40 megapixels, and single ones for the slow lane."""
    out = io.BytesIO()
    Image.new("I;16", (6320, 6320)).save(out, "PNG", compress_level=1)
    large = base64.b64encode(out.getvalue()).decode()

    def attack(count: int) -> httpx.Response:
        body = {"instances": [{"image": {"b64": large}}] * count}
        return httpx.post(f"{stack.url}/v1/models/pneumonia:predict", json=body, timeout=120)

    def seconds() -> float:
        started = time.monotonic()
        assert sent(stack, FILMS[31]).status_code == 200
        return time.monotonic() - started

    quiet = max(seconds() for _ in range(3))
    calls = [callers.submit(attack, count) for count in [16] * 6 + [1] * 4]
    until(lambda: metric(stack, "pneumoserve_calls_in_flight") >= 2)
    meanwhile = [seconds()]
    while not all(call.done() for call in calls):
        meanwhile.append(seconds())
    # Where the machine is so busy that a lone film takes long, one among others may.
    assert max(meanwhile) < max(2.0, 20 * quiet)
    answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers[:6]] == [413] * 6
    assert all("80 megapixels" in answer.json()["error"] for answer in answers[:6])
    assert {answer.status_code for answer in answers[6:]} <= {200, 429}


def test_nobody_reads_the_front_s_memory_or_the_key_in_a_worker(stack: Stack) -> None:
    front = stack.child("pneumoserve.front")
    # Of a process that is not dumpable these belong to root, whoever runs it.
    assert Path(f"/proc/{front.pid}/mem").stat().st_uid == 0
    until(lambda: len(fast_workers(stack)) == 2)
    for worker in fast_workers(stack):
        # The limit comes before the filter.
        until(lambda pid=worker.pid: "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text())  # type: ignore[misc]
        if os.geteuid() == 0:
            assert b"S3_" not in Path(f"/proc/{worker.pid}/environ").read_bytes()
