"""Fifty words that stand for a patient, sent in every place a caller can put one: they must come out nowhere."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import piexif
import pydicom
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
from PIL import PngImagePlugin
from pydicom.dataset import Dataset

from pneumoserve.review import AlertDesk, ReviewDatabase
from pneumoserve.store import S3Store
from tests.conftest import Stack
from tests.support import films

FILM = films.sample_films()[0].read_bytes()
TEXTS = ("PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName", "InstitutionName", "OperatorsName",
         "InstitutionAddress", "PerformingPhysicianName", "StudyDescription", "SeriesDescription", "PatientAddress",
         "PatientBirthName", "PatientComments", "StudyID", "DeviceSerialNumber", "StationName", "ImageComments",
         "RequestedProcedureDescription", "AdditionalPatientHistory", "PatientMotherBirthName")  # fmt: skip
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
HEADERS = (
    "X-Patient-Name",
    "X-Request-Id",
    "User-Agent",
    "Referer",
    "Cookie",
    "Ce-Id",
    "Traceparent",
    "X-Forwarded-For",
)


class Words:
    """Words that occur nowhere else; each is given out once."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def one(self) -> str:
        self.given.append(f"Zq{len(self.given):02d}Mustermann{len(self.given):02d}")
        return self.given[-1]

    def uid(self) -> str:
        self.given.append(f"1.2.999.77{len(self.given):02d}.424242{len(self.given):02d}")
        return self.given[-1]


def dicom(words: Words) -> bytes:
    dataset = pydicom.dcmread(films.CHEST_DICOM)
    for name in TEXTS:
        setattr(
            dataset, name, words.one()[:16] if name in {"StudyID", "StationName", "AccessionNumber"} else words.one()
        )
    for name in UIDS:
        setattr(dataset, name, words.uid())
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    nested = Dataset()
    nested.PatientName = words.one()
    dataset.OtherPatientIDsSequence = [nested]
    dataset.private_block(0x0099, "PLANTED", create=True).add_new(0x01, "LO", words.one())
    return films.written(dataset)


def jpeg(words: Words) -> bytes:
    exif = {
        "0th": {tag: words.one().encode() for tag in (piexif.ImageIFD.Artist, piexif.ImageIFD.ImageDescription,
                                                      piexif.ImageIFD.Copyright)},
        "Exif": {piexif.ExifIFD.UserComment: words.one().encode()},
    }  # fmt: skip
    comment = words.one().encode()
    return films.encoded(films.film_image(), "JPEG", exif=piexif.dump(exif), comment=comment, xmp=words.one().encode())


def png(words: Words) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Patient", words.one(), zip=False)
    texts.add_itxt("Comment", words.one())
    return films.encoded(films.film_image(), "PNG", pnginfo=texts)


def calls(url: str, words: Words) -> Iterator[httpx.Response]:
    """Films that are answered, and calls that are refused, each with words around the film as well."""
    predict, infer = f"{url}/v1/models/pneumonia:predict", f"{url}/v2/models/pneumonia/infer"
    headers = {name: words.one() for name in HEADERS}
    sealed = {"Pneumoserve-Practitioner": words.one(), "Pneumoserve-Reference": words.one()}
    names = {"Pneumoserve-Study": words.one(), "Pneumoserve-Patient": words.one(), **sealed}
    yield httpx.post(f"{predict}?patient={words.one()}", content=dicom(words), headers=headers | names, timeout=60)
    for film in (jpeg(words), png(words)):
        instance = {"image": {"b64": base64.b64encode(film).decode()}, "name": words.one()}
        named = {"study": words.one(), "practitioner": words.one(), "reference": words.one()}
        body = {"instances": [instance], "parameters": named, "note": words.one()}
        yield httpx.post(predict, json=body, timeout=60)
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(FILM).decode()],
              "parameters": {"file": words.one()}}  # fmt: skip
    yield httpx.post(
        infer, json={"id": words.one(), "inputs": [tensor], "parameters": {"patient": words.one()}}, timeout=60
    )
    yield httpx.post(infer, json={"inputs": [tensor | {"name": words.one()}]}, timeout=60)
    yield httpx.post(infer, json={"inputs": [tensor], "outputs": [{"name": words.one()}]}, timeout=60)
    yield httpx.post(infer, content=f"{{no JSON {words.one()}".encode(), timeout=60)
    yield httpx.post(f"{url}/v1/models/{words.one()}:predict", content=FILM, timeout=60)
    yield httpx.post(predict, content=words.one().encode(), timeout=60)
    key = {"Idempotency-Key": words.one()}
    form = {"files": {"file": (f"{words.one()}.dcm", dicom(words))}, "data": {"study": words.one()}}
    yield httpx.post(predict, **form, headers=key, timeout=60)
    keyed = {"id": words.one(), "inputs": [tensor], "parameters": {"idempotency_key": words.one()}}
    for _ in range(2):
        yield httpx.post(infer, json=keyed, timeout=60)
    yield httpx.post(predict, files={words.one(): FILM}, timeout=60)


def ask_grpc(address: str, words: Words) -> tuple[pb.ModelInferResponse, str]:
    """One call that is answered and one that is refused; the answer, and the refusal's text."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = pb_grpc.GRPCInferenceServiceStub(channel)
        request = pb.ModelInferRequest(model_name="pneumonia", id=words.one(), raw_input_contents=[b""])
        request.inputs.add(name="image", datatype="BYTES", shape=[1])
        request.parameters["patient"].string_param = words.one()
        request.raw_input_contents[0] = len(FILM).to_bytes(4, "little") + FILM
        answer = stub.ModelInfer(request, metadata=[("x-patient", words.one())])
        request.inputs[0].name = words.one()
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request)
        return answer, f"{refused.value.details()} {refused.value.trailing_metadata()}"  # type: ignore[attr-defined]


def test_fifty_planted_words_come_out_nowhere(stack: Stack) -> None:
    words = Words()
    answered = list(calls(stack.url, words))
    answer, refused = ask_grpc(stack.grpc, words)
    assert len(words.given) >= 50
    assert [response.status_code for response in answered] == [200] * 4 + [400] * 3 + [404, 400] + [200] * 3 + [400]
    # The id is the caller's own, and echoed to the caller alone.
    echoed = {answered[3].json()["id"], answered[10].json()["id"], answer.id}
    outputs: dict[str, bytes] = {f"answer {n}": response.content for n, response in enumerate(answered)}
    outputs |= {f"headers {n}": str(response.headers).encode() for n, response in enumerate(answered)}
    outputs |= {"gRPC": str(answer).encode(), "gRPC refusal": refused.encode()}
    outputs["metrics"] = httpx.get(stack.metrics_url).content + httpx.get(stack.models_metrics_url).content
    # What the alert sender makes of it: alerts on record, its database, its log.
    desk = AlertDesk(ReviewDatabase(f"sqlite:///{stack.state / 'review.sqlite'}"), lambda _: None)
    give_up = time.monotonic() + 60
    while not desk.list_open() and time.monotonic() < give_up:
        time.sleep(0.1)
    assert desk.list_open()
    store = S3Store(stack.s3)
    assert len(list(store.list("envelopes/"))) == 3
    for found in store.list(""):
        outputs[f"object {found.key}"] = store.get(found.key) + found.key.encode()
    outputs |= {f"file {path}": path.read_bytes() for path in stack.state.rglob("*") if path.is_file()}
    leaks = [
        (word, where) for where, output in outputs.items() for word in words.given
        if word.encode() in output and not (word in echoed and where in {"answer 3", "answer 10", "answer 11", "gRPC"})
    ]  # fmt: skip
    assert not leaks
