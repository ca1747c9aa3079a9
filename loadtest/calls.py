"""The calls a load is made of, and what a right answer to each is. Nothing here sends one: each client has its own way.

A wrong answer is reported by what is wrong with it, never by what it says: no report may hold a word about a patient.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pneumoserve.errors import PneumoserveError

KINDS: Final = ("v1", "v2-json", "v2-binary", "grpc", "dicom")
PREDICT: Final = "/v1/models/pneumonia:predict"
INFER: Final = "/v2/models/pneumonia/infer"
GRPC_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
MAX_IMAGES: Final = 16
# In a checkout a link to tests/data/xray-sample.
SAMPLE: Final = Path(__file__).with_name("sample")
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_FILM_ENDINGS: Final = {".jpeg", ".jpg", ".png"}


class WrongAnswer(PneumoserveError):  # noqa: N818 - it is what came back, no fault of the program
    """An answer that is not what was asked for; the text says why."""


class NoFilms(PneumoserveError):  # noqa: N818
    """There are no films to send; the text says what to do."""


@dataclass(frozen=True)
class Films:
    """What is sent: films as plain images, and DICOM objects."""

    images: list[bytes] = field(repr=False)
    dicoms: list[bytes] = field(repr=False)

    def of(self, kind: str) -> list[bytes]:
        """Those that calls of a kind carry.

        Raises:
            NoFilms: there are none.
        """
        found = self.dicoms if kind == "dicom" else self.images
        if not found:
            wanted = "DICOM objects (*.dcm)" if kind == "dicom" else "images (*.jpeg, *.jpg, *.png)"
            raise NoFilms(f"The folder of films has no {wanted}, which {kind} sends; add some, or leave {kind} out.")
        return found


def find_films(folder: Path | None) -> Films:
    """The films below a folder; without one, those of the sample that are as a modality made them.

    The sample's 224 px copies are lighter than what a hospital sends, and its leg is answered without asking a model.
    """
    if folder is None:
        return Films(_read(SAMPLE / "originals", _FILM_ENDINGS), [(SAMPLE / "dicom" / "RG1_J2KI.dcm").read_bytes()])
    return Films(_read(folder, _FILM_ENDINGS), _read(folder, {".dcm"}))


def _read(folder: Path, endings: set[str]) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in endings]


@dataclass(frozen=True)
class Call:
    """One call, ready to send: for gRPC, `path` is the method and `body` the message."""

    kind: str
    path: str
    body: bytes = field(repr=False)
    headers: dict[str, str]
    films: int


@dataclass(frozen=True)
class Answer:
    """A right answer: the prediction of each film, and the release that made them."""

    predictions: list[str]
    release: str


def calls_of(kind: str, films: Sequence[bytes], images: int, messages: Any = None) -> list[Call]:
    """The different calls of a kind, one beginning with each film; `images` films a call, but one a DICOM call.

    `messages` is the generated module of the Open Inference Protocol's messages, for gRPC. It is given, since those of
    kserve and of tritonclient cannot both be loaded by one process.
    """
    count = 1 if kind == "dicom" else images
    groups = [[films[(first + step) % len(films)] for step in range(count)] for first in range(len(films))]
    if kind == "grpc":
        return [Call(kind, GRPC_INFER, grpc_message(messages, group), {}, count) for group in groups]
    make = {"v1": _v1, "v2-json": _v2_json, "v2-binary": _v2_binary, "dicom": _plain}[kind]
    return [make(group) for group in groups]


def _v1(films: list[bytes]) -> Call:
    instances = [{"image": {"b64": _base64(film)}} for film in films]
    return Call("v1", PREDICT, json.dumps({"instances": instances}).encode(), _JSON, len(films))


def _v2_json(films: list[bytes]) -> Call:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(films)], "data": [_base64(film) for film in films]}
    return Call("v2-json", INFER, json.dumps({"inputs": [tensor]}).encode(), _JSON, len(films))


def _v2_binary(films: list[bytes]) -> Call:
    elements = b"".join(struct.pack("<I", len(film)) + film for film in films)
    size = {"binary_data_size": len(elements)}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(films)], "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(head))}
    return Call("v2-binary", INFER, head + elements, headers, len(films))


def _plain(films: list[bytes]) -> Call:
    (film,) = films
    return Call("dicom", PREDICT, film, {"Content-Type": "application/dicom"}, 1)


_JSON: Final = {"Content-Type": "application/json"}


def _base64(film: bytes) -> str:
    return base64.b64encode(film).decode()


def grpc_message(messages: Any, films: list[bytes]) -> bytes:
    """A ModelInfer request with the films as raw elements."""
    tensor = messages.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(films)])
    tensor.contents.bytes_contents.extend(films)
    request: bytes = messages.ModelInferRequest(model_name="pneumonia", inputs=[tensor]).SerializeToString()
    return request


def check_answer(call: Call, status: int, header: Callable[[str], str | None], body: bytes) -> Answer:
    """What an HTTP answer says: status 200, a prediction for each film, and one release in header and answer.

    Raises:
        WrongAnswer: it is something else.
    """
    if status != 200:
        raise WrongAnswer(f"status {status}")
    release = header("pneumoserve-release")
    if not release:
        raise WrongAnswer("no pneumoserve-release header")
    try:
        columns = _columns(call.kind, header(_HEADER_LENGTH), body)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        raise WrongAnswer("the answer is not of the protocol's form") from None
    answer = _answer(call, *columns)
    if answer.release != release:
        raise WrongAnswer("header and answer name different releases")
    return answer


def check_grpc_answer(call: Call, messages: Any, body: bytes) -> Answer:
    """What a ModelInfer response says: a prediction for each film, and one release.

    Raises:
        WrongAnswer: it is something else.
    """
    try:
        response = messages.ModelInferResponse.FromString(body)
        raw = {
            output.name: list(_elements(content))
            for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
            if output.datatype == "BYTES"
        }
        columns = raw["prediction_id"], raw["release"]
    # A message that does not parse raises the protobuf library's own error, which this module does not import.
    except Exception:  # noqa: BLE001
        raise WrongAnswer("the answer is not of the protocol's form") from None
    return _answer(call, *columns)


def _columns(kind: str, head_length: str | None, body: bytes) -> tuple[list[str], list[str]]:
    """The prediction ids and the releases of an HTTP answer."""
    if kind in ("v1", "dicom"):
        predictions = json.loads(body)["predictions"]
        return [item["prediction_id"] for item in predictions], [item["release"] for item in predictions]
    if kind == "v2-json":
        outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    else:
        outputs = _binary_outputs(body, int(head_length or ""))
    return outputs["prediction_id"], outputs["release"]


def _binary_outputs(body: bytes, at: int) -> dict[str, list[str]]:
    """The BYTES tensors of a binary V2 answer, whose JSON part ends at a place."""
    found = {}
    for output in json.loads(body[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        if output["datatype"] == "BYTES":
            found[output["name"]] = list(_elements(body[at : at + size]))
        at += size
    return found


def _elements(raw: bytes) -> Iterator[str]:
    """Elements of a binary BYTES tensor: each a little-endian 4-byte length and that many bytes."""
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        yield raw[at + 4 : at + 4 + length].decode()
        at += 4 + length


def _answer(call: Call, predictions: list[str], releases: list[str]) -> Answer:
    if len(predictions) != call.films or not all(predictions) or len(set(predictions)) != call.films:
        raise WrongAnswer(f"{len(set(filter(None, predictions)))} predictions for {call.films} films")
    if len(set(releases)) != 1 or not releases[0]:
        raise WrongAnswer("the predictions do not name one release")
    return Answer(predictions, releases[0])
