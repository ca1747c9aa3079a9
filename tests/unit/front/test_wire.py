"""Wire forms without a server: every way to send a film ends in the same call, and malformed ones in a 400."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from pneumoserve.front.errors import CallError
from pneumoserve.front.models import check_outputs
from pneumoserve.front.service import MODEL_NAMES
from pneumoserve.front.wire import (
    Call,
    Column,
    encode_grpc,
    encode_v2,
    parse_grpc,
    parse_v1,
    parse_v2,
    split_bytes_tensor,
)

FILM = b"\xff\xd8\xff\xe0 film one"
OTHER = b"\x89PNG\r\n\x1a\n film two"
B64 = base64.b64encode(FILM).decode()


def v2(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
    return {"id": "x", "inputs": [{**tensor, **changes}]}


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in elements)


def binary(*elements: bytes, size: int | None = None) -> tuple[bytes, dict[str, str]]:
    tail = packed(*elements)
    head = body(
        {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [len(elements)],
                    "parameters": {"binary_data_size": len(tail) if size is None else size},
                }
            ]
        }
    )
    return head + tail, {"inference-header-content-length": str(len(head))}


def test_every_way_to_send_a_film_is_the_same_call() -> None:
    v1 = parse_v1(body({"instances": [{"image": {"b64": B64}}]}), {"content-type": "application/json; charset=utf-8"})
    plain = parse_v1(FILM, {"content-type": "application/x-www-form-urlencoded"})
    as_json = parse_v2(body(v2()), {})
    nested = parse_v2(body(v2(shape=[1, 1], data=[[B64]])), {})
    raw = parse_v2(*binary(FILM))
    text = parse_v2(*binary(B64.encode()))
    request = pb.ModelInferRequest(model_name="pneumonia")
    request.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(FILM)
    for call in (v1, plain, as_json, nested, raw, text, parse_grpc(request)):
        assert call.images == [FILM]


def test_several_films_keep_their_order() -> None:
    assert parse_v2(*binary(FILM, OTHER, FILM)).images == [FILM, OTHER, FILM]


BAD_V2 = {
    "no json": b"{",
    "no object": b"[]",
    "no inputs": body({}),
    "two inputs": body({"inputs": v2()["inputs"] * 2}),
    "inputs no list": body({"inputs": "image"}),
    "wrong name": body(v2(name="picture")),
    "wrong datatype": body(v2(datatype="FP32")),
    "wrong shape": body(v2(shape=[2])),
    "three dimensions": body(v2(shape=[1, 1, 1])),
    "no shape": body(v2(shape=None)),
    "no data": body(v2(data=None)),
    "numbers": body(v2(data=[1])),
    "no images": body(v2(shape=[0], data=[])),
    "17 images": body(v2(shape=[17], data=[B64] * 17)),
    "not base64": body(v2(data=["@@@"])),
    "base64 with a line break": body(v2(data=[B64[:4] + "\n" + B64[4:]])),
    "id no string": body({**v2(), "id": 7}),
    "parameters no object": body(v2(parameters=[1])),
    "outputs no list": body({**v2(), "outputs": {"name": "finding"}}),
    "binary size without binary part": body(v2(parameters={"binary_data_size": 5})),
    "bare film": FILM,
}


@pytest.mark.parametrize("name", BAD_V2)
def test_malformed_v2_is_a_400_without_payload(name: str) -> None:
    with pytest.raises(CallError) as caught:
        parse_v2(BAD_V2[name], {})
    assert caught.value.status == 400
    assert B64 not in caught.value.message


@pytest.mark.parametrize("length", ["", "x", "-1", "99999999", "\u0661"])
def test_a_wrong_header_length_is_a_400(length: str) -> None:
    with pytest.raises(CallError, match="Inference-Header-Content-Length"):
        parse_v2(binary(FILM)[0], {"inference-header-content-length": length})


def test_a_binary_size_that_lies_is_a_400() -> None:
    with pytest.raises(CallError, match="binary_data_size"):
        parse_v2(*binary(FILM, size=3))


@given(st.binary(max_size=64))
def test_any_binary_tensor_splits_or_is_a_400(raw: bytes) -> None:
    try:
        elements = split_bytes_tensor(raw)
    except CallError as error:
        assert error.status == 400
    else:
        assert packed(*elements) == raw


COLUMNS = [
    Column("finding", "BYTES", ["normal", ""]),
    Column("confidence", "FP64", [0.25, None]),
    Column("referred", "BOOL", [False, True]),
]
HEAD: dict[str, Any] = {"model_name": "m", "model_version": "v", "id": "x", "parameters": {"recorded": "store"}}


def test_json_answer_says_null_for_a_model_that_did_not_run() -> None:
    document, length = encode_v2(Call([], "v2", "json"), HEAD, COLUMNS)
    assert length is None
    assert [output["data"] for output in json.loads(document)["outputs"]] == [
        ["normal", ""],
        [0.25, None],
        [False, True],
    ]


def test_binary_answer_says_nan() -> None:
    document, length = encode_v2(Call([], "v2", "binary", binary_default=True), HEAD, COLUMNS)
    assert length is not None
    sizes = [o["parameters"]["binary_data_size"] for o in json.loads(document[:length])["outputs"]]
    tail = document[length:]
    assert sum(sizes) == len(tail)
    assert split_bytes_tensor(tail[: sizes[0]]) == [b"normal", b""]
    first, second = struct.unpack("<2d", tail[sizes[0] : sizes[0] + 16])
    assert first == 0.25
    assert math.isnan(second)
    assert tail[-2:] == b"\x00\x01"


def test_only_the_wanted_outputs_come_each_in_its_form() -> None:
    call = Call([], "v2", "json", outputs={"referred": True, "finding": False})
    document, length = encode_v2(call, HEAD, COLUMNS)
    outputs = json.loads(document[:length])["outputs"]
    assert [output["name"] for output in outputs] == ["referred", "finding"]
    assert "data" not in outputs[0]
    assert outputs[1]["data"] == ["normal", ""]


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_an_unknown_output_is_a_400(model: str) -> None:
    with pytest.raises(CallError) as caught:
        check_outputs(model, Call([], "v2", "json", outputs={"nothing": False}))
    assert caught.value.status == 400


def test_grpc_answer_has_the_same_columns() -> None:
    response = encode_grpc(Call([], "grpc", "binary"), HEAD, COLUMNS)
    assert [output.name for output in response.outputs] == ["finding", "confidence", "referred"]
    assert split_bytes_tensor(response.raw_output_contents[0]) == [b"normal", b""]
    assert response.parameters["recorded"].string_param == "store"
