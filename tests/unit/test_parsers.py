"""Parsers of our own against whatever bytes: each ends in a value or in its own error, whose text holds no payload."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from pneumoserve.front.errors import CallError
from pneumoserve.front.wire import HEADER_LENGTH, MAX_IMAGES, Call, parse_grpc, parse_v1, parse_v2
from pneumoserve.ledger import Header, SegmentError, key_id_of, verify_segment
from pneumoserve.ledger.segment import read_segment, sign_segment
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release.verify import MANIFEST, ReleaseError, read_manifest
from pneumoserve.signing import KeyFileError, Trust, key_id, load_trust, write_public_key

PLANTED = "ZQPATIENT"
FILM = b"\xff\xd8\xff\xe0 film"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))

# JSON of any shape, with the values and names that parsers look for among them.
_WORDS = st.sampled_from(
    ("instances", "image", "b64", "inputs", "outputs", "parameters", "data", "shape", "name", "datatype", "BYTES", "id",
     "binary_data_size", "binary_data_output", "binary_data", "study", "patient", PLANTED,
     base64.b64encode(FILM).decode())
)  # fmt: skip
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | _WORDS
JSONS = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS | st.text(max_size=5), inner, max_size=5),
)


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with up to four of their blocks replaced."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(whole)))
        end = min(len(whole), at + draw(st.sampled_from((0, 1, 2, 8, 100))))
        whole = whole[:at] + draw(st.binary(max_size=8) | st.just(whole[at:end] * 2)) + whole[end:]
    return whole


@st.composite
def changed_json(draw: st.DrawFn, document: Any) -> Any:
    """A document with one of its nodes replaced, left out or doubled."""
    if not isinstance(document, (dict, list)) or not document or draw(st.integers(0, 3)) == 0:
        return draw(JSONS)
    copy = dict(document) if isinstance(document, dict) else list(document)
    place: Any = draw(st.sampled_from(sorted(document) if isinstance(document, dict) else range(len(document))))
    match draw(st.sampled_from(("deeper", "deeper", "out", "more"))):
        case "deeper":
            copy[place] = draw(changed_json(copy[place]))
        case "out":
            del copy[place]
        case _ if isinstance(copy, list):
            copy.append(copy[place])
        case _:
            copy[draw(_WORDS)] = copy[place]
    return copy


def bodies(document: Any) -> st.SearchStrategy[bytes]:
    """A document changed as JSON, as bytes, or anything at all."""
    whole = json.dumps(document).encode()
    texts = (changed_json(document) | JSONS).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    return texts | changed(whole) | st.binary(max_size=200)


V1 = {"instances": [{"image": {"b64": base64.b64encode(FILM).decode()}}], "parameters": {"study": PLANTED}}
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILM).decode()]}
V2 = {"id": "x", "inputs": [TENSOR], "outputs": [{"name": "finding", "parameters": {"binary_data": True}}]}
BINARY = {"inputs": [{**{k: v for k, v in TENSOR.items() if k != "data"}, "parameters": {"binary_data_size": 15}}]}
TAIL = len(FILM).to_bytes(4, "little") + FILM


def check_call(parse: Any, *given: Any) -> None:
    """A call of 1 to 16 films, or a refusal that says nothing of the payload."""
    try:
        call = parse(*given)
    except CallError as error:
        assert error.status in {400, 415}
        assert PLANTED not in error.message
        assert error.message.isascii()
        assert len(error.message) < 300
    else:
        assert isinstance(call, Call)
        assert 1 <= len(call.images) <= MAX_IMAGES
        assert all(isinstance(image, bytes) for image in call.images)
        assert PLANTED not in repr(call.named)


@given(bodies(V1), st.sampled_from(("application/json", "", "image/jpeg", "application/dicom", "text/" + PLANTED)))
def test_v1_bodies(body: bytes, kind: str) -> None:
    check_call(parse_v1, body, {"content-type": kind})


@given(bodies(V2))
def test_v2_bodies(body: bytes) -> None:
    check_call(parse_v2, body, {})


@given(bodies(BINARY), changed(TAIL) | st.binary(max_size=100), st.none() | st.integers(-9, 999) | st.text(max_size=9))
def test_v2_bodies_with_binary_tensors(head: bytes, tail: bytes, length: int | str | None) -> None:
    check_call(parse_v2, head + tail, {HEADER_LENGTH: str(len(head) if length is None else length)})


def grpc_request() -> bytes:
    request = pb.ModelInferRequest(model_name="pneumonia", id="x", raw_input_contents=[TAIL])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.parameters["study"].string_param = PLANTED
    return bytes(request.SerializeToString())


@given(changed(grpc_request()))
def test_grpc_requests(message: bytes) -> None:
    request = pb.ModelInferRequest()
    try:
        request.ParseFromString(message)
    except DecodeError:
        return  # gRPC refuses it before our code
    check_call(parse_grpc, request)


def segment() -> bytes:
    header = Header(
        writer="front-0123abcd", sequence=1, date="2026-11-30", release="0123456789ab",
        opened="2026-11-30T00:00:00.000Z",
        count=2, previous=None, last=False, software="0", key_id=key_id_of(KEY),
    )  # fmt: skip
    return sign_segment(header, [b'{"a":1}', b'{"b":2}'], KEY)


TRUST = Trust({key_id_of(KEY): KEY.public_key()}, frozenset(), frozenset())


@given(changed(segment()) | st.binary(max_size=200))
def test_segments(body: bytes) -> None:
    for read in (read_segment, lambda data: verify_segment(data, TRUST)):
        try:
            found = read(body)
        except SegmentError as error:
            assert PLANTED not in str(error)
            continue
        assert len(found.lines) == found.header.count
        if read is not read_segment:
            assert body == segment(), "only what was signed is believed"


MANIFEST_DOCUMENT = json.loads((REFERENCE_RUN / "run.json").read_bytes()) | {
    "schema": "pneumoserve.release/3",
    "files": {"config/config.properties": "0" * 64},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that each example writes anew."""
    made = tmp_path_factory.mktemp("read")
    write_public_key(KEY, made)
    return made


@given(body=bodies(MANIFEST_DOCUMENT))
def test_release_manifests(folder: Path, body: bytes) -> None:
    (folder / MANIFEST).write_bytes(body)
    try:
        data, manifest = read_manifest(folder)
    except ReleaseError as error:
        assert error.fault in ("unreadable", "unsupported")
        return
    assert data == body
    assert len(manifest.models) == 2


REVOKED = {"keys": [key_id(KEY.public_key())], "releases": ["ab" * 32]}


@given(body=bodies(REVOKED))
def test_revocation_lists(folder: Path, body: bytes) -> None:
    (folder / "revoked.json").write_bytes(body)
    try:
        trust = load_trust(folder)
    except KeyFileError as error:
        assert str(error)
        return
    document = json.loads(body)
    assert set(document) <= set(REVOKED), "an entry under another name is not passed over"
    assert trust.revoked_keys == set(document.get("keys", []))
    assert trust.revoked_releases == set(document.get("releases", []))
    assert all(len(entry) == 64 for entry in trust.revoked_releases)
