"""/openapi.json and /docs: what they say is what the front does."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

import pneumoserve
from pneumoserve.front import description
from pneumoserve.front.cors import REQUEST_HEADERS, RESPONSE_HEADERS
from pneumoserve.front.errors import _GRPC_CODES
from pneumoserve.front.models import DECISION_OUTPUTS
from tests.support import films
from tests.support.front import RELEASE_ID, Front

FILM = films.sample_films()[0].read_bytes()
PREDICT, INFER = "/v1/models/{model}:predict", "/v2/models/{model}/infer"
# Not for callers of the protocol.
PAGES = {"/openapi.json", "/docs", "/docs/{name}"}
EXAMPLES = [
    (path, name)
    for path, route in ((PREDICT, description.PREDICT), (INFER, description.INFER))
    for name in route["openapi_extra"]["requestBody"]["content"]["application/json"]["examples"]
]


@pytest.fixture(scope="module")
async def document(front: Front) -> dict[str, Any]:
    response = await front.http.get("/openapi.json")
    assert response.status_code == 200
    described: dict[str, Any] = response.json()
    return described


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """See that a value is as a schema of the document says."""
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def filled(path: str) -> str:
    return path.replace("{model}", "pneumonia").replace("{version}", RELEASE_ID)


def schema_of(operation: dict[str, Any], status: int) -> dict[str, Any]:
    answers = operation["responses"]
    answer = answers.get(str(status), answers["default"])
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema


def test_it_is_a_document_of_its_kind_and_says_what_it_is(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    named = set(re.findall(r'"#/components/schemas/([^"]*)"', json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    assert (document["info"]["title"], document["info"]["version"]) == ("pneumoserve", pneumoserve.__version__)
    for text in (document["info"]["summary"], document["info"]["description"]):
        assert "Not cleared for clinical use" in text
    # FastAPI's own errors have another shape.
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_route_is_described_and_nothing_else(front: Front, document: dict[str, Any]) -> None:
    assert isinstance(front.app, FastAPI)
    served = {
        (route.path, method)
        for route in front.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and route.path not in PAGES
    }
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert described == served
    assert not [path for path, _ in described if "repository" in path or "explain" in path]


@pytest.mark.parametrize(("path", "name"), EXAMPLES)
async def test_an_example_gets_the_status_it_promises(
    path: str, name: str, front: Front, document: dict[str, Any]
) -> None:
    operation = document["paths"][path]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    example = body["examples"][name]
    response = await front.http.post(filled(path), json=example["value"])
    assert response.status_code == example[description.STATUS], response.text
    assert f"({response.status_code})" in example["summary"]
    check(document, schema_of(operation, response.status_code), response.json())
    if response.status_code == 200:
        check(document, body["schema"], example["value"])


async def test_what_only_looks_answers_as_its_example(front: Front, document: dict[str, Any]) -> None:
    looked = [(path, item["get"]) for path, item in document["paths"].items() if "get" in item]
    assert len(looked) == 11
    for path, operation in looked:
        response = await front.http.get(filled(path))
        assert response.status_code == 200
        check(document, schema_of(operation, 200), response.json())
        example = operation["responses"]["200"]["content"]["application/json"].get("example")
        assert example in (None, response.json())


async def answers(front: Front) -> list[tuple[str, httpx.Response]]:
    one = {"instances": [{"image": {"b64": base64.b64encode(FILM).decode()}}]}
    study = {"parameters": {"study": "S"}}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [one["instances"][0]["image"]["b64"]]}
    post = front.http.post
    return [
        (PREDICT, await post(filled(PREDICT), json=one | study)),
        (PREDICT, await post("/v1/models/pneumonia-detector:predict", json=one)),
        (PREDICT, await post("/v1/models/pneumonia-typer:predict", json=one)),
        (PREDICT, await post(filled(PREDICT), files={"file": FILM}, data={"study": "S"})),
        (PREDICT, await post(filled(PREDICT), content=FILM, headers={"content-type": "image/jpeg"})),
        (INFER, await post(filled(INFER), json={"inputs": [tensor]} | study)),
        (PREDICT, await post("/v1/models/other:predict", json=one)),
    ]


async def test_answers_and_headers_are_as_described(front: Front, document: dict[str, Any]) -> None:
    for path, response in await answers(front):
        operation = document["paths"][path]["post"]
        check(document, schema_of(operation, response.status_code), response.json())
        described = operation["responses"][str(response.status_code)]["headers"]
        sent = {name for name in response.headers if name.startswith("pneumoserve-")}
        assert sent == {name.lower() for name in described if name.startswith("Pneumoserve-")}


def test_each_output_has_a_meaning(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["Prediction"]["properties"]
    assert list(fields) == list(DECISION_OUTPUTS)
    assert not [name for name, field in fields.items() if not field.get("description")]


def test_errors_of_calls_are_described_with_their_waits(document: dict[str, Any]) -> None:
    for path in (PREDICT, INFER):
        described = document["paths"][path]["post"]["responses"]
        assert {int(status) for status in described if status.isdigit()} == {200, *_GRPC_CODES} - {500}
        assert {status for status, answer in described.items() if "Retry-After" in answer.get("headers", {})} == {
            "409", "429", "503",
        }  # fmt: skip
        for status, answer in described.items():
            if status.startswith("4"):
                check(document, schema_of({"responses": described}, int(status)),
                      answer["content"]["application/json"]["example"])  # fmt: skip


def test_pages_may_use_every_header_that_is_described(document: dict[str, Any]) -> None:
    operations = [item["post"] for item in document["paths"].values() if "post" in item]
    sent = {each["name"] for operation in operations for each in operation["parameters"] if each["in"] == "header"}
    assert sent <= set(REQUEST_HEADERS)
    got = {name for operation in operations for answer in operation["responses"].values() for name in answer["headers"]}
    assert got <= set(RESPONSE_HEADERS)


async def test_the_page_loads_nothing_from_elsewhere(front: Front) -> None:
    page = await front.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    needed = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(needed) == 4
    for address in needed:
        assert (await front.http.get(f"/{address}")).status_code == 200
    assert "<script>" not in page.text
    for name in ("other.js", "__init__.py", "..%2f__init__.py"):
        assert (await front.http.get(f"/docs/{name}")).status_code == 404
    assert (await front.http.post("/docs")).headers["allow"] == "GET, HEAD, OPTIONS"
