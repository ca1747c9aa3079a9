"""What /openapi.json says of the routes: bodies, examples, answers, errors and headers.

The models here describe; what is taken and answered is decided in `wire` and `models`. Tests hold both together.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, cast

from fastapi import FastAPI, Path
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

import pneumoserve
from pneumoserve.decision import Decision
from pneumoserve.front.admission import MAX_BODY_BYTES
from pneumoserve.front.models import DECISION_OUTPUTS
from pneumoserve.front.service import MODEL_NAMES
from pneumoserve.front.wire import INPUT_NAME, MAX_IMAGES
from pneumoserve.records import CallOrigin

_TITLE: Final = "pneumoserve"
_SUMMARY: Final = "Reads chest X-rays for pneumonia. Not cleared for clinical use."
_DESCRIPTION: Final = """\
**Not cleared for clinical use.** Every answer is on record before you get it.

Send a chest X-ray as JPEG, PNG or DICOM: by V1 (`:predict`) as JSON, as it is, or as a form, or by V2, the Open
Inference Protocol (`/infer`). The same calls are served over gRPC. The examples' image is a gray square, so a real
deployment refers it.
"""
# A gray square of 32 x 32 pixels: the smallest image that is decoded.
_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAIklEQVR42mNkYcAPWNgJKeAkpIBjVMGoglEFg1EB428CCgA1DQJqIWMu9QAA"
    "AABJRU5ErkJggg=="
)
_ID: Final = "01890a5d-ac96-774b-bcce-b302099a8057"
# The extension of an example that says which status it is answered with.
STATUS: Final = "x-answered-with"
_SCHEMAS: Final = "#/components/schemas/{model}"

ModelPath = Annotated[
    str,
    Path(description="`pneumonia` decides; the others give their scores.", json_schema_extra={"enum": [*MODEL_NAMES]}),
]
VersionPath = Annotated[str, Path(description="Id of the release; any other than the one that answers is 404.")]

_MEANINGS: Final = {
    "prediction_id": "names the record (UUIDv7)",
    "release": "the release that answered",
    "finding": "null: a human must look",
    "pneumonia_type": "null: not pneumonia, or the type is unsure",
    "confidence": "calibrated probability of `leaning`; null where it is no chest X-ray",
    "pneumonia_probability": "calibrated score; null: the model did not run",
    "bacterial_probability": "calibrated score; null: the model did not run",
    "referred": "whether a human must look",
    "reasons": "why a human must look",
    "notice": "what to mind about a stated type; null: none is stated",
}


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class EncodedImage(_Described):
    """An image in base64."""

    b64: str = Field(description="strict base64 of a JPEG, PNG or DICOM file")


class Instance(_Described):
    """One image of a V1 call."""

    image: EncodedImage


def _reference(description: str) -> Any:
    return Field(None, min_length=1, max_length=256, description=description)


class _Named(BaseModel):
    study: str | None = _reference("the study; a keyed hash is kept")
    patient: str | None = _reference("the patient; a keyed hash is kept")
    practitioner: str | None = _reference("who is to be told; sealed to the alert service")
    reference: str | None = _reference("what the hospital calls the study; sealed to the alert service")
    origin: CallOrigin | None = Field(None, description="routed by a rule, or flagged by a radiologist; recorded")


class Parameters(_Named):
    """What a caller may say of a call."""

    idempotency_key: str | None = Field(
        None, pattern="^[!-~]{1,255}$", description="as the header Idempotency-Key; a repeat gets the first answer"
    )


class PredictRequest(BaseModel):
    """A V1 call."""

    instances: list[Instance] = Field(min_length=1, max_length=MAX_IMAGES)
    parameters: Parameters | None = None


class FormRequest(_Described, _Named):
    """A V1 call as a form."""

    file: list[Annotated[str, Field(json_schema_extra={"format": "binary"})]] = Field(
        min_length=1, max_length=MAX_IMAGES, description="images, each a part called file"
    )


def _annotation(name: str, datatype: str) -> Any:
    if name in Decision.model_fields:
        return Decision.model_fields[name].annotation
    return {"BYTES": str | None, "FP64": float | None, "BOOL": bool}[datatype]


def _meaning(name: str) -> str | None:
    stated = Decision.model_fields[name].description if name in Decision.model_fields else None
    return stated or _MEANINGS.get(name)


# Not required: a raw model gives its one score.
_FIELDS: Final[dict[str, Any]] = {
    name: (_annotation(name, datatype), Field(None, description=_meaning(name)))
    for name, datatype in DECISION_OUTPUTS.items()
}
Prediction = create_model(
    "Prediction",
    __base__=_Described,
    __doc__="The answer for one image. `pneumonia-detector` and `pneumonia-typer` give one probability alone.",
    **_FIELDS,
)


class Study(Decision):
    """The most serious answer of a call that names a study."""

    notice: str | None = Field(None, description=_MEANINGS["notice"])


class PredictAnswer(_Described):
    """The answer to a V1 call."""

    predictions: list[Prediction] = Field(description="one an image, in their order")  # type: ignore[valid-type]
    study: Study | None = Field(None, description="there where the call names a study")
    intended_use: str | None = Field(None, description="what the answer is for, in the release's words")
    assumed_prevalence: float | None = Field(None, description="share of sick patients that probabilities assume")


class InputTensor(BaseModel):
    """The one input of a V2 call."""

    name: str = Field(json_schema_extra={"const": INPUT_NAME})
    datatype: str = Field(json_schema_extra={"const": "BYTES"})
    shape: list[int] = Field(min_length=1, max_length=2, description="[N] or [N, 1]")
    data: list[Any] | None = Field(None, description="base64 of images; without it, binary tensors follow the JSON")
    parameters: dict[str, Any] | None = Field(None, description="binary_data_size of a binary tensor")


class WantedOutput(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = Field(None, description="binary_data: true for a binary tensor")


class InferParameters(Parameters):
    """What a caller may say of a V2 call."""

    binary_data_output: bool | None = Field(None, description="whether outputs come as binary tensors")


class InferRequest(BaseModel):
    """A V2 call."""

    id: str | None = Field(None, max_length=1024, description="echoed")
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = Field(None, description="all of them, where none is asked for")
    parameters: InferParameters | None = None


class OutputTensor(_Described):
    """An output of a V2 call."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferAnswer(_Described):
    """The answer to a V2 call."""

    model_name: str
    model_version: str = Field(description="the release that answered")
    id: str
    outputs: list[OutputTensor] = Field(description="the fields of a V1 prediction, each a tensor [N]")
    parameters: dict[str, str] = Field(
        description="recorded, receipts, intended_use, assumed_prevalence and, where the call names a study, study"
    )


class ErrorAnswer(_Described):
    """What every error looks like."""

    error: str = Field(description="one sentence that says what to do")
    prediction_id: str | None = Field(description="names the record of the refusal; null where no call was made")


class Alive(_Described):
    """The process runs."""

    status: str


class Live(_Described):
    """The process runs."""

    live: bool


class Ready(_Described):
    """A call would be answered."""

    ready: bool


class ModelReady(_Described):
    """A call of the model would be answered."""

    name: str
    ready: bool


class Models(_Described):
    """The models."""

    models: list[str]


class Server(_Described):
    """The server's metadata."""

    name: str
    version: str
    extensions: list[str]


class Tensor(_Described):
    """An input or output of a model."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Described):
    """A model's metadata."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


def _header(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string", **schema}}


_RELEASE: Final = {"Pneumoserve-Release": _header("the release that answered")}
_RECEIPTS: Final = {
    **_RELEASE,
    "Pneumoserve-Recorded": _header("where the record stands", enum=["store", "journal"]),
    "Pneumoserve-Receipts": {
        "description": "the records' signed receipts, one an image",
        "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}},
    },
}
_RETRY: Final = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
# Of each status: when, and a sentence as an example.
_ERRORS: Final = {
    400: ("Malformed request, or damaged image.",
          "The body is not valid JSON; send a JSON object, or the bytes of an image."),
    401: ("The call went past the gateway.",
          "The gateway names no caller; call through the gateway, with your token or key."),
    404: ("No such model or version.", f"There is no such model; the models are {', '.join(MODEL_NAMES)}."),
    408: ("The call did not arrive in time.", "The call did not arrive in time; send it faster, or send fewer images."),
    409: ("Another call with this idempotency key is being answered.",
          "A call with this idempotency key is being answered; repeat it after a moment."),
    413: ("Too large, or too much to decode.", "The body is larger than 44 MiB; send fewer or smaller images."),
    415: ("No image of an accepted form, or a compressed body.",
          "This is not a JPEG, PNG or DICOM file but looks like a PDF; send the X-ray in one of these formats."),
    422: ("The idempotency key came with another request.",
          "This idempotency key came with another request; use a new key for each request."),
    429: ("More calls than the service can hold.",
          "The service has more calls than it can hold; try again after a moment."),
    503: ("Models, decoders or store do not answer.", "The service is not ready; try again."),
}  # fmt: skip
_WAIT: Final = (409, 429, 503)


def _answer(model: type[BaseModel], example: Any = None, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {} if example is None else {"content": {"application/json": {"example": example}}}
    return {"model": model, "description": (model.__doc__ or "").strip(), "headers": headers or {}, **content}


def _errors(*statuses: int, recorded: bool = False) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        when, sentence = _ERRORS[status]
        headers = {**(_RECEIPTS if recorded else {}), **(_RETRY if status in _WAIT else {})}
        example = {"error": sentence, "prediction_id": _ID if recorded else None}
        found[status] = {**_answer(ErrorAnswer, example, headers), "description": when}
    found["default"] = {**_answer(ErrorAnswer), "description": "Any other error."}
    return found


def _request_header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, **_header(description, **schema)}


_KEY: Final = _request_header(
    "Idempotency-Key",
    "A name for this request. A repeat within 24 hours gets the first answer, and makes no second record.",
    pattern="^[!-~]{1,255}$",
)
_NAMED: Final = [
    _request_header(f"Pneumoserve-{name.title()}", f"Of a plain image or a form: {field.description}",
                    minLength=1, maxLength=256)
    for name, field in _Named.model_fields.items()
]  # fmt: skip


def _example(summary: str, status: int, value: Any) -> dict[str, Any]:
    return {"summary": f"{summary} ({status})", STATUS: status, "value": value}


def _instances(*images: str, **more: Any) -> dict[str, Any]:
    return {"instances": [{"image": {"b64": image}} for image in images], **more}


def _inputs(*images: str, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": INPUT_NAME, "datatype": "BYTES", "shape": [len(images)], "data": [*images]}], **more}


_PDF: Final = "JVBERi0xLjcK"
_PREDICT_EXAMPLES: Final = {
    "one": _example("One image", 200, _instances(_IMAGE)),
    "study": _example("Two images of one study", 200, _instances(_IMAGE, _IMAGE, parameters={"study": "study-1"})),
    "none": _example("No image", 400, {"instances": []}),
    "damaged": _example("No base64", 400, _instances("@")),
    "pdf": _example("A PDF", 415, _instances(_PDF)),
}
_INFER_EXAMPLES: Final = {
    "one": _example("One image", 200, _inputs(_IMAGE)),
    "chosen": _example("Some outputs", 200, _inputs(_IMAGE, id="call-1", outputs=[{"name": "prediction_id"}])),
    "unknown": _example("An output that does not exist", 400, _inputs(_IMAGE, outputs=[{"name": "diagnosis"}])),
    "shape": _example("Another shape", 400, {"inputs": [{**_inputs(_IMAGE)["inputs"][0], "shape": [2]}]}),
    "pdf": _example("A PDF", 415, _inputs(_PDF)),
}
_BINARY: Final = {"schema": {"type": "string", "format": "binary", "maxLength": MAX_BODY_BYTES}}
_CALL_ERRORS: Final = _errors(400, 401, 404, 408, 409, 413, 415, 422, 429, 503, recorded=True)


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": _SCHEMAS.format(model=model.__name__)}}


PREDICT: Final[dict[str, Any]] = {
    "summary": "Judge chest X-rays (V1)",
    "description": "JSON, one image as it is, or a form. One bad image fails the call.",
    "tags": ["calls"],
    "responses": {200: _answer(PredictAnswer, None, _RECEIPTS), **_CALL_ERRORS},
    "openapi_extra": {
        "parameters": [_KEY, *_NAMED],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {**_schema(PredictRequest), "examples": _PREDICT_EXAMPLES},
                "multipart/form-data": _schema(FormRequest),
                **dict.fromkeys(("image/jpeg", "image/png", "application/dicom"), _BINARY),
            },
        },
    },
}
INFER: Final[dict[str, Any]] = {
    "summary": "Judge chest X-rays (V2, the Open Inference Protocol)",
    "description": "JSON, or JSON followed by binary tensors. One bad image fails the call.",
    "tags": ["calls"],
    "responses": {
        200: {
            **_answer(InferAnswer, None, _RECEIPTS),
            "content": {"application/octet-stream": _BINARY},
        },
        **_CALL_ERRORS,
    },
    "openapi_extra": {
        "parameters": [
            _KEY,
            _request_header("Inference-Header-Content-Length", "Bytes of the JSON part, where binary tensors follow."),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {**_schema(InferRequest), "examples": _INFER_EXAMPLES},
                "application/octet-stream": _BINARY,
            },
        },
    },
}


def look(summary: str, model: type[BaseModel], example: Any, *errors: int, tag: str = "models") -> dict[str, Any]:
    """What is said of a route that only looks."""
    return {"summary": summary, "tags": [tag], "responses": {200: _answer(model, example), **_errors(*errors)}}


def new_app() -> FastAPI:
    """An application that says what it is, and has no pages of its own yet."""
    return FastAPI(
        title=_TITLE,
        version=pneumoserve.__version__,
        summary=_SUMMARY,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=[
            {"name": "calls", "description": "Answered on record."},
            {"name": "models", "description": "What is served."},
            {"name": "health", "description": "For probes."},
        ],
        openapi_url=None,
    )


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application, with the models of its requests."""
    document = app.openapi()
    _, described = models_json_schema(
        [(model, "validation") for model in (PredictRequest, FormRequest, InferRequest)], ref_template=_SCHEMAS
    )
    cast("dict[str, Any]", document["components"]["schemas"]).update(described["$defs"])
    return document
