"""Calls that name an idempotency key: a repeat gets the first answer, and makes no second record."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import httpx
import pytest

from pneumoserve.front import idempotency
from pneumoserve.front.identity import Callers
from pneumoserve.ids import uuid7
from pneumoserve.imaging.prepare import prepare
from pneumoserve.models.engine import Pixels
from pneumoserve.models.scorer import Score
from pneumoserve.store import MemoryStore, StoreError
from tests.support import films
from tests.support.front import Front, make_request, run_front, wait_until
from tests.unit.front.test_bad_input import binary

FILM, OTHER = (path.read_bytes() for path in films.sample_films()[:2])
ENCODED = base64.b64encode(FILM).decode()
V1, V2 = "/v1/models/pneumonia:predict", "/v2/models/pneumonia/infer"
HEADER = "pneumoserve-subject"
RECEIPT = ("pneumoserve-receipts", "pneumoserve-recorded", "pneumoserve-release", "content-type",
           "inference-header-content-length")  # fmt: skip


def v1(images: Sequence[bytes] = (FILM,), **parameters: Any) -> dict[str, Any]:
    instances = [{"image": {"b64": base64.b64encode(image).decode()}} for image in images]
    return {"instances": instances, "parameters": parameters}


def v2(**parameters: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [ENCODED]}
    return {"inputs": [tensor], "parameters": parameters}


def with_key(request: dict[str, Any], key: str) -> dict[str, Any]:
    """A request with the header."""
    return {**request, "headers": {**request.get("headers", {}), "Idempotency-Key": key}}


Send = Callable[[Front, str], Awaitable[httpx.Response]]
FORMS: dict[str, Send] = {
    "v1 json": lambda front, key: front.http.post(V1, **with_key({"json": v1()}, key)),
    "v1 json, study": lambda front, key: front.http.post(V1, **with_key({"json": v1([FILM] * 2, study="S")}, key)),
    "v1 json, parameter": lambda front, key: front.http.post(V1, json=v1(idempotency_key=key)),
    "plain": lambda front, key: front.predict(FILM, {"Idempotency-Key": key}),
    "form": lambda front, key: front.http.post(V1, **with_key({"files": {"file": FILM}}, key)),
    "v2 json": lambda front, key: front.http.post(V2, json=v2(idempotency_key=key)),
    "v2 json, header": lambda front, key: front.http.post(V2, **with_key({"json": v2()}, key)),
    "v2 binary answer": lambda front, key: front.http.post(V2, json=v2(idempotency_key=key, binary_data_output=True)),
    "v2 binary": lambda front, key: front.http.post(V2, **with_key(binary(FILM), key)),
}


def predictions(front: Front) -> int:
    """How many predictions are on record."""
    segments = [front.store.get(item.key) for item in front.store.list("records/")]
    return b"".join(segments).count(b'"kind":"prediction"')


def answers(front: Front) -> int:
    """How many first answers are kept."""
    return len([item for item in front.store.list("idempotency/") if item.key.endswith("/answer")])


def keyed_request(key: str, film: bytes = FILM) -> Any:
    request = make_request(film)
    request.parameters["idempotency_key"].string_param = key
    return request


@pytest.fixture
def store(front: Front) -> MemoryStore:
    assert isinstance(front.store, MemoryStore)
    return front.store


def fail_at(store: MemoryStore, monkeypatch: pytest.MonkeyPatch, operation: str, part: str) -> None:
    """Let the store refuse an operation on keys that hold a part."""

    def refuse(done: str, key: str) -> None:
        if done == operation and part in key:
            raise StoreError("The store refused it; look.")

    monkeypatch.setattr(store, "before", refuse)


@pytest.mark.parametrize("form", FORMS)
async def test_a_repeat_gets_the_first_answer_and_no_second_record(form: str, front: Front) -> None:
    key, before = uuid7(), predictions(front)
    first = await FORMS[form](front, key)
    assert first.status_code == 200, first.text
    written, asked = predictions(front), len(front.models.calls)
    assert written > before
    for _ in range(2):
        again = await FORMS[form](front, key)
        assert (again.status_code, again.content) == (200, first.content)
        assert [again.headers.get(name) for name in RECEIPT] == [first.headers.get(name) for name in RECEIPT]
    assert (predictions(front), len(front.models.calls)) == (written, asked)
    assert (await FORMS[form](front, uuid7())).content != first.content


async def test_over_grpc_too(front: Front) -> None:
    key = uuid7()
    first = await front.infer(keyed_request(key))
    written = predictions(front)
    assert await front.infer(keyed_request(key)) == first
    assert predictions(front) == written
    error = await front.fail(keyed_request(key, OTHER))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "another request" in error.message


OTHERS: dict[str, Callable[[Front, str], Awaitable[httpx.Response]]] = {
    "another image": lambda front, key: front.http.post(V1, **with_key({"json": v1([OTHER])}, key)),
    "one image more": lambda front, key: front.http.post(V1, **with_key({"json": v1([FILM, FILM])}, key)),
    "another study": lambda front, key: front.http.post(V1, **with_key({"json": v1(study="S-2")}, key)),
    "another patient": lambda front, key: front.http.post(V1, **with_key({"json": v1(patient="P-2")}, key)),
    "another model": lambda front, key: front.http.post(
        "/v1/models/pneumonia-detector:predict", **with_key({"json": v1()}, key)
    ),
    "another protocol": lambda front, key: front.http.post(V2, json=v2(idempotency_key=key)),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_the_same_key_with_another_request_is_refused(name: str, front: Front) -> None:
    key = uuid7()
    first = await FORMS["v1 json"](front, key)
    written = predictions(front)
    refused = await OTHERS[name](front, key)
    assert refused.status_code == 422
    assert "use a new key" in refused.json()["error"]
    assert front.record(refused.json()["prediction_id"]).kind == "refusal"
    assert predictions(front) == written
    assert (await FORMS["v1 json"](front, key)).content == first.content


async def test_of_two_at_once_one_answers_and_the_other_comes_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are through the models before either is on record."""
    both, key, before = asyncio.Barrier(2), uuid7(), predictions(front)
    score = front.models.score

    async def wait_for_both(model: str, pixels: Pixels) -> Score:
        if model == "pneumonia-detector":
            await both.wait()
        return await score(model, pixels)

    monkeypatch.setattr(front.models, "score", wait_for_both)
    answered, refused = sorted(
        await asyncio.gather(FORMS["plain"](front, key), FORMS["plain"](front, key)), key=lambda each: each.status_code
    )
    monkeypatch.undo()
    assert (answered.status_code, refused.status_code, refused.headers["retry-after"]) == (200, 409, "2")
    assert (await FORMS["plain"](front, key)).content == answered.content
    assert predictions(front) == before + 1


async def test_who_uses_another_ones_key_while_that_is_answered_is_told_so(
    front: Front, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """The first call's front ended after its claim: there is no answer yet."""
    key = uuid7()
    fail_at(store, monkeypatch, "put", "records/")
    monkeypatch.setattr("pneumoserve.ledger.writer._REFUSE_SECONDS", 0.2)
    assert (await FORMS["plain"](front, key)).status_code == 503
    monkeypatch.undo()
    refused = await front.predict(OTHER, {"Idempotency-Key": key})
    assert refused.status_code == 422


async def test_a_call_that_failed_after_its_claim_is_answered_after_a_while(
    front: Front, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    key = uuid7()
    with monkeypatch.context() as broken:
        fail_at(store, broken, "put", "records/")
        broken.setattr("pneumoserve.ledger.writer._REFUSE_SECONDS", 0.2)
        assert (await FORMS["plain"](front, key)).status_code == 503
    await wait_until(lambda: front.service.ready)
    at_once = await FORMS["plain"](front, key)
    assert (at_once.status_code, at_once.headers["retry-after"]) == (409, "2")
    monkeypatch.setattr(idempotency, "CLAIM_SECONDS", 0.0)
    later = await FORMS["plain"](front, key)
    assert later.status_code == 200
    assert (await FORMS["plain"](front, key)).content == later.content


async def test_what_fails_before_a_record_leaves_the_key_free(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    key = uuid7()
    assert (await front.predict(b"\xff\xd8\xff broken", {"Idempotency-Key": key})).status_code == 400
    with monkeypatch.context() as broken:
        broken.setattr(front.models, "score", fail)
        assert (await FORMS["plain"](front, key)).status_code == 500
    assert (await FORMS["plain"](front, key)).status_code == 200


async def test_one_callers_keys_are_not_anothers() -> None:
    async with run_front(Callers(HEADER)) as gated:
        sent = [
            await gated.predict(FILM, {"Idempotency-Key": "1", HEADER: subject}) for subject in ("ann", "bob", "ann")
        ]
        other = await gated.predict(OTHER, {"Idempotency-Key": "1", HEADER: "bob"})
    assert [response.status_code for response in sent] == [200, 200, 200]
    ann, bob, again = (response.json()["predictions"][0]["prediction_id"] for response in sent)
    assert ann == again != bob
    assert other.status_code == 422


BAD_KEYS: dict[str, dict[str, Any]] = {
    "empty": with_key({"json": v1()}, ""),
    "long": with_key({"json": v1()}, "x" * 256),
    "a space": with_key({"json": v1()}, "a b"),
    "not ASCII": {"json": v1(), "headers": {"Idempotency-Key": "schlüssel".encode("latin-1")}},
    "a number": {"json": v1(idempotency_key=7)},
    "a list": {"json": v1(idempotency_key=["a"])},
    "two that differ": with_key({"json": v1(idempotency_key="a")}, "b"),
    "two headers": {"json": v1(), "headers": [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]},
    "in a form": {"files": {"file": FILM}, "data": {"idempotency_key": "a"}},
}


@pytest.mark.parametrize("name", BAD_KEYS)
async def test_what_is_no_key_is_refused(name: str, front: Front) -> None:
    written = predictions(front)
    response = await front.http.post(V1, **BAD_KEYS[name])
    assert response.status_code == 400, response.text
    assert front.record(response.json()["prediction_id"]).kind == "refusal"
    assert predictions(front) == written


async def test_the_longest_key_is_taken_and_both_places_may_say_it(front: Front) -> None:
    key = "~" * 255
    response = await front.http.post(V1, **with_key({"json": v1(idempotency_key=key)}, key))
    assert response.status_code == 200


@pytest.mark.parametrize("operation", ["get", "create"])
async def test_without_the_store_a_key_cannot_be_honoured(
    operation: str, front: Front, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    written = predictions(front)
    fail_at(store, monkeypatch, operation, "idempotency/")
    refused = await FORMS["plain"](front, uuid7())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert "whether this call is a repeat" in refused.json()["error"]
    assert predictions(front) == written
    assert (await front.predict(FILM)).status_code == 200


async def test_an_answer_on_record_is_given_though_it_could_not_be_kept(
    front: Front, monkeypatch: pytest.MonkeyPatch, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(idempotency, "_KEEP_SECONDS", 0.1)
    fail_at(store, monkeypatch, "create", "/answer")
    response = await FORMS["plain"](front, uuid7())
    assert response.status_code == 200
    assert front.record(response.json()["predictions"][0]["prediction_id"])
    assert "did not keep a first answer" in caplog.text


async def test_an_answer_that_somebody_else_wrote_is_not_given(
    front: Front, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    key = uuid7()
    before = {item.key for item in store.list("idempotency/")}
    first = await FORMS["plain"](front, key)
    (place,) = (item.key for item in store.list("idempotency/") if item.key not in before and "answer" in item.key)
    (other,) = (item.key for item in store.list("idempotency/") if item.key == place.replace("/answer", "/claim-1"))
    written = store.get(place)
    # A bit more or less, an object of a front from another place, something short, nothing.
    for content in (written[:-1] + bytes([written[-1] ^ 1]), store.get(other), b"\xff", b""):
        store.put(place, content, "application/json")
        refused = await FORMS["plain"](front, key)
        assert (refused.status_code, "use another key" in refused.json()["error"]) == (503, True)
    assert "somebody else writes there" in caplog.text
    store.put(place, written, "application/json")
    assert (await FORMS["plain"](front, key)).content == first.content


async def test_a_call_that_is_given_up_is_finished_for_its_repeat(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, before, kept, asked, go = uuid7(), predictions(front), answers(front), asyncio.Event(), asyncio.Event()
    score = front.models.score

    async def wait(model: str, pixels: Pixels) -> Score:
        asked.set()
        await go.wait()
        return await score(model, pixels)

    monkeypatch.setattr(front.models, "score", wait)
    call = asyncio.create_task(front.infer(keyed_request(key)))
    await asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go.set()
    await wait_until(lambda: answers(front) == kept + 1)
    monkeypatch.undo()
    assert (await front.infer(keyed_request(key))).outputs
    assert predictions(front) == before + 1


async def test_what_is_stored_names_neither_caller_nor_key_nor_image(front: Front, store: MemoryStore) -> None:
    key = "ACC-Mustermann-1970"
    request = with_key({"json": v1(study="Mustermann", patient="Mustermann")}, key)
    assert (await front.http.post(V1, **request)).status_code == 200
    assert (await front.http.post(V2, json={**v2(idempotency_key=key), "id": "Mustermann"})).status_code == 422
    assert (await front.http.post(V2, json={**v2(idempotency_key="1"), "id": "Mustermann"})).status_code == 200
    digest = prepare(FILM).input_sha256
    for item in store.list("idempotency/"):
        assert not [word for word in ("Mustermann", digest, "pneumonia") if word.encode() in store.get(item.key)]
        assert "Mustermann" not in item.key


async def test_a_call_without_a_key_asks_the_store_nothing_more(
    front: Front, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    keys: list[str] = []
    monkeypatch.setattr(store, "before", lambda _, key: keys.append(key))
    assert (await front.predict(FILM)).status_code == 200
    assert keys
    assert not [key for key in keys if key.startswith("idempotency/")]


@pytest.fixture(scope="module")
async def front() -> AsyncIterator[Front]:
    """A front of its own: other modules' stores may fail."""
    async with run_front() as running:
        yield running
