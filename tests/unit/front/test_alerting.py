"""Whose X-ray it is, sealed before the answer, and the hint after it."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pneumoserve.front.alerting import Alerting, HintLine
from pneumoserve.front.identity import Callers
from pneumoserve.front.service import Refusal
from pneumoserve.front.wire import Call, Named
from pneumoserve.ledger import LockRule
from pneumoserve.records import Addressee, ArchiveWriter, EnvelopeError, open_envelope
from pneumoserve.store import MemoryStore, StoreError
from tests.support import films
from tests.support.entries import KEY
from tests.support.front import FakeModels, Front, ThreadDecoders, make_request, run_front, run_service

FILM = films.sample_films()[0].read_bytes()
V1 = {"instances": [{"image": {"b64": base64.b64encode(FILM).decode()}}]}
OPENING = X25519PrivateKey.generate()
NAMES = {"practitioner": "dr.meier", "reference": "ACC-4711"}
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILM).decode()]}


class Hints:
    """Counts them."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


HINTS = Hints()


@pytest.fixture(scope="module")
async def alerting() -> AsyncIterator[Front]:
    async with run_front(alerting=Alerting(OPENING.public_key(), HINTS)) as running:
        yield running


async def test_names_are_sealed_by_each_way_of_calling(alerting: Front) -> None:
    v1 = await alerting.http.post("/v1/models/pneumonia:predict", json={**V1, "parameters": NAMES})
    headers = {f"Pneumoserve-{name.capitalize()}": value for name, value in NAMES.items()}
    plain = await alerting.predict(FILM, {"content-type": "image/jpeg", **headers})
    v2 = await alerting.http.post("/v2/models/pneumonia/infer", json={"inputs": [TENSOR], "parameters": NAMES})
    request = make_request(FILM)
    for name, value in NAMES.items():
        request.parameters[name].string_param = value
    over_grpc = await alerting.infer(request)
    ids = [answer.json()["predictions"][0]["prediction_id"] for answer in (v1, plain)]
    ids.append(next(each["data"][0] for each in v2.json()["outputs"] if each["name"] == "prediction_id"))
    column = [each.name for each in over_grpc.outputs].index("prediction_id")
    ids.append(over_grpc.raw_output_contents[column][4:].decode())
    sealed = [alerting.store.get(f"envelopes/{each}") for each in ids]
    assert len(set(sealed)) == 4
    for each in ids:
        assert open_envelope(alerting.store, OPENING, each) == Addressee(**NAMES)
        assert "meier" not in alerting.record(each).model_dump_json()


async def test_an_envelope_opens_by_its_key_and_under_its_id_alone(alerting: Front) -> None:
    response = await alerting.http.post("/v1/models/pneumonia:predict", json={**V1, "parameters": NAMES})
    prediction = response.json()["predictions"][0]["prediction_id"]
    with pytest.raises(EnvelopeError, match="does not open"):
        open_envelope(alerting.store, X25519PrivateKey.generate(), prediction)
    alerting.store.put("envelopes/other", alerting.store.get(f"envelopes/{prediction}"), "application/octet-stream")
    with pytest.raises(EnvelopeError):
        open_envelope(alerting.store, OPENING, "other")
    assert open_envelope(alerting.store, OPENING, "none") == Addressee()


async def test_without_names_there_is_no_envelope(alerting: Front) -> None:
    response = await alerting.predict(FILM)
    assert not alerting.store.exists(f"envelopes/{response.json()['predictions'][0]['prediction_id']}")


@pytest.mark.parametrize("name", NAMES)
async def test_where_nobody_would_be_told_names_are_refused(name: str, front: Front, alerting: Front) -> None:
    body = {**V1, "parameters": {name: "secret-name"}}
    refused = await front.http.post("/v1/models/pneumonia:predict", json=body)
    assert (refused.status_code, "alerts nobody" in refused.json()["error"]) == (400, True)
    raw = await alerting.http.post("/v1/models/pneumonia-detector:predict", json=body)
    assert (raw.status_code, "Scores alert nobody" in raw.json()["error"]) == (400, True)
    for answer, at in ((refused, front), (raw, alerting)):
        record = at.record(answer.json()["prediction_id"])
        assert "secret-name" not in record.model_dump_json() + answer.text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["", "x" * 10_000, 7, "a\r\nBcc: all@example.org", "a\nb", "\0", "a\u2028b"])
async def test_names_that_cannot_be_one_are_refused(name: str, value: object, alerting: Front) -> None:
    response = await alerting.http.post("/v1/models/pneumonia:predict", json={**V1, "parameters": {name: value}})
    assert response.status_code == 400
    assert name in response.json()["error"]
    assert "Bcc" not in response.text
    if isinstance(value, str):
        request = make_request(FILM)
        request.parameters[name].string_param = value
        assert (await alerting.fail(request)).code == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_hint_follows_what_may_alert(alerting: Front) -> None:
    before = HINTS.count
    await alerting.predict(FILM)
    assert HINTS.count == before + 1
    await alerting.predict(FILM, model="pneumonia-detector")
    await alerting.predict(b"no image")
    assert HINTS.count == before + 1


async def test_an_envelope_that_is_not_stored_refuses_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is to believe that somebody will be told whose X-ray it is."""
    monkeypatch.setattr("pneumoserve.ledger.writer._REFUSE_SECONDS", 0.2)
    store, decoders = MemoryStore(), ThreadDecoders()

    def fail(operation: str, key: str) -> None:
        if key.startswith("envelopes/"):
            raise StoreError("away")

    store.before = fail
    async with run_service(store, Callers(None), decoders, FakeModels(), Alerting(OPENING.public_key())) as (
        service,
        _,
    ):
        call = Call([FILM], "v1", "plain", named=Named(practitioner="dr.meier"))
        with pytest.raises(Refusal) as refused:
            await service.answer("pneumonia", call)
    decoders.close()
    assert refused.value.error.status == 503
    assert not any(b"prediction" in store.get(item.key).split(b"\n", 1)[-1] for item in store.list("records/"))


async def test_no_lock_holds_an_envelope() -> None:
    store = MemoryStore()
    archive = ArchiveWriter(store, KEY, "0" * 12, lock=LockRule(30))
    await archive.start()
    await archive.put_envelope("one", b"sealed")
    await archive.put_image("f" * 64, b"image", "image/jpeg")
    await archive.close()
    assert store.lock_end("envelopes/one") is None
    assert all(store.lock_end(item.key) is not None for item in store.list("images/"))
    store.erase("envelopes/one")
    assert list(store.versions("envelopes/")) == []


def test_a_hint_is_one_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(30)
        line = HintLine(f"127.0.0.1:{heard.getsockname()[1]}")
        line()
        assert heard.recv(64) == b"look"
        line.close()


def test_a_host_that_is_not_found_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    line = HintLine("no-such-host.invalid:1")
    for _ in range(3):
        line()
    line.close()
    assert caplog.text.count("hints do not leave") <= 1


def test_names_are_in_no_representation() -> None:
    assert "meier" not in repr(Named(practitioner="dr.meier", reference="ACC-4711"))
    assert "meier" not in repr(Addressee(practitioner="dr.meier"))
