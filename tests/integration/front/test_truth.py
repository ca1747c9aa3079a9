"""What the answers of a busy server are worth: the same bits alone and in company, each its own, none lost."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from typing import Any

import httpx
import pytest

from pneumoserve.records import find_record
from pneumoserve.store import S3Store
from tests.conftest import Stack
from tests.support import films
from tests.support.killing_models import kill_under_load

FILMS = [path.read_bytes() for path in films.sample_films()]


async def ask(client: httpx.AsyncClient, film: bytes, model: str = "pneumonia-detector") -> dict[str, Any]:
    body = {"instances": [{"image": {"b64": base64.b64encode(film).decode()}}]}
    response = await client.post(f"/v1/models/{model}:predict", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()["predictions"][0]
    return answer


@pytest.fixture
async def client(stack: Stack) -> Any:
    limits = httpx.Limits(max_connections=80)
    async with httpx.AsyncClient(base_url=stack.url, timeout=60, limits=limits) as opened:
        yield opened


def torchserve_requests(stack: Stack, model: str = "pneumonia-detector") -> float:
    """TorchServe's own count of inference requests for a model."""
    text = httpx.get(stack.models_metrics_url, params={"name[]": "ts_inference_requests_total"}).text
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("ts_inference_requests_total{") and model in line
    )


def models_api(stack: Stack, model: str) -> dict[str, Any]:
    """What TorchServe's management API says of a model."""
    (described,) = httpx.get(f"{stack.models_management_url}/models/{model}").json()
    answer: dict[str, Any] = described
    return answer


def batches(stack: Stack) -> list[int]:
    """The size of every batch that was logged."""
    return [
        int(line.rsplit("batch=", 1)[1].split()[0])
        for path in stack.logs.rglob("*")
        if path.is_file()
        for line in path.read_text(errors="replace").splitlines()
        if "batch=" in line
    ]


async def test_one_film_has_one_probability_alone_and_in_company(stack: Stack, client: httpx.AsyncClient) -> None:
    assert models_api(stack, "pneumonia-detector")["batchSize"] == 8
    before, batches_before = torchserve_requests(stack), len(batches(stack))
    film = FILMS[0]
    alone = [(await ask(client, film))["pneumonia_probability"] for _ in range(100)]

    others_sent = 0
    done = asyncio.Event()

    async def others(offset: int) -> None:
        nonlocal others_sent
        index = offset
        while not done.is_set():
            await ask(client, FILMS[1 + index % (len(FILMS) - 1)])
            others_sent += 1
            index += 1

    company = [asyncio.create_task(others(number)) for number in range(8)]
    among = [(await ask(client, film))["pneumonia_probability"] for _ in range(100)]
    done.set()
    await asyncio.gather(*company)

    assert len({value.hex() for value in alone + among}) == 1
    assert torchserve_requests(stack) - before == 200 + others_sent
    assert max(batches(stack)[batches_before:]) > 1


async def test_a_decision_is_one_request_and_says_what_both_models_say(stack: Stack, client: httpx.AsyncClient) -> None:
    film = next(path for path in films.sample_films() if path.parent.name == "bacteria").read_bytes()
    before = torchserve_requests(stack, "pneumonia-typer")
    answer = await ask(client, film, "pneumonia")
    assert torchserve_requests(stack, "pneumonia-typer") == before
    for model, name in (("detector", "pneumonia_probability"), ("typer", "bacterial_probability")):
        alone = await ask(client, film, f"pneumonia-{model}")
        assert alone[name].hex() == answer[name].hex()
    record = find_record(stack.reader, answer["prediction_id"])
    assert record is not None
    assert [use.name for use in record.models] == ["pneumonia-detector", "pneumonia-typer"]


async def test_64_films_at_once_each_get_their_own_answer(client: httpx.AsyncClient) -> None:
    # Each film and its mirror image: more different films than the sample has.
    mirrored = [films.encoded(films.mirrored(path), "PNG") for path in films.sample_films()[:10]]
    sent = [*FILMS, *mirrored][:64]
    assert len(set(sent)) == 64
    alone = [(await ask(client, film))["pneumonia_probability"] for film in sent]
    together = await asyncio.gather(*(ask(client, film) for film in sent))
    assert [answer["pneumonia_probability"] for answer in together] == alone
    assert len(set(alone)) > 60
    assert len({answer["prediction_id"] for answer in together}) == 64


async def test_killed_workers_lose_no_request(stack: Stack, client: httpx.AsyncClient) -> None:
    async def probability(film: bytes) -> float:
        return float((await ask(client, film))["pneumonia_probability"])

    def kill() -> None:
        (worker,) = models_api(stack, "pneumonia-detector")["workers"]
        os.kill(worker["pid"], signal.SIGKILL)

    retries = await retried(stack)
    await kill_under_load(probability, FILMS[:8], kill)
    # The workers died with films in their hands, which is what was to be shown.
    assert await retried(stack) > retries


async def retried(stack: Stack) -> float:
    async with httpx.AsyncClient() as client:
        lines = (await client.get(stack.metrics_url)).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("pneumoserve_backend_retries_total "))


async def test_the_record_holds_the_film_as_it_was_judged(stack: Stack, client: httpx.AsyncClient) -> None:
    answer = await ask(client, films.jpeg_with_texts(), "pneumonia")
    store = S3Store(stack.s3)
    record = find_record(stack.reader, answer["prediction_id"])
    assert record is not None
    assert record.image is not None
    assert record.decision is not None
    assert record.decision.finding == answer["finding"]
    stored = store.get(record.image.stored_key)
    again = await ask(client, stored, "pneumonia")
    assert again["pneumonia_probability"] == answer["pneumonia_probability"]
    for word in films.PLANTED:
        assert word.encode() not in stored
        assert word not in record.model_dump_json()


async def test_no_planted_word_is_anywhere(stack: Stack, client: httpx.AsyncClient) -> None:
    for data in (films.jpeg_with_texts(), films.png_with_texts(), films.dicom_with_texts()):
        response = await client.post(
            "/v1/models/pneumonia:predict",
            params={"study": films.PLANTED[2]},
            content=data,
            headers={"x-request-id": films.PLANTED[0]},
        )
        assert response.status_code == 200
        # Cut short, it is refused, and the refusal must not tell more.
        refused = await client.post("/v1/models/pneumonia:predict", content=data[: len(data) * 3 // 4])
        assert refused.status_code == 400
        assert not any(word in refused.text for word in films.PLANTED)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILMS[0]).decode()]}
    named = await client.post("/v2/models/pneumonia/infer", json={"id": films.PLANTED[2], "inputs": [tensor]})
    assert named.json()["id"] == films.PLANTED[2]
    words = [word.encode() for word in films.PLANTED]
    store = S3Store(stack.s3)
    for found in store.list(""):
        body = store.get(found.key)
        assert not any(word in body or word in found.key.encode() for word in words), found.key
    logs = b"".join(path.read_bytes() for path in stack.logs.rglob("*") if path.is_file())
    metrics = (await client.get(stack.metrics_url)).content
    assert not any(word in logs or word in metrics for word in words)
