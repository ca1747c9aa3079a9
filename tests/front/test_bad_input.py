"""Bad input over every transport: the right 4xx, one sentence, no payload, on record, and the server goes on."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from pneumoserve.archive.find import find_record
from pneumoserve.archive.store import ObjectStore
from tests import films
from tests.conftest import Stack
from tests.unit.test_image import REFUSED

FILM = films.sample_films()[0].read_bytes()
MARK = "Mustermann-in-the-payload"

GRPC_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.OUT_OF_RANGE,
    415: grpc.StatusCode.INVALID_ARGUMENT,
}
# A file over 32 MiB is over the body limit once it is base64.
TRANSPORTS = ("v1", "v2 json", "v2 binary", "grpc", "plain")


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], **changes}


def grpc_request(model: str, data: bytes, **changes: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(**{"name": "image", "datatype": "BYTES", "shape": [1], **changes})
    request.raw_input_contents.append(struct.pack("<I", len(data)) + data)
    return request


def by_grpc(stack: Stack, request: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str, str]:
    """Status, message and prediction id of a call that fails."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(stack.grpc, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    error = caught.value
    trailing = dict(error.trailing_metadata() or ())
    return error.code(), error.details(), str(trailing.get("prediction-id", ""))


def by_http(stack: Stack, transport: str, data: bytes) -> httpx.Response:
    base = stack.url
    b64 = base64.b64encode(data).decode()
    if transport == "v1":
        body: Any = {"instances": [{"image": {"b64": b64}}]}
        return httpx.post(f"{base}/v1/models/pneumonia:predict", json=body, timeout=60)
    if transport == "v2 json":
        return httpx.post(f"{base}/v2/models/pneumonia/infer", json={"inputs": [tensor(data=[b64])]}, timeout=60)
    if transport == "v2 binary":
        tail = struct.pack("<I", len(data)) + data
        head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": len(tail)})]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return httpx.post(f"{base}/v2/models/pneumonia/infer", content=head + tail, headers=headers, timeout=60)
    headers = {"content-type": "image/jpeg"}
    return httpx.post(f"{base}/v1/models/pneumonia:predict", content=data, headers=headers, timeout=60)


def check_error(stack: Stack, response: httpx.Response, status: int) -> None:
    """The one shape of errors, and the record it leads to."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "prediction_id"}
    check_record(stack, response.json()["error"], response.json()["prediction_id"], status)


def check_record(stack: Stack, message: str, prediction_id: str, status: int) -> None:
    assert message.endswith(".")
    assert len(message) < 300
    record = find_record(ObjectStore(stack.s3), prediction_id)
    assert record is not None
    assert record.kind == "refusal"
    assert record.error is not None
    assert record.error.status == status
    assert record.error.message == message


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", [name for name in REFUSED if name != "33 MiB"])
def test_films_that_are_none(name: str, transport: str, stack: Stack) -> None:
    make, status = REFUSED[name]
    data = make()
    if transport == "grpc":
        code, message, prediction_id = by_grpc(stack, grpc_request("pneumonia", data))
        # Bytes of no known magic are taken for base64 in a tensor, so what fails there is the base64.
        assert code in (GRPC_CODES[status], grpc.StatusCode.INVALID_ARGUMENT)
        record = find_record(ObjectStore(stack.s3), prediction_id)
        assert record is not None
        assert record.error is not None
        check_record(stack, message, prediction_id, record.error.status)
        return
    response = by_http(stack, transport, data)
    known_magic = name not in ("text", "html")
    check_error(stack, response, status if known_magic or transport != "v2 binary" else 400)


MALFORMED: dict[str, tuple[str, dict[str, Any], int]] = {
    "wrong base64, v1": ("v1/models/pneumonia:predict", {"json": {"instances": [{"image": {"b64": f"@{MARK}"}}]}}, 400),
    "wrong base64, v2": ("v2/models/pneumonia/infer", {"json": {"inputs": [tensor(data=[f"@{MARK}"])]}}, 400),
    "no instances": ("v1/models/pneumonia:predict", {"json": {"instance": MARK}}, 400),
    "wrong shape": ("v2/models/pneumonia/infer", {"json": {"inputs": [tensor(shape=[3], data=[MARK])]}}, 400),
    "wrong datatype": ("v2/models/pneumonia/infer", {"json": {"inputs": [tensor(datatype="FP32", data=[1.0])]}}, 400),
    "malformed json, v1": ("v1/models/pneumonia:predict", {"content": f'{{"{MARK}'.encode()}, 400),
    "malformed json, v2": ("v2/models/pneumonia/infer", {"content": f'{{"{MARK}'.encode()}, 400),
    "html": ("v1/models/pneumonia:predict", {"content": f"<html>{MARK}</html>".encode()}, 400),
    "empty body": ("v2/models/pneumonia/infer", {"content": b""}, 400),
    "gzip, v1": ("v1/models/pneumonia:predict", {"content": FILM, "headers": {"content-encoding": "gzip"}}, 415),
    "gzip, v2": ("v2/models/pneumonia/infer", {"content": b"{}", "headers": {"content-encoding": "gzip"}}, 415),
    "unknown model, v1": (f"v1/models/{MARK}:predict", {"content": FILM}, 404),
    "unknown model, v2": (f"v2/models/{MARK}/infer", {"json": {}}, 404),
    "unknown version": ("v2/models/pneumonia/versions/7/infer", {"json": {}}, 404),
    "50 MB, v1": ("v1/models/pneumonia:predict", {"content": bytes(50_000_000)}, 413),
    "50 MB, v2": ("v2/models/pneumonia/infer", {"content": bytes(50_000_000)}, 413),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http(name: str, stack: Stack) -> None:
    path, request, status = MALFORMED[name]
    response = httpx.post(f"{stack.url}/{path}", timeout=60, **request)
    check_error(stack, response, status)
    assert MARK not in response.text


GRPC_MALFORMED = {
    "unknown model": (grpc_request(MARK, FILM), 404),
    "wrong shape": (grpc_request("pneumonia", FILM, shape=[2]), 400),
    "wrong datatype": (grpc_request("pneumonia", FILM, datatype="UINT8"), 400),
    "wrong name": (grpc_request("pneumonia", FILM, name=MARK), 400),
    "no inputs": (pb.ModelInferRequest(model_name="pneumonia"), 400),
    "50 MB": (grpc_request("pneumonia", bytes(50_000_000)), 413),
}


@pytest.mark.parametrize("name", GRPC_MALFORMED)
def test_malformed_grpc(name: str, stack: Stack) -> None:
    request, status = GRPC_MALFORMED[name]
    code, message, prediction_id = by_grpc(stack, request)
    assert code == GRPC_CODES[status]
    assert MARK not in message
    check_record(stack, message, prediction_id, status)


def metric(stack: Stack, name: str) -> float:
    for line in httpx.get(f"{stack.url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(name)


def test_a_message_that_grpc_itself_refuses_is_counted(stack: Stack) -> None:
    def refused() -> float:
        return metric(stack, "pneumoserve_grpc_infer_started_total") - metric(
            stack, "pneumoserve_grpc_infer_received_total"
        )

    before = refused()
    code, _, _ = by_grpc(stack, grpc_request("pneumonia", bytes(70_000_000)))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused() == before + 1


def test_one_bad_film_fails_the_call_and_is_named(stack: Stack) -> None:
    films_sent = [FILM, FILM, b"\xff\xd8\xff broken"]
    body = {"instances": [{"image": {"b64": base64.b64encode(item).decode()}} for item in films_sent]}
    response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", json=body, timeout=30)
    check_error(stack, response, 400)
    assert response.json()["error"].startswith("Image 2: ")


def test_paths_that_do_not_exist_have_the_same_shape(stack: Stack) -> None:
    for response in (
        httpx.get(f"{stack.url}/v3"),
        httpx.get(f"{stack.url}/v2/models/pneumonia/infer"),
        httpx.get(f"{stack.url}/v2/models/{MARK}"),
        httpx.get(f"{stack.url}/v1/models/{MARK}"),
    ):
        assert response.status_code in (404, 405)
        assert set(response.json()) == {"error", "prediction_id"}
        assert MARK not in response.text


def test_the_server_goes_on_and_its_logs_hold_no_payload(stack: Stack) -> None:
    """Runs last in this file: what came before must not have left a trace of the payloads."""
    assert httpx.get(f"{stack.url}/v2/health/ready").status_code == 200
    response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=FILM, timeout=30)
    assert response.status_code == 200
    logs = b"".join(path.read_bytes() for path in stack.logs.rglob("*") if path.is_file())
    assert len(logs) > 0
    assert MARK.encode() not in logs
    assert base64.b64encode(FILM)[:60] not in logs
