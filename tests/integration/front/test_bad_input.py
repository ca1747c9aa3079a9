"""Bad input to the whole stack: refused on record over REST and gRPC, no payload in its logs, and it goes on."""

from __future__ import annotations

import base64

import grpc
import httpx
import pytest

from pneumoserve.records import find_record
from tests.conftest import Stack
from tests.support import films
from tests.support.front import make_request

FILM = films.sample_films()[0].read_bytes()
MARK = "Mustermann-in-the-payload"


def check_record(stack: Stack, prediction_id: str, status: int, message: str) -> None:
    record = find_record(stack.reader, prediction_id)
    assert record is not None
    assert record.error is not None
    assert (record.kind, record.error.status, record.error.message) == ("refusal", status, message)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("v1/models/pneumonia:predict", b"\xff\xd8\xff " + MARK.encode(), 400),
        ("v1/models/pneumonia:predict", f'{{"{MARK}'.encode(), 400),
        ("v2/models/pneumonia/infer", f"<html>{MARK}</html>".encode(), 400),
        (f"v1/models/{MARK}:predict", FILM, 404),
        ("v1/models/pneumonia:predict", bytes(50_000_000), 413),
    ],
)
def test_over_http(path: str, body: bytes, status: int, stack: Stack) -> None:
    response = httpx.post(f"{stack.url}/{path}", content=body, timeout=60)
    assert response.status_code == status
    assert set(response.json()) == {"error", "prediction_id"}
    check_record(stack, response.json()["prediction_id"], status, response.json()["error"])


@pytest.mark.parametrize(
    ("film", "code", "status"),
    [
        (f"@{MARK}".encode(), grpc.StatusCode.INVALID_ARGUMENT, 400),
        (bytes(44 * 1024 * 1024), grpc.StatusCode.OUT_OF_RANGE, 413),
    ],
    ids=["no film", "a little over 44 MiB"],
)
def test_over_grpc(film: bytes, code: grpc.StatusCode, status: int, stack: Stack) -> None:
    options = [("grpc.max_send_message_length", -1)]
    message = make_request(film).SerializeToString()
    with grpc.insecure_channel(stack.grpc, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, timeout=60)
    error = caught.value
    assert error.code() is code
    check_record(stack, dict(error.trailing_metadata())["prediction-id"], status, error.details())


def test_the_server_goes_on_and_its_logs_hold_no_payload(stack: Stack) -> None:
    """Runs last in this file: what came before must not have left a trace of the payloads."""
    assert httpx.get(f"{stack.url}/v2/health/ready").status_code == 200
    response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=FILM, timeout=30)
    assert response.status_code == 200
    logs = b"".join(path.read_bytes() for path in stack.logs.rglob("*") if path.is_file())
    assert len(logs) > 0
    for payload in (MARK.encode(), base64.b64encode(FILM)[:60]):
        assert payload not in logs
