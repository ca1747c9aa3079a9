"""Who called: taken from the one header that a gateway sets, only where it was said so, shown in the record alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

from loadtest.calls import calls_of, checked_grpc
from pneumoserve.archive.find import find_record
from pneumoserve.archive.record import Record
from pneumoserve.archive.store import ObjectStore
from pneumoserve.front.callers import Callers
from pneumoserve.front.errors import CallError
from pneumoserve.local.process import free_ports
from tests import films
from tests.conftest import Stack, wait_for

HEADER = "pneumoserve-subject"
SUBJECT = "radiologist-4711@clinic.example"
FILM = films.sample_films()[0].read_bytes()


@dataclass(frozen=True)
class Front:
    """A front behind a gateway, over the models and the store of the stack."""

    url: str
    grpc: str
    log: Path
    stack: Stack

    def predict(self, content: bytes = FILM, headers: list[tuple[str, str]] | None = None) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/models/pneumonia:predict", content=content, headers=headers, timeout=60)

    def record(self, prediction_id: str) -> Record:
        return recorded(self.stack, prediction_id)


def recorded(stack: Stack, prediction_id: str) -> Record:
    record = find_record(ObjectStore(stack.s3), prediction_id)
    assert record is not None
    return record


@pytest.fixture(scope="module")
def front(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    http, over_grpc = free_ports(2)
    own = {"--http-port": http, "--grpc-port": over_grpc, "--journal": folder / "journal"}
    command = [word for word in stack.child("pneumoserve.front").cmdline() if word.partition("=")[0] not in own]
    command += [f"{name}={value}" for name, value in own.items()]
    log = folder / "front.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, f"--subject-header={HEADER}"], stdout=output, stderr=output,
            env={**os.environ, **stack.s3.to_env()},
        )  # fmt: skip
    front = Front(f"http://127.0.0.1:{http}", f"127.0.0.1:{over_grpc}", log, stack)

    def ready() -> bool:
        try:
            return httpx.get(f"{front.url}/v2/health/ready").is_success
        except httpx.TransportError:
            return False

    wait_for(ready, 60)
    yield front
    process.terminate()
    assert process.wait(60) == 0


def over_grpc(address: str, *metadata: tuple[str, str]) -> str:
    """The id of the one prediction."""
    (call,) = calls_of("grpc", [FILM], 1, messages)
    with grpc.insecure_channel(address) as channel:
        body = channel.unary_unary(call.path)(call.body, metadata=metadata, timeout=60)
    (prediction_id,) = checked_grpc(call, messages, body).predictions
    return prediction_id


def test_the_verified_caller_stands_in_the_record(front: Front) -> None:
    answer = front.predict(headers=[(HEADER, SUBJECT)]).json()["predictions"][0]
    assert front.record(answer["prediction_id"]).call.subject == SUBJECT


def test_over_grpc_too(front: Front) -> None:
    prediction_id = over_grpc(front.grpc, (HEADER, SUBJECT))
    assert front.record(prediction_id).call.subject == SUBJECT


def test_in_the_record_of_a_refused_call_too(front: Front) -> None:
    response = front.predict(b"no film", [(HEADER, SUBJECT)])
    assert response.status_code == 400
    assert front.record(response.json()["prediction_id"]).call.subject == SUBJECT


@pytest.mark.parametrize(
    "headers",
    [[], [(HEADER, "")], [(HEADER, "a"), (HEADER, "b")], [(HEADER, "x" * 256)], [(HEADER, "tab\there")]],
    ids=["none", "empty", "two", "long", "unprintable"],
)
def test_a_call_that_no_gateway_vouches_for_is_refused(front: Front, headers: list[tuple[str, str]]) -> None:
    response = front.predict(headers=headers)
    assert response.status_code == 401
    record = front.record(response.json()["prediction_id"])
    assert record.kind == "refusal"
    assert record.call.subject is None


def test_over_grpc_it_is_unauthenticated(front: Front) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        over_grpc(front.grpc)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "gateway" in refused.value.details()


def test_callers_are_named_in_no_log_metric_key_or_error(front: Front) -> None:
    front.predict(headers=[(HEADER, SUBJECT)])
    error = front.predict(b"no film", [(HEADER, SUBJECT)])
    shown = [error.text, httpx.get(f"{front.url}/metrics").text, front.log.read_text()]
    shown += [item.key for item in ObjectStore(front.stack.s3).list("")]
    assert not [text for text in shown if SUBJECT in text or "radiologist" in text]


def test_without_a_gateway_the_header_means_nothing(stack: Stack) -> None:
    response = httpx.post(
        f"{stack.url}/v1/models/pneumonia:predict", content=FILM, headers={HEADER: SUBJECT}, timeout=60
    )
    prediction_id = response.json()["predictions"][0]["prediction_id"]
    assert recorded(stack, prediction_id).call.subject is None


def test_binary_metadata_names_nobody() -> None:
    with pytest.raises(CallError):
        Callers("name-bin").subject([("name-bin", b"somebody")])
