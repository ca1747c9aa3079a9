"""Methods that a path does not take, and paths that are not there."""

from __future__ import annotations

import pytest

from tests.support.front import RELEASE_ID, Front

LOOK, CALL = "GET, HEAD, OPTIONS", "POST, OPTIONS"
WRONG = {
    "GET /v1/models/pneumonia:predict": CALL,
    "PUT /v1/models/pneumonia:predict": CALL,
    "POST /v1/models/pneumonia": LOOK,
    "DELETE /v1/models": LOOK,
    "GET /v2/models/pneumonia/infer": CALL,
    f"PATCH /v2/models/pneumonia/versions/{RELEASE_ID}/infer": CALL,
    "POST /v2/models/pneumonia/ready": LOOK,
    "POST /v2": LOOK,
    "POST /v2/health/ready": LOOK,
    "POST /": LOOK,
}


@pytest.mark.parametrize("call", WRONG)
async def test_a_wrong_method_is_told_the_right_one(call: str, front: Front) -> None:
    method, _, path = call.partition(" ")
    response = await front.http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, WRONG[call])
    assert set(response.json()) == {"error", "prediction_id"}
    assert WRONG[call] in response.json()["error"]
    options = await front.http.options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, WRONG[call], b"")


async def test_an_unknown_model_is_named_as_before(front: Front) -> None:
    for path in ("/v1/models/other", "/v2/models/other", "/v2/models/other/ready"):
        response = await front.http.get(path)
        assert response.status_code == 404
        assert "no such model" in response.json()["error"]
    assert (await front.http.post("/v1/models/other:predict", content=b"")).status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_what_kserve_has_and_this_service_has_not_is_not_there(method: str, front: Front) -> None:
    for path in ("/v1/models/pneumonia:explain", "/v2/repository/index", "/v2/repository/models/pneumonia/load"):
        assert (await front.http.request(method, path)).status_code == 404


async def test_head_says_what_get_does(front: Front) -> None:
    for path in ("/v2/health/live", "/v2/models/pneumonia/ready"):
        assert (await front.http.head(path)).status_code == (await front.http.get(path)).status_code == 200
