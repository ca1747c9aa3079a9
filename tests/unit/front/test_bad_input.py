"""Bad input over every transport: the right 4xx, one sentence, no payload, on record, and the server goes on."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from prometheus_client import REGISTRY

from tests.support import films
from tests.support.front import RELEASE_ID, Front, make_request
from tests.unit.test_image import REFUSED

FILM = films.sample_films()[0].read_bytes()
MARK = "Mustermann-in-the-payload"
GZIP = gzip.compress(MARK.encode() + FILM)

GRPC_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.OUT_OF_RANGE,
    415: grpc.StatusCode.INVALID_ARGUMENT,
}
TRANSPORTS = ("v1", "v2 json", "v2 binary", "grpc", "plain")


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], **changes}


async def by_http(front: Front, transport: str, data: bytes) -> httpx.Response:
    b64 = base64.b64encode(data).decode()
    if transport == "v1":
        return await front.http.post("/v1/models/pneumonia:predict", json={"instances": [{"image": {"b64": b64}}]})
    if transport == "v2 json":
        return await front.http.post("/v2/models/pneumonia/infer", json={"inputs": [tensor(data=[b64])]})
    if transport == "v2 binary":
        return await front.http.post("/v2/models/pneumonia/infer", **binary(data))
    return await front.predict(data, {"content-type": "image/jpeg"})


def binary(data: bytes, **changes: Any) -> dict[str, Any]:
    """Content and headers of a V2 request whose one tensor follows the JSON."""
    tail = struct.pack("<I", len(data)) + data
    head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": len(tail)}, **changes)]}).encode()
    return {"content": head + tail, "headers": {"Inference-Header-Content-Length": str(len(head))}}


def check_error(front: Front, response: httpx.Response, status: int) -> None:
    """The one shape of errors, and the record it leads to."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "prediction_id"}
    assert response.headers["pneumoserve-release"] == RELEASE_ID
    check_record(front, response.json()["error"], response.json()["prediction_id"], status)


def check_record(front: Front, message: str, prediction_id: str, status: int) -> None:
    assert message.endswith(".")
    assert len(message) < 300
    record = front.record(prediction_id)
    assert record.kind == "refusal"
    assert record.error is not None
    assert record.error.status == status
    assert record.error.message == message


@functools.cache
def refused_film(name: str) -> bytes:
    make, _ = REFUSED[name]
    return make()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", REFUSED)
async def test_films_that_are_none(name: str, transport: str, front: Front) -> None:
    _, status = REFUSED[name]
    data = refused_film(name)
    if name in ("text", "html") and transport in ("v2 binary", "grpc"):
        # Bytes of no known magic are taken for base64 in a tensor, so what fails there is the base64.
        status = 400
    if transport == "grpc":
        error = await front.fail(make_request(data))
        assert error.code == GRPC_CODES[status]
        check_record(front, error.message, error.trailing["prediction-id"], status)
    else:
        check_error(front, await by_http(front, transport, data), status)


async def chunks(size: int) -> AsyncIterator[bytes]:
    """A body that does not tell its length."""
    for _ in range(size // 1_000_000):
        yield bytes(1_000_000)


MALFORMED: dict[str, tuple[str, dict[str, Any], int]] = {
    "wrong base64, v1": ("v1/models/pneumonia:predict", {"json": {"instances": [{"image": {"b64": f"@{MARK}"}}]}}, 400),
    "wrong base64, v2": ("v2/models/pneumonia/infer", {"json": {"inputs": [tensor(data=[f"@{MARK}"])]}}, 400),
    "no instances": ("v1/models/pneumonia:predict", {"json": {"instance": MARK}}, 400),
    "wrong shape": ("v2/models/pneumonia/infer", {"json": {"inputs": [tensor(shape=[3], data=[MARK])]}}, 400),
    "wrong datatype": ("v2/models/pneumonia/infer", {"json": {"inputs": [tensor(datatype="FP32", data=[1.0])]}}, 400),
    "malformed json, v1": ("v1/models/pneumonia:predict", {"content": f'{{"{MARK}'.encode()}, 400),
    "malformed json, v2": ("v2/models/pneumonia/infer", {"content": f'{{"{MARK}'.encode()}, 400),
    "html": ("v1/models/pneumonia:predict", {"content": f"<html>{MARK}</html>".encode()}, 400),
    "wrong base64, v2 binary": ("v2/models/pneumonia/infer", binary(f"@{MARK}".encode()), 400),
    "wrong shape, v2 binary": ("v2/models/pneumonia/infer", binary(FILM, shape=[3]), 400),
    "wrong datatype, v2 binary": ("v2/models/pneumonia/infer", binary(FILM, datatype="UINT8"), 400),
    "malformed json, v2 binary": (
        "v2/models/pneumonia/infer",
        {"content": f'{{"{MARK}'.encode(), "headers": {"Inference-Header-Content-Length": "9"}},
        400,
    ),
    "unknown output": (
        "v2/models/pneumonia/infer",
        {"json": {"inputs": [tensor(data=[base64.b64encode(FILM).decode()])], "outputs": [{"name": MARK}]}},
        400,
    ),
    "html, v2": ("v2/models/pneumonia/infer", {"content": f"<html>{MARK}</html>".encode()}, 400),
    "empty body": ("v2/models/pneumonia/infer", {"content": b""}, 400),
    "gzip, v1": ("v1/models/pneumonia:predict", {"content": GZIP, "headers": {"content-encoding": "gzip"}}, 415),
    "gzip, v2": ("v2/models/pneumonia/infer", {"content": GZIP, "headers": {"content-encoding": "gzip"}}, 415),
    "gzip, v2 binary": (
        "v2/models/pneumonia/infer",
        {"content": GZIP, "headers": {"content-encoding": "gzip", "Inference-Header-Content-Length": "9"}},
        415,
    ),
    "gzip, plain": (
        "v1/models/pneumonia:predict",
        {"content": GZIP, "headers": {"content-encoding": "gzip", "content-type": "image/jpeg"}},
        415,
    ),
    "gzip that does not say so": ("v1/models/pneumonia:predict", {"content": GZIP}, 415),
    "unknown model, v1": (f"v1/models/{MARK}:predict", {"content": FILM}, 404),
    "unknown model, v2": (f"v2/models/{MARK}/infer", {"json": {}}, 404),
    "unknown version": ("v2/models/pneumonia/versions/7/infer", {"json": {}}, 404),
    "50 MB, v1": ("v1/models/pneumonia:predict", {"content": bytes(50_000_000)}, 413),
    "50 MB, v2": ("v2/models/pneumonia/infer", {"content": bytes(50_000_000)}, 413),
    "50 MB, v2 binary": ("v2/models/pneumonia/infer", binary(bytes(50_000_000)), 413),
    "50 MB, plain": (
        "v1/models/pneumonia:predict",
        {"content": bytes(50_000_000), "headers": {"content-type": "image/jpeg"}},
        413,
    ),
    "50 MB, its length untold": ("v1/models/pneumonia:predict", {"content": chunks(50_000_000)}, 413),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_http(name: str, front: Front) -> None:
    path, request, status = MALFORMED[name]
    response = await front.http.post(f"/{path}", **request)
    check_error(front, response, status)
    assert MARK not in response.text


GRPC_MALFORMED: dict[str, tuple[pb.ModelInferRequest | bytes, int]] = {
    "no message": (MARK.encode(), 400),
    "wrong base64": (make_request(f"@{MARK}".encode()), 400),
    "lengths that do not add up": (
        pb.ModelInferRequest(
            model_name="pneumonia",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])],
            raw_input_contents=[MARK.encode()],
        ),
        400,
    ),
    "unknown output": (
        pb.ModelInferRequest(
            model_name="pneumonia",
            inputs=make_request(FILM).inputs,
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=MARK)],
            raw_input_contents=make_request(FILM).raw_input_contents,
        ),
        400,
    ),
    "unknown model": (make_request(FILM, MARK), 404),
    "wrong shape": (make_request(FILM, shape=[2]), 400),
    "wrong datatype": (make_request(FILM, datatype="UINT8"), 400),
    "wrong name": (make_request(FILM, name=MARK), 400),
    "no inputs": (pb.ModelInferRequest(model_name="pneumonia"), 400),
    "a little over 44 MiB": (make_request(bytes(44 * 1024 * 1024)), 413),
}


@pytest.mark.parametrize("name", GRPC_MALFORMED)
async def test_malformed_grpc(name: str, front: Front) -> None:
    request, status = GRPC_MALFORMED[name]
    error = await front.fail(request)
    assert error.code == GRPC_CODES[status]
    assert MARK not in error.message
    check_record(front, error.message, error.trailing["prediction-id"], status)


async def test_a_grpc_message_without_an_id_is_answered(front: Front) -> None:
    assert (await front.infer(make_request(FILM))).id


async def test_an_unknown_version_is_named_alike_over_both_transports(front: Front) -> None:
    request = make_request(FILM)
    request.model_version = "7"
    error = await front.fail(request)
    response = await front.http.post("/v2/models/pneumonia/versions/7/infer", json={})
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.message == response.json()["error"]


async def test_a_call_for_outputs_that_do_not_exist_judges_no_film(front: Front) -> None:
    before = len(front.models.calls)
    path, request, _ = MALFORMED["unknown output"]
    assert (await front.http.post(f"/{path}", **request)).status_code == 400
    assert len(front.models.calls) == before


async def test_one_bad_film_fails_the_call_and_is_named(front: Front) -> None:
    films_sent = [FILM, FILM, b"\xff\xd8\xff broken"]
    body = {"instances": [{"image": {"b64": base64.b64encode(item).decode()}} for item in films_sent]}
    response = await front.http.post("/v1/models/pneumonia:predict", json=body)
    check_error(front, response, 400)
    assert response.json()["error"].startswith("Image 2: ")


async def test_paths_that_do_not_exist_have_the_same_shape(front: Front) -> None:
    for path in ("/v3", "/v2/models/pneumonia/infer", f"/v2/models/{MARK}", f"/v1/models/{MARK}", "/metrics"):
        response = await front.http.get(path)
        assert response.status_code in (404, 405)
        assert set(response.json()) == {"error", "prediction_id"}
        assert MARK not in response.text


def outcomes(protocol: str, status: str, outcome: str) -> float:
    """How often calls for the model `pneumonia` ended so."""
    labels = {"model": "pneumonia", "protocol": protocol, "status": status, "outcome": outcome}
    return REGISTRY.get_sample_value("pneumoserve_calls_total", labels) or 0.0


Send = Callable[[Front], Any]
SENDERS: dict[str, tuple[Send, str, str]] = {
    "v1": (lambda front: by_http(front, "v1", FILM), "500", "v1"),
    "v2": (lambda front: by_http(front, "v2 json", FILM), "500", "v2"),
    "grpc": (lambda front: front.fail(make_request(FILM)), "INTERNAL", "grpc"),
}


@pytest.mark.parametrize("name", SENDERS)
async def test_a_fault_of_ours_is_answered_recorded_and_logged_without_its_text(
    name: str, front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> None:
        raise ZeroDivisionError(MARK)

    send, status, protocol = SENDERS[name]
    monkeypatch.setattr(front.service, "answer", fail)
    before = outcomes(protocol, status, "failed")
    answered = await send(front)
    if isinstance(answered, httpx.Response):
        assert answered.status_code == 500
        shown, prediction_id = answered.text, answered.json()["prediction_id"]
    else:
        assert answered.code is grpc.StatusCode.INTERNAL
        shown, prediction_id = answered.message, answered.trailing["prediction-id"]
    assert "report its prediction_id" in shown
    record = front.record(prediction_id)
    assert (record.kind, record.error.status if record.error else None) == ("failure", 500)
    assert "unexpected ZeroDivisionError at fail:" in caplog.text
    assert MARK not in caplog.text + shown + record.model_dump_json()
    assert outcomes(protocol, status, "failed") == before + 1


async def test_a_caller_that_hangs_up_is_counted_and_not_recorded(front: Front) -> None:
    async def refuse(*_: Any) -> None:
        raise AssertionError("an abandoned call was recorded")

    sent: list[dict[str, Any]] = []

    async def hang_up() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    before = outcomes("v1", "499", "abandoned")
    scope = {"type": "http", "method": "POST", "path": "/v1/models/pneumonia:predict", "query_string": b"",
             "headers": [(b"content-length", b"9")], "http_version": "1.1"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front.service, "refuse", refuse)
        await front.app(scope, hang_up, send)
    assert sent[0]["status"] == 499
    assert outcomes("v1", "499", "abandoned") == before + 1


async def test_the_front_goes_on(front: Front) -> None:
    """Runs last in this file: what came before must not have brought it down."""
    assert (await front.http.get("/v2/health/ready")).status_code == 200
    assert (await front.predict(FILM)).status_code == 200
