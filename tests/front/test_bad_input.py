"""Bad input over every transport: the right 4xx, one sentence, no payload, on record, and the server goes on."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

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


def grpc_request(model: str, data: bytes, **changes: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(**{"name": "image", "datatype": "BYTES", "shape": [1], **changes})
    request.raw_input_contents.append(struct.pack("<I", len(data)) + data)
    return request


def by_grpc(
    stack: Stack, request: pb.ModelInferRequest | bytes, compression: grpc.Compression | None = None
) -> tuple[grpc.StatusCode, str, str]:
    """Status, message and prediction id of a call that fails; bytes are sent as they are."""
    message = request if isinstance(request, bytes) else request.SerializeToString()
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(stack.grpc, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, timeout=60, compression=compression)
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
        return httpx.post(f"{base}/v2/models/pneumonia/infer", timeout=60, **binary(data))
    headers = {"content-type": "image/jpeg"}
    return httpx.post(f"{base}/v1/models/pneumonia:predict", content=data, headers=headers, timeout=60)


def binary(data: bytes, **changes: Any) -> dict[str, Any]:
    """Content and headers of a V2 request whose one tensor follows the JSON."""
    tail = struct.pack("<I", len(data)) + data
    head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": len(tail)}, **changes)]}).encode()
    return {"content": head + tail, "headers": {"Inference-Header-Content-Length": str(len(head))}}


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
@pytest.mark.parametrize("name", REFUSED)
def test_films_that_are_none(name: str, transport: str, stack: Stack) -> None:
    make, status = REFUSED[name]
    data = make()
    if name in ("text", "html") and transport in ("v2 binary", "grpc"):
        # Bytes of no known magic are taken for base64 in a tensor, so what fails there is the base64.
        status = 400
    if transport == "grpc":
        code, message, prediction_id = by_grpc(stack, grpc_request("pneumonia", data))
        assert code == GRPC_CODES[status]
        check_record(stack, message, prediction_id, status)
    else:
        check_error(stack, by_http(stack, transport, data), status)


def chunks(size: int) -> Iterator[bytes]:
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
    "gzip that does not say so": ("v1/models/pneumonia:predict", {"content": GZIP}, 400),
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
def test_malformed_http(name: str, stack: Stack) -> None:
    path, request, status = MALFORMED[name]
    response = httpx.post(f"{stack.url}/{path}", timeout=60, **request)
    check_error(stack, response, status)
    assert MARK not in response.text


GRPC_MALFORMED: dict[str, tuple[pb.ModelInferRequest | bytes, int]] = {
    "no message": (MARK.encode(), 400),
    "wrong base64": (grpc_request("pneumonia", f"@{MARK}".encode()), 400),
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
            inputs=grpc_request("pneumonia", FILM).inputs,
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=MARK)],
            raw_input_contents=grpc_request("pneumonia", FILM).raw_input_contents,
        ),
        400,
    ),
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


def test_a_grpc_message_without_an_id_and_compressed_is_answered(stack: Stack) -> None:
    with grpc.insecure_channel(stack.grpc, compression=grpc.Compression.Gzip) as channel:
        answer = pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(grpc_request("pneumonia", FILM), timeout=60)
    assert answer.id


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_grpc_itself_refuses_is_counted(compression: grpc.Compression, stack: Stack) -> None:
    def refused() -> float:
        return metric(stack, "pneumoserve_grpc_infer_started_total") - metric(
            stack, "pneumoserve_grpc_infer_received_total"
        )

    before = refused()
    code, _, _ = by_grpc(stack, grpc_request("pneumonia", bytes(70_000_000)), compression)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused() == before + 1


def test_what_is_no_http_is_refused_and_counted(stack: Stack) -> None:
    before = metric(stack, "pneumoserve_http_refused_total")
    address = urlsplit(stack.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
        connection.sendall(f"{MARK}\r\n\r\n".encode())
        told = connection.makefile("rb").read()
    assert told.startswith(b"HTTP/1.1 400 ")
    assert MARK.encode() not in told
    assert metric(stack, "pneumoserve_http_refused_total") == before + 1


def test_a_call_for_outputs_that_do_not_exist_judges_no_film(stack: Stack) -> None:
    before = metric(stack, "pneumoserve_archive_records_total")
    path, request, _ = MALFORMED["unknown output"]
    assert httpx.post(f"{stack.url}/{path}", timeout=60, **request).status_code == 400
    assert metric(stack, "pneumoserve_archive_records_total") == before + 1


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
    for payload in (MARK.encode(), base64.b64encode(FILM)[:60], b"not an image", b"<!doctype html>"):
        assert payload not in logs
