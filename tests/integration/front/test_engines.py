"""Both engines of `serve`: the same answers, and none that is lost with a worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil
import pytest

from pneumoserve.records import find_record
from tests.conftest import PNEUMOSERVE, Stack, start_stack, wait_for
from tests.support import films
from tests.support.killing_models import kill_under_load

FILMS = [path.read_bytes() for path in films.sample_films()]
# Of one call alone.
OWN = {"prediction_id", "receipt"}


@pytest.fixture(scope="module")
def inprocess(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = start_stack(tmp_path_factory.mktemp("inprocess") / "state", "--engine=inprocess")
    yield running
    assert running.stop() == 0


@pytest.fixture
async def client(inprocess: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=inprocess.url, timeout=60) as client:
        yield client


async def ask(client: httpx.AsyncClient, film: bytes, model: str = "pneumonia") -> dict[str, Any]:
    response = await client.post(f"/v1/models/{model}:predict", content=film)
    assert response.status_code == 200, response.text
    (answer,) = response.json()["predictions"]
    return dict(answer)


def retried(stack: Stack) -> float:
    lines = httpx.get(stack.metrics_url).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("pneumoserve_backend_retries_total "))


def worker_of(stack: Stack) -> psutil.Process:
    return stack.child("pneumoserve.models.worker")


async def test_both_engines_answer_alike_and_each_record_names_its_own(stack: Stack, inprocess: Stack) -> None:
    assert not any("org.pytorch.serve" in " ".join(child.cmdline()) for child in inprocess.descendants())
    for model in ("pneumonia", "pneumonia-detector", "pneumonia-typer"):
        said = []
        for running in (stack, inprocess):
            async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
                said.append([await ask(client, film, model) for film in FILMS])
        for one, other in zip(*said, strict=True):
            assert {name: one[name] for name in one.keys() - OWN} == {name: other[name] for name in other.keys() - OWN}
        records = [
            find_record(running.reader, answers[0]["prediction_id"])
            for running, answers in zip((stack, inprocess), said, strict=True)
        ]
        profiles = [use.profile for record in records if record is not None for use in record.models[:1]]
        assert [profile.pop("server") for profile in profiles] == ["torchserve", "inprocess"]
        # What decides bits is the same.
        assert profiles[0] == profiles[1]
        assert profiles[0]["engine"] == "onnxruntime"


async def test_what_workers_have_answered_is_replayed_bit_for_bit(inprocess: Stack, client: httpx.AsyncClient) -> None:
    for film in FILMS[::10]:
        await ask(client, film)
    done = subprocess.run(
        [PNEUMOSERVE, "archive", "replay", "--state", inprocess.state, "--json"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    repeated = json.loads(done.stdout)["repeated"]
    assert repeated["bit_for_bit"] >= len(FILMS[::10])
    assert repeated["by_tolerance"] == 0
    assert repeated["mismatches"] == []


async def test_killed_workers_lose_no_request(inprocess: Stack, client: httpx.AsyncClient) -> None:
    async def probability(film: bytes) -> float:
        return float((await ask(client, film))["pneumonia_probability"])

    retries = retried(inprocess)
    await kill_under_load(probability, FILMS[:8], lambda: worker_of(inprocess).kill())
    # The workers died with films in their hands, which is what was to be shown.
    assert retried(inprocess) > retries


async def test_the_models_parent_may_die_under_load_too(inprocess: Stack, client: httpx.AsyncClient) -> None:
    parent = worker_of(inprocess).parent()
    assert parent is not None
    calls = [asyncio.create_task(ask(client, film)) for film in FILMS[:16]]
    parent.kill()
    assert len(await asyncio.gather(*calls)) == 16
    wait_for(lambda: httpx.get(f"{inprocess.url}/v2/health/ready").status_code == 200)
