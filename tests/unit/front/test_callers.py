"""Who called: taken from the one header that a gateway sets, only where it was said so, shown in the record alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from pneumoserve.front.errors import CallError
from pneumoserve.front.identity import Callers, GatewaySecretError, read_secret
from tests.support import films
from tests.support.front import Front, make_request, run_front

HEADER = "pneumoserve-subject"
SUBJECT = "radiologist-4711@clinic.example"
FILM = films.sample_films()[0].read_bytes()


@pytest.fixture(scope="module")
async def gated() -> AsyncIterator[Front]:
    """A front behind a gateway."""
    async with run_front(Callers(HEADER)) as running:
        yield running


async def test_the_verified_caller_stands_in_the_record(gated: Front) -> None:
    response = await gated.predict(FILM, [(HEADER, SUBJECT)])
    assert gated.record(response.json()["predictions"][0]["prediction_id"]).call.subject == SUBJECT


async def test_over_grpc_too(gated: Front) -> None:
    response = await gated.infer(make_request(FILM), (HEADER, SUBJECT))
    prediction_id = response.raw_output_contents[0][4:].decode()
    assert gated.record(prediction_id).call.subject == SUBJECT


async def test_in_the_record_of_a_refused_call_too(gated: Front) -> None:
    response = await gated.predict(b"no film", [(HEADER, SUBJECT)])
    assert response.status_code == 400
    assert gated.record(response.json()["prediction_id"]).call.subject == SUBJECT


@pytest.mark.parametrize(
    "headers",
    [[], [(HEADER, "")], [(HEADER, "a"), (HEADER, "b")], [(HEADER, "x" * 256)], [(HEADER, "tab\there")]],
    ids=["none", "empty", "two", "long", "unprintable"],
)
async def test_a_call_that_no_gateway_vouches_for_is_refused(gated: Front, headers: list[tuple[str, str]]) -> None:
    response = await gated.predict(FILM, headers)
    assert response.status_code == 401
    record = gated.record(response.json()["prediction_id"])
    assert record.kind == "refusal"
    assert record.call.subject is None


async def test_over_grpc_it_is_unauthenticated(gated: Front) -> None:
    error = await gated.fail(make_request(FILM))
    assert error.code is grpc.StatusCode.UNAUTHENTICATED
    assert "gateway" in error.message
    assert gated.record(error.trailing["prediction-id"]).kind == "refusal"


async def test_without_a_gateway_the_header_means_nothing(front: Front) -> None:
    response = await front.predict(FILM, {HEADER: SUBJECT})
    assert front.record(response.json()["predictions"][0]["prediction_id"]).call.subject is None


SECRET = b"s" * 32


@pytest.mark.parametrize(
    ("proofs", "subject"), [([SECRET], "a"), ([], None), ([b"t" * 32], None), ([SECRET, SECRET], None), ([b""], None)]
)
def test_a_name_counts_only_beside_the_gateways_secret(proofs: list[bytes], subject: str | None) -> None:
    callers = Callers(HEADER, SECRET)
    headers = [(HEADER, "a"), *(("Pneumoserve-Gateway", proof.decode()) for proof in proofs)]
    if subject is None:
        with pytest.raises(CallError) as refused:
            callers.subject(headers)
        assert refused.value.status == 401
    else:
        assert callers.subject(headers) == subject
    assert "ssss" not in repr(callers)


@pytest.mark.parametrize("secret", [None, b"short\n"])
def test_a_secret_that_is_none_ends_the_start(secret: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "credential"
    if secret is not None:
        file.write_bytes(secret)
    with pytest.raises(GatewaySecretError):
        read_secret(file)
    file.write_bytes(SECRET + b"\n")
    assert read_secret(file) == SECRET


def test_binary_metadata_names_nobody() -> None:
    with pytest.raises(CallError):
        Callers("name-bin").subject([("name-bin", b"somebody")])
