"""The stock clients, unmodified, each against every model it can ask."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton_http
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import InferResponse
from PIL import Image, ImageOps

from pneumoserve.imaging.prepare import prepare
from pneumoserve.records import find_record
from tests.conftest import Stack
from tests.support import films

FILM = films.sample_films()[0].read_bytes()
OTHER = films.sample_films()[-1].read_bytes()
DECISION_OUTPUTS = [
    "prediction_id",
    "release",
    "finding",
    "pneumonia_type",
    "confidence",
    "pneumonia_probability",
    "bacterial_probability",
    "referred",
    "reasons",
    "leaning",
    "type_probability",
    "notice",
]

Ask = Callable[[Stack, str, list[bytes]], Any]


def kserve_request(model: str, images: list[bytes], binary: bool) -> InferRequest:
    tensor = InferInput("image", [len(images)], "BYTES")
    data = images if binary else [base64.b64encode(image).decode() for image in images]
    tensor.set_data_from_numpy(np.array(data, dtype=np.object_), binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="kserve-1")


async def kserve_rest(stack: Stack, model: str, images: list[bytes], binary: bool) -> dict[str, list[Any]]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    try:
        response = await client.infer(stack.url, kserve_request(model, images, binary), model_name=model)
    finally:
        await client.close()
    assert isinstance(response, InferResponse)
    assert response.id == "kserve-1"
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


async def kserve_rest_json(stack: Stack, model: str, images: list[bytes]) -> dict[str, list[Any]]:
    return await kserve_rest(stack, model, images, binary=False)


async def kserve_rest_binary(stack: Stack, model: str, images: list[bytes]) -> dict[str, list[Any]]:
    return await kserve_rest(stack, model, images, binary=True)


async def kserve_grpc(stack: Stack, model: str, images: list[bytes]) -> dict[str, list[Any]]:
    client = InferenceGRPCClient(stack.grpc)
    try:
        response = await client.infer(kserve_request(model, images, binary=True))
    finally:
        await client.close()
    assert response.id == "kserve-1"
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


def triton_input(module: Any, images: list[bytes], **options: Any) -> Any:
    tensor = module.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_), **options)
    return tensor


async def tritonclient_http_binary(stack: Stack, model: str, images: list[bytes]) -> dict[str, list[Any]]:
    with triton_http.InferenceServerClient(stack.url.removeprefix("http://")) as client:
        result = client.infer(model, [triton_input(triton_http, images)], request_id="triton-1")
    assert result.get_response()["id"] == "triton-1"
    return {o["name"]: result.as_numpy(o["name"]).tolist() for o in result.get_response()["outputs"]}


async def tritonclient_http_json(stack: Stack, model: str, images: list[bytes]) -> dict[str, list[Any]]:
    texts = [base64.b64encode(image) for image in images]
    with triton_http.InferenceServerClient(stack.url.removeprefix("http://")) as client:
        names = [output["name"] for output in client.get_model_metadata(model)["outputs"]]
        wanted = [triton_http.InferRequestedOutput(name, binary_data=False) for name in names]
        result = client.infer(model, [triton_input(triton_http, texts, binary_data=False)], outputs=wanted)
    return {name: result.as_numpy(name).tolist() for name in names}


def triton_grpc(stack: Stack, do: str, model: str, images: list[bytes] | None = None) -> Any:
    encoded = [base64.b64encode(image).decode() for image in images or []]
    request = {"url": stack.grpc, "do": do, "model": model, "images": encoded}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("triton_grpc_client.py")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def tritonclient_grpc(stack: Stack, model: str, images: list[bytes]) -> dict[str, list[Any]]:
    answer: dict[str, list[Any]] = triton_grpc(stack, "infer", model, images)
    return answer


CLIENTS = {
    "kserve REST JSON": kserve_rest_json,
    "kserve REST binary": kserve_rest_binary,
    "kserve gRPC": kserve_grpc,
    "tritonclient HTTP binary": tritonclient_http_binary,
    "tritonclient HTTP JSON": tritonclient_http_json,
    "tritonclient gRPC": tritonclient_grpc,
}


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="module")
def expected(stack: Stack) -> list[dict[str, Any]]:
    """The two films' answers by V1, which the others must agree with."""
    body = {"instances": [{"image": {"b64": base64.b64encode(image).decode()}} for image in (FILM, OTHER)]}
    response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", json=body, timeout=30)
    response.raise_for_status()
    answers: list[dict[str, Any]] = response.json()["predictions"]
    return answers


@pytest.mark.parametrize("name", CLIENTS)
async def test_decision_by_every_client(name: str, stack: Stack, expected: list[dict[str, Any]]) -> None:
    outputs = await CLIENTS[name](stack, "pneumonia", [FILM, OTHER])
    assert list(outputs) == DECISION_OUTPUTS
    reader = stack.reader
    for index, want in enumerate(expected):
        got = {key: values[index] for key, values in outputs.items()}
        assert got["pneumonia_probability"] == want["pneumonia_probability"]
        assert got["confidence"] == want["confidence"]
        assert text(got["finding"]) == (want["finding"] or "")
        assert text(got["pneumonia_type"]) == (want["pneumonia_type"] or "")
        assert json.loads(text(got["reasons"])) == want["reasons"]
        assert bool(got["referred"]) == want["referred"]
        assert text(got["leaning"]) == want["leaning"]
        assert text(got["notice"]) == (want["notice"] or "")
        if want["bacterial_probability"] is None:
            assert got["bacterial_probability"] is None or math.isnan(got["bacterial_probability"])
        else:
            assert got["bacterial_probability"] == want["bacterial_probability"]
        record = find_record(reader, text(got["prediction_id"]))
        assert record is not None
        assert record.call.index == index
        assert record.models[0].probability == want["pneumonia_probability"]


@pytest.mark.parametrize("model", ["pneumonia-detector", "pneumonia-typer"])
@pytest.mark.parametrize("name", CLIENTS)
async def test_raw_scores_by_every_client(name: str, model: str, stack: Stack) -> None:
    outputs = await CLIENTS[name](stack, model, [FILM, OTHER])
    (column,) = outputs.values()
    assert list(outputs) == ["pneumonia_probability" if model.endswith("detector") else "bacterial_probability"]
    assert len(column) == 2
    assert all(0.0 <= value <= 1.0 for value in column)


async def test_v1_by_kserves_rest_client(stack: Stack, expected: list[dict[str, Any]]) -> None:
    body = {"instances": [{"image": {"b64": base64.b64encode(image).decode()}} for image in (FILM, OTHER)]}
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    try:
        response = await client.infer(stack.url, body, model_name="pneumonia")
    finally:
        await client.close()
    assert isinstance(response, dict)
    said = [{**answer, "prediction_id": None} for answer in response["predictions"]]
    assert said == [{**answer, "prediction_id": None} for answer in expected]


@pytest.mark.parametrize("protocol", ["v1", "v2"])
async def test_health_by_kserves_rest_client(protocol: str, stack: Stack) -> None:
    client = InferenceRESTClient(RESTConfig(protocol=protocol))
    try:
        assert await client.is_server_live(stack.url)
        if protocol == "v2":
            assert await client.is_server_ready(stack.url)
        assert await client.is_model_ready(stack.url, "pneumonia")
    finally:
        await client.close()


async def test_health_by_kserves_grpc_client(stack: Stack) -> None:
    client = InferenceGRPCClient(stack.grpc)
    try:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("pneumonia")
    finally:
        await client.close()


def test_metadata_and_health_by_rest(stack: Stack) -> None:
    with triton_http.InferenceServerClient(stack.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.get_server_metadata()["name"] == "pneumoserve"
        for model in ("pneumonia", "pneumonia-detector", "pneumonia-typer"):
            assert client.is_model_ready(model)
            assert client.is_model_ready(model, stack.release)
            metadata = client.get_model_metadata(model, stack.release)
            assert metadata["versions"] == [stack.release]
            assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    listed = httpx.get(f"{stack.url}/v2/models").json()["models"]
    assert sorted(listed) == ["pneumonia", "pneumonia-detector", "pneumonia-typer"]
    assert httpx.get(f"{stack.url}/v1/models/pneumonia").json() == {"name": "pneumonia", "ready": True}


def test_metadata_and_health_by_grpc(stack: Stack) -> None:
    assert triton_grpc(stack, "describe", "pneumonia") == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "server": "pneumoserve",
        "versions": [stack.release],
        "outputs": DECISION_OUTPUTS,
    }


def test_no_caller_can_unload_a_model(stack: Stack) -> None:
    with (
        triton_http.InferenceServerClient(stack.url.removeprefix("http://")) as client,
        pytest.raises(Exception, match="404"),
    ):
        client.unload_model("pneumonia")
    assert triton_grpc(stack, "unload", "pneumonia") == "StatusCode.UNIMPLEMENTED"
    assert httpx.get(f"{stack.url}/v2/models/pneumonia/ready").status_code == 200


def test_the_leg_is_referred_never_called_normal(stack: Stack) -> None:
    response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=films.LEG_DICOM.read_bytes(), timeout=30)
    (answer,) = response.json()["predictions"]
    assert response.status_code == 200
    assert answer["finding"] is None
    assert answer["referred"] is True
    assert answer["reasons"] == ["not_a_chest_film"]
    assert answer["pneumonia_probability"] is None


@pytest.mark.parametrize("sentence", ["inverted", "upside down", "a leg without a header"])
def test_what_no_header_tells_the_gate_refers(stack: Stack, sentence: str) -> None:
    picture = {
        "inverted": ImageOps.invert(films.film_image()),
        "upside down": ImageOps.flip(films.film_image()),
        "a leg without a header": Image.fromarray(prepare(films.LEG_DICOM.read_bytes()).pixels),
    }[sentence]
    response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=films.encoded(picture, "PNG"), timeout=30)
    (answer,) = response.json()["predictions"]
    assert response.status_code == 200
    assert (answer["finding"], answer["confidence"], answer["bacterial_probability"]) == (None, None, None)
    assert answer["reasons"] == ["not_a_chest_film"]
    record = find_record(stack.reader, answer["prediction_id"])
    assert record is not None
    assert [use.name for use in record.models] == ["pneumonia-detector"]
    assert record.models[0].chest_probability is not None
    assert record.models[0].chest_probability < 0.9
