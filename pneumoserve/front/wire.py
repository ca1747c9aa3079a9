"""Wire forms of KServe's V1 protocol and the Open Inference Protocol (V2), REST and gRPC.

Parsing ends in one `Call`, whatever the transport; encoding starts from one list of named `Column`s.
Sources: KServe "Data Plane V1/V2 Protocol", and the binary tensor data extension of the Open Inference Protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import orjson
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from pneumoserve.front.errors import CallError
from pneumoserve.front.forms import FIELDS, parse_form
from pneumoserve.imaging import TEXT, looks_like_image, name_form
from pneumoserve.records import CallOrigin, Encoding, Protocol

INPUT_NAME: Final = "image"
MAX_IMAGES: Final = 16
_LONGEST_REFERENCE: Final = 256
_LONGEST_ID: Final = 1024
# A call of 16 films has some hundred values; each takes a few bytes of JSON and up to a hundred of memory.
_MAX_VALUES: Final = 10_000
# Digits of the longest length there can be.
_LENGTH_DIGITS: Final = 9
KEY_HEADER: Final = "idempotency-key"
_KEY_PARAMETER: Final = "idempotency_key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
HEADER_LENGTH: Final = "inference-header-content-length"

Datatype = Literal["BYTES", "FP64", "BOOL"]


@dataclass(frozen=True)
class Named:
    """What the caller calls the film's study and patient. It may name a person: it is hashed, and never shown.

    `practitioner` is who is to be told of it, and `reference` what the hospital calls the study: they are sealed.
    `origin` is recorded as it is.
    """

    study: str | None = field(default=None, repr=False)
    patient: str | None = field(default=None, repr=False)
    practitioner: str | None = field(default=None, repr=False)
    reference: str | None = field(default=None, repr=False)
    origin: CallOrigin | None = None


@dataclass(frozen=True)
class Origin:
    """How a call came, known before its body is read: `subject` is who the gateway says the caller is.

    It may name a person: it is recorded, and shown nowhere else.
    """

    protocol: Protocol
    encoding: Encoding
    subject: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Call:
    """What a client asked, free of transport: encoded images, and which outputs it wants in which form.

    `outputs` maps each wanted output to whether it is wanted binary; None means all, as `binary_default` says.
    """

    images: list[bytes]
    protocol: Protocol
    encoding: Encoding
    id: str | None = None
    outputs: dict[str, bool] | None = None
    binary_default: bool = False
    named: Named = Named()
    subject: str | None = field(default=None, repr=False)
    idempotency_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Column:
    """One output tensor of shape [N]; None stands for a model that did not run."""

    name: str
    datatype: Datatype
    values: Sequence[str | float | bool | None]


def parse_v1(body: bytes, headers: Mapping[str, str]) -> Call:
    """A `:predict` body: a film itself, a form of films, or `{"instances": [{"image": {"b64": ...}}]}`.

    Raises:
        CallError: 400 malformed, with what to send instead.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    given = {name: headers[f"pneumoserve-{name}"] for name in FIELDS if f"pneumoserve-{name}" in headers}
    if kind.startswith("image/") or kind == "application/dicom" or looks_like_image(body):
        return Call([body], "v1", "plain", named=_read_names(given), idempotency_key=_read_key({}, headers))
    if kind.startswith("multipart/"):
        return _parse_form(body, headers, given)
    document = _json_object(body)
    instances = document.get("instances")
    if not isinstance(instances, list):
        raise CallError(400, 'Send {"instances": [{"image": {"b64": "<base64 of the file>"}}]}.')
    _check_count(len(instances))
    images = [_instance(item, index) for index, item in enumerate(instances)]
    parameters = _parameters(document)
    named, key = _read_names(parameters), _read_key(parameters, headers)
    return Call(images, "v1", "json", named=named, idempotency_key=key)


def _parse_form(body: bytes, headers: Mapping[str, str], given: Mapping[str, str]) -> Call:
    content_type = headers["content-type"]
    if not content_type.strip().lower().startswith("multipart/form-data"):
        raise CallError(415, "Of multipart bodies, forms alone are taken; send multipart/form-data.")
    form = parse_form(body, content_type, MAX_IMAGES)
    if not form.files:
        raise CallError(400, "The form has no image; send each as a part called file: curl --form file=@xray.jpeg.")
    _check_count(len(form.files))
    named = _read_names({**given, **form.fields})
    return Call(form.files, "v1", "plain", named=named, idempotency_key=_read_key({}, headers))


def _read_names(given: Mapping[str, Any]) -> Named:
    """The caller's references among parameters or headers."""
    named = Named(**{name: _reference(given, name) for name in FIELDS})  # type: ignore[arg-type]  # origin: as below
    for name in ("practitioner", "reference"):
        # They come to stand in messages, where a new line would begin another field.
        if not (getattr(named, name) or "").isprintable():
            raise CallError(400, f"{name} has characters that cannot be printed, such as a new line; correct it.")
    if named.origin not in (None, *get_args(CallOrigin)):
        raise CallError(400, f"origin is one of {', '.join(get_args(CallOrigin))}; correct it or leave it out.")
    return named


def _read_key(parameters: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """The idempotency key, as the header or a request parameter has it."""
    given = [found[name] for found, name in ((parameters, _KEY_PARAMETER), (headers, KEY_HEADER)) if name in found]
    if not given:
        return None
    key = given[0]
    if given[-1] != key:
        raise CallError(400, f"The header {KEY_HEADER} and the parameter {_KEY_PARAMETER} differ; send one of them.")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise CallError(400, "An idempotency key is 1 to 255 visible ASCII characters without spaces, such as a UUID.")
    return key


def _reference(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_REFERENCE:
        raise CallError(400, f"{name} is a string of 1 to {_LONGEST_REFERENCE} characters; correct it.")
    return value


def _instance(item: Any, index: int) -> bytes:
    image = item.get("image") if isinstance(item, dict) else None
    text = image.get("b64") if isinstance(image, dict) else None
    if not isinstance(text, str):
        raise CallError(400, 'An instance is {"image": {"b64": "<base64 of the file>"}}.', index)
    return _element(text.encode(), index)


def parse_v2(body: bytes, headers: Mapping[str, str]) -> Call:
    """An `/infer` body, as JSON alone or as JSON followed by binary tensors.

    Raises:
        CallError: 400 malformed, with what to send instead.
    """
    length = headers.get(HEADER_LENGTH)
    if length is None:
        if looks_like_image(body):
            raise CallError(400, "This is a bare image; send it to /v1/models/<name>:predict, or as a V2 tensor.")
        return _parse_v2_parts(_json_object(body), None, headers)
    valid = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS
    if not valid or int(length) > len(body):
        raise CallError(400, "Inference-Header-Content-Length is not the length of the JSON part; correct it.")
    return _parse_v2_parts(_json_object(body[: int(length)]), body[int(length) :], headers)


def _parse_v2_parts(document: dict[str, Any], tail: bytes | None, headers: Mapping[str, str]) -> Call:
    tensor = _only_input(document.get("inputs"))
    parameters = _parameters(tensor)
    size = parameters.get("binary_data_size")
    if size is None:
        elements = _json_elements(tensor.get("data"))
    elif tail is None or type(size) is not int or size != len(tail):
        raise CallError(400, "binary_data_size is not the length of the binary part; correct it.")
    else:
        elements = split_bytes_tensor(tail)
    _check_tensor(tensor.get("name"), tensor.get("datatype"), tensor.get("shape"), len(elements))
    return Call(
        images=[_element(item, index) for index, item in enumerate(elements)],
        protocol="v2",
        encoding="json" if size is None else "binary",
        id=_identifier(document.get("id")),
        outputs=_parse_outputs(document.get("outputs")),
        binary_default=_parameters(document).get("binary_data_output") is True,
        named=_read_names(_parameters(document)),
        idempotency_key=_read_key(_parameters(document), headers),
    )


def _identifier(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST_ID):
        raise CallError(400, f"id is a string of at most {_LONGEST_ID} characters; correct it or leave it out.")
    return value


def _only_input(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise CallError(400, 'Send exactly one input: {"name": "image", "datatype": "BYTES", "shape": [N], ...}.')
    return inputs[0]


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise CallError(400, "parameters is an object; send it as one or leave it out.")
    return parameters


def _parse_outputs(outputs: Any) -> dict[str, bool] | None:
    if not outputs:
        return None
    if not isinstance(outputs, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in outputs
    ):
        raise CallError(400, 'outputs is a list of objects such as {"name": "finding"}; correct it or leave it out.')
    return {item["name"]: _parameters(item).get("binary_data") is True for item in outputs}


def _json_elements(data: Any) -> list[bytes]:
    """The strings of a tensor given as JSON, row-major: [N] or [[x], [y], ...] for [N, 1]."""
    if not isinstance(data, list):
        raise CallError(400, "The input has no data; send a list of base64 strings.")
    flat = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in data]
    if not all(isinstance(item, str) for item in flat):
        raise CallError(400, "The input's data is a list of base64 strings, one an image.")
    return [item.encode("utf-8", "surrogatepass") for item in flat]


def split_bytes_tensor(raw: bytes) -> list[bytes]:
    """Elements of a binary BYTES tensor: each a little-endian 4-byte length and that many bytes.

    Raises:
        CallError: 400 where the lengths do not add up.
    """
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw) or at + 4 + struct.unpack_from("<I", raw, at)[0] > len(raw):
            raise CallError(400, "The binary tensor's element lengths do not add up; each element is a 4-byte "
                                 "little-endian length and its bytes.")  # fmt: skip
        (length,) = struct.unpack_from("<I", raw, at)
        elements.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return elements


def _check_tensor(name: Any, datatype: Any, shape: Any, count: int) -> None:
    if name != INPUT_NAME:
        raise CallError(400, f'The input is called "{INPUT_NAME}"; name it so.')
    if datatype != "BYTES":
        raise CallError(400, "The input's datatype is BYTES (the file itself); pixels as numbers are not accepted.")
    _check_count(count)
    if not isinstance(shape, (list, tuple)) or list(shape) not in ([count], [count, 1]):
        raise CallError(400, f"The input's shape is [N] or [N, 1] with N = its number of elements, here {count}.")


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_IMAGES:
        raise CallError(400, f"One call takes 1 to {MAX_IMAGES} images, not {count}; send several calls.")


def _element(element: bytes, index: int) -> bytes:
    """An element's image: itself where it begins as an image file does, else strict base64 of one."""
    if not element or looks_like_image(element):
        return element
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError):
        raise CallError(400, "This is neither an image file nor valid base64 of one.", index) from None


def _json_object(body: bytes) -> dict[str, Any]:
    # Counted before the parser makes an object of each.
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MAX_VALUES:
        raise CallError(400, f"The JSON has more than {_MAX_VALUES:,} values; send films as base64 strings.")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _no_json(body) from None
    if not isinstance(document, dict):
        raise CallError(400, "The body is JSON but no object; send a JSON object.")
    return document


def _no_json(body: bytes) -> CallError:
    """What a body is that was taken for JSON and is none."""
    kind = name_form(body)
    if kind is None or body.lstrip().startswith((b"{", b"[")):
        return CallError(400, "The body is not valid JSON; send a JSON object, or the bytes of an image.")
    # A file of another form is sent whole and sound; text may be meant as JSON.
    status = 400 if kind == TEXT else 415
    return CallError(
        status, f"The body looks like {kind}; send a JSON object, or the bytes of a JPEG, PNG or DICOM file."
    )


def parse_grpc(request: pb.ModelInferRequest) -> Call:
    """A `ModelInfer` request with raw or typed contents.

    Raises:
        CallError: 400 malformed, with what to send instead.
    """
    if len(request.inputs) != 1:
        raise CallError(400, f'Send exactly one input, called "{INPUT_NAME}".')
    tensor = request.inputs[0]
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1 or tensor.HasField("contents"):
            raise CallError(400, "Send the input once: in raw_input_contents or in its contents.")
        elements = split_bytes_tensor(request.raw_input_contents[0])
    else:
        elements = list(tensor.contents.bytes_contents)
    _check_tensor(tensor.name, tensor.datatype, list(tensor.shape), len(elements))
    parameters = {name: parameter.string_param for name, parameter in request.parameters.items()}
    return Call(
        images=[_element(item, index) for index, item in enumerate(elements)],
        protocol="grpc",
        encoding="binary",
        id=_identifier(request.id or None),
        outputs={output.name: True for output in request.outputs} or None,
        named=_read_names(parameters),
        idempotency_key=_read_key(parameters, {}),
    )


def select_columns(columns: list[Column], wanted: dict[str, bool] | None) -> list[Column]:
    """The wanted columns in the order they were asked for; each is there."""
    if wanted is None:
        return columns
    by_name = {column.name: column for column in columns}
    return [by_name[name] for name in wanted]


def encode_v2(call: Call, head: dict[str, Any], columns: list[Column]) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON part where binary tensors follow (else None)."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for column in select_columns(columns, call.outputs):
        binary = call.binary_default if call.outputs is None else call.outputs[column.name]
        output: dict[str, Any] = {"name": column.name, "datatype": column.datatype, "shape": [len(column.values)]}
        if binary:
            raw = _raw(column)
            output["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            output["data"] = list(column.values)
        outputs.append(output)
    document = orjson.dumps({**head, "outputs": outputs})
    return document + b"".join(tail), len(document) if tail else None


def encode_grpc(call: Call, head: dict[str, Any], columns: list[Column]) -> pb.ModelInferResponse:
    """The gRPC response: raw contents, as Triton's and KServe's clients read them."""
    response = pb.ModelInferResponse(model_name=head["model_name"], model_version=head["model_version"], id=head["id"])
    for key, value in head["parameters"].items():
        response.parameters[key].string_param = value
    for column in select_columns(columns, call.outputs):
        response.outputs.add(name=column.name, datatype=column.datatype, shape=[len(column.values)])
        response.raw_output_contents.append(_raw(column))
    return response


def _raw(column: Column) -> bytes:
    if column.datatype == "BYTES":
        encoded = [str(value).encode() for value in column.values]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    if column.datatype == "BOOL":
        return bytes(bool(value) for value in column.values)
    return struct.pack(f"<{len(column.values)}d", *(math.nan if v is None else v for v in column.values))


def json_text(value: Any) -> str:
    """Compact JSON text, for structured values in a string tensor or parameter."""
    return json.dumps(value, separators=(",", ":"))
