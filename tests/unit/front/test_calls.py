"""Calls that are answered: plain bodies, JSON and tensors, studies, receipts, metadata."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import struct

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from pneumoserve.front.models import DECISION_OUTPUTS
from pneumoserve.front.service import MODEL_NAMES
from pneumoserve.models.scorer import Score
from pneumoserve.release.schema import INTENDED_USE, TYPE_NOTICE
from tests.support import films
from tests.support.front import REFERENCE_KEY, RELEASE_ID, Front, make_release, make_request

FILM = films.sample_films()[0].read_bytes()
ENCODED = base64.b64encode(FILM).decode()
V1 = {"instances": [{"image": {"b64": ENCODED}}]}
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [ENCODED]}
PLAIN = {
    "jpeg": (FILM, "image/jpeg"),
    "jpeg, curl's form type": (FILM, "application/x-www-form-urlencoded"),
    "jpeg, no type": (FILM, ""),
    "dicom": (films.CHEST_DICOM.read_bytes(), "application/dicom"),
    "png": (films.encoded(films.film_image(), "PNG"), "image/png"),
}


async def post(front: Front, body: object, model: str = "pneumonia") -> httpx.Response:
    """Send a V1 document."""
    return await front.http.post(f"/v1/models/{model}:predict", json=body)


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_bodies(name: str, front: Front) -> None:
    body, kind = PLAIN[name]
    response = await front.predict(body, {"content-type": kind})
    assert response.status_code == 200, response.text
    (answer,) = response.json()["predictions"]
    assert list(answer) == list(DECISION_OUTPUTS)
    assert response.headers["pneumoserve-release"] == answer["release"] == RELEASE_ID
    (receipt,) = json.loads(response.headers["pneumoserve-receipts"])
    assert set(receipt) == {"writer", "sequence", "hash", "key_id", "signature"}
    assert response.headers["pneumoserve-recorded"] == "store"
    record = front.record(answer["prediction_id"])
    assert record.image is not None
    assert front.store.get(record.image.stored_key)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/x-www-form-urlencoded"])
async def test_json_with_a_charset_and_with_curls_type(kind: str, front: Front) -> None:
    response = await front.predict(json.dumps(V1).encode(), {"content-type": kind})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["pneumonia", f"pneumonia/versions/{RELEASE_ID}"])
async def test_v2_answer_without_an_id_and_by_version(path: str, front: Front) -> None:
    response = await front.http.post(f"/v2/models/{path}/infer", json={"inputs": [TENSOR]})
    assert response.status_code == 200
    assert response.json()["id"]
    assert response.json()["model_version"] == RELEASE_ID
    assert json.loads(response.json()["parameters"]["receipts"])[0]["writer"]


async def test_one_film_has_one_answer_over_every_transport(front: Front) -> None:
    (v1,) = (await post(front, V1)).json()["predictions"]
    v2 = (await front.http.post("/v2/models/pneumonia/infer", json={"inputs": [TENSOR]})).json()
    by_name = {output["name"]: output["data"][0] for output in v2["outputs"]}
    over_grpc = await front.infer(make_request(FILM))
    names = [output.name for output in over_grpc.outputs]
    assert list(by_name) == names == list(DECISION_OUTPUTS)
    assert by_name["finding"] == v1["finding"] == "pneumonia"
    assert over_grpc.raw_output_contents[names.index("finding")][4:].decode() == "pneumonia"
    assert json.loads(over_grpc.parameters["receipts"].string_param)[0]["writer"]


OLD_OUTPUTS = ["prediction_id", "release", "finding", "pneumonia_type", "confidence", "pneumonia_probability",
               "bacterial_probability", "referred", "reasons"]  # fmt: skip
# What the detector and the typer say, and what the answer then says beside its finding.
SAID = {
    "a type": (0.999, 0.05, "pneumonia", 0.999, 0.95, TYPE_NOTICE),
    "no sure type": (0.999, 0.7, "pneumonia", 0.999, None, None),
    "normal": (0.001, None, "normal", 0.999, None, None),
    "unsure, leaning to normal": (0.25, None, "normal", 0.75, None, None),
    "unsure, leaning to pneumonia": (0.75, None, "pneumonia", 0.75, None, None),
}


def test_outputs_of_before_keep_their_place() -> None:
    assert list(DECISION_OUTPUTS)[: len(OLD_OUTPUTS)] == OLD_OUTPUTS


@pytest.mark.parametrize("case", SAID)
async def test_every_transport_says_which_way_an_answer_leans_and_how_far(
    case: str, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    pneumonia, bacterial, *wanted = SAID[case]
    scores = {"pneumonia-detector": pneumonia, "pneumonia-typer": bacterial}

    async def score(model: str, _pixels: object) -> Score:
        return Score(scores[model], 0.0, {"engine": "none"}, chest_probability=1.0)

    monkeypatch.setattr(front.models, "score", score)
    names = ("leaning", "confidence", "type_probability", "notice")
    body = (await post(front, V1)).json()
    (v1,) = body["predictions"]
    assert [v1[name] for name in names] == pytest.approx(wanted)
    v2 = (await front.http.post("/v2/models/pneumonia/infer", json={"inputs": [TENSOR]})).json()
    by_name = {output["name"]: output["data"][0] for output in v2["outputs"]}
    assert [by_name[name] for name in names] == pytest.approx([*wanted[:3], wanted[3] or ""])
    over_grpc = await front.infer(make_request(FILM))
    raw = dict(zip((output.name for output in over_grpc.outputs), over_grpc.raw_output_contents, strict=True))
    assert raw["leaning"][4:].decode() == wanted[0]
    assert raw["notice"][4:].decode() == (wanted[3] or "")
    (probability,) = struct.unpack("<d", raw["type_probability"])
    assert math.isnan(probability) if wanted[2] is None else probability == pytest.approx(wanted[2])
    assert body["intended_use"] == v2["parameters"]["intended_use"] == INTENDED_USE
    assert over_grpc.parameters["intended_use"].string_param == INTENDED_USE
    assert body["assumed_prevalence"] == float(v2["parameters"]["assumed_prevalence"]) == 0.5
    assert over_grpc.parameters["assumed_prevalence"].string_param == "0.5"
    decision = front.record(v1["prediction_id"]).decision
    assert decision is not None
    assert (decision.leaning, decision.type_probability) == (v1["leaning"], v1["type_probability"])


async def test_raw_models_are_asked_alone(front: Front) -> None:
    front.models.calls.clear()
    (answer,) = (await post(front, V1, "pneumonia-typer")).json()["predictions"]
    assert set(answer) == {"prediction_id", "release", "bacterial_probability"}
    assert front.models.calls == ["pneumonia-typer"]


@pytest.mark.parametrize(
    ("pneumonia", "models"),
    [(0.9999, ["pneumonia-detector", "pneumonia-typer"]), (0.0001, ["pneumonia-detector"])],
)
async def test_a_typer_that_answered_with_the_detector_is_not_asked_and_counts_only_for_a_pneumonia(
    pneumonia: float, models: list[str], front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def score(model: str, _pixels: object) -> Score:
        asked.append(model)
        typer = Score(0.9, 2.0, {"engine": "none"})
        return Score(pneumonia, 0.0, {"engine": "none"}, chest_probability=1.0, typer=typer)

    monkeypatch.setattr(front.models, "score", score)
    (answer,) = (await post(front, V1)).json()["predictions"]
    assert asked == ["pneumonia-detector"]
    assert answer["bacterial_probability"] == (0.9 if len(models) == 2 else None)
    record = front.record(answer["prediction_id"])
    assert [use.name for use in record.models] == models
    stated = {facts.name: facts.weights for facts in make_release().manifest.models}
    assert [use.weights for use in record.models] == [stated[name] for name in models]


async def test_a_leg_is_referred_by_its_header_and_no_model_is_asked(front: Front) -> None:
    front.models.calls.clear()
    (answer,) = (await front.predict(films.LEG_DICOM.read_bytes())).json()["predictions"]
    assert (answer["finding"], answer["referred"], answer["reasons"]) == (None, True, ["not_a_chest_film"])
    assert answer["pneumonia_probability"] is None
    assert (answer["leaning"], answer["confidence"], answer["notice"]) == (None, None, None)
    assert front.models.calls == []


async def test_films_of_one_study_have_one_answer_too(front: Front) -> None:
    encoded = [ENCODED, base64.b64encode(films.LEG_DICOM.read_bytes()).decode()]
    named = {"parameters": {"study": "ACC-1"}}
    v1 = {"instances": [{"image": {"b64": text}} for text in encoded]}
    tensor = TENSOR | {"shape": [2], "data": encoded}
    answered = (await post(front, v1 | named)).json()
    assert len(answered["predictions"]) == 2
    assert set(answered["study"]) == {
        "finding", "pneumonia_type", "confidence", "referred", "reasons", "leaning", "type_probability", "notice",
    }  # fmt: skip
    assert (answered["study"]["leaning"], answered["study"]["type_probability"]) == ("pneumonia", 0.999)
    assert answered["study"]["notice"] == TYPE_NOTICE
    assert answered["study"]["referred"] is True
    assert "not_a_chest_film" in answered["study"]["reasons"]
    assert "study" not in (await post(front, v1)).json()
    v2 = (await front.http.post("/v2/models/pneumonia/infer", json={"inputs": [tensor]} | named)).json()
    assert json.loads(v2["parameters"]["study"]) == answered["study"]
    assert "study" not in (await post(front, v1 | named, "pneumonia-typer")).json()


async def test_a_study_is_kept_as_a_keyed_hash(front: Front) -> None:
    response = await post(front, V1 | {"parameters": {"study": "ACC-1", "patient": "P-1"}})
    record = front.record(response.json()["predictions"][0]["prediction_id"])
    for name, value in (("study", "ACC-1"), ("patient", "P-1")):
        expected = hmac.new(REFERENCE_KEY, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()
        assert getattr(record.call, name) == expected
    assert "ACC-1" not in json.dumps(record.model_dump(mode="json"))


@pytest.mark.parametrize("study", ["", "x" * 257, 7, ["a"]])
async def test_a_reference_that_is_none_is_refused(study: object, front: Front) -> None:
    response = await post(front, V1 | {"parameters": {"study": study}})
    assert response.status_code == 400
    assert "study is a string of 1 to 256 characters" in response.json()["error"]


async def test_metadata_and_readiness_by_rest(front: Front) -> None:
    assert sorted((await front.http.get("/v2/models")).json()["models"]) == sorted(MODEL_NAMES)
    assert (await front.http.get("/v1/models/pneumonia")).json() == {"name": "pneumonia", "ready": True}
    assert (await front.http.get("/v2")).json()["name"] == "pneumoserve"
    assert (await front.http.get("/")).json() == {"status": "alive"}
    for model in MODEL_NAMES:
        metadata = (await front.http.get(f"/v2/models/{model}/versions/{RELEASE_ID}")).json()
        assert metadata["versions"] == [RELEASE_ID]
        assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize("path", ["/v2/models/pneumonia/ready", "/v2/health/ready", "/v1/models/pneumonia"])
async def test_a_front_whose_models_are_away_is_not_ready(
    path: str, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await front.http.get(path)).status_code == 200
    monkeypatch.setattr(front.models, "ready", False)
    response = await front.http.get(path)
    assert response.status_code == 503
    assert set(response.json()) == {"error", "prediction_id"}
    stub = pb_grpc.GRPCInferenceServiceStub(front.channel)
    assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name="pneumonia"))).ready


async def test_no_caller_loads_or_unloads_a_model(front: Front) -> None:
    assert (await front.http.post("/v2/repository/models/pneumonia/unload")).status_code == 404
    stub = pb_grpc.GRPCInferenceServiceStub(front.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="pneumonia"))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (await front.http.get("/v2/models/pneumonia/ready")).status_code == 200


async def test_an_origin_is_recorded_by_each_way_of_calling(front: Front) -> None:
    v1 = await front.http.post("/v1/models/pneumonia:predict", json={**V1, "parameters": {"origin": "flagged"}})
    plain = await front.predict(FILM, {"content-type": "image/jpeg", "Pneumoserve-Origin": "routed"})
    form = await front.http.post(
        "/v1/models/pneumonia:predict", files={"file": ("x", FILM)}, data={"origin": "flagged"}
    )
    without = await front.predict(FILM, {"content-type": "image/jpeg"})
    ids = [answer.json()["predictions"][0]["prediction_id"] for answer in (v1, plain, form, without)]
    assert [front.record(each).call.origin for each in ids] == ["flagged", "routed", "flagged", None]


async def test_an_origin_that_there_is_none_of_is_refused(front: Front) -> None:
    refused = await front.http.post("/v1/models/pneumonia:predict", json={**V1, "parameters": {"origin": "Meier"}})
    assert (refused.status_code, "origin is one of routed, flagged" in refused.json()["error"]) == (400, True)
    assert "Meier" not in refused.text
