"""What both TorchServe handlers do: films in any accepted form in, calibrated scores out, one answer an item.

An item of TorchServe's batch is one request. It may be prepared pixels (what the front sends), a film's file, a V1 or
a V2 JSON body. A bad item gets a status and an error of its own and never touches its neighbours.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from pneumoserve.image import SIZE, ImageError, looks_like_image, prepare
from pneumoserve.models.engine import Pixels
from pneumoserve.models.scorer import Scorer

_PREPARED_BYTES: Final = SIZE * SIZE
_PHRASES: Final = {
    400: "Bad Request",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
}

_log = logging.getLogger(__name__)


class ItemError(ValueError):
    """An item that gets no scores; `status` as in HTTP, the text free of payload."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler:
    """One model. `handle` is TorchServe's entry point."""

    def __init__(self) -> None:
        self._loaded: Scorer | None = None

    def handle(self, data: list[dict[str, Any]] | None, context: Any) -> list[Any]:
        """One answer an item; without items it loads the model."""
        if self._loaded is None:
            self._loaded = Scorer(Path(context.system_properties["model_dir"]), context.system_properties)
        if not data:
            return []
        _log.info("batch=%d", len(data))
        return [self._answer(item, index, context) for index, item in enumerate(data)]

    def _answer(self, item: dict[str, Any], index: int, context: Any) -> Any:
        try:
            return self._scored(_payload(item))
        except (ItemError, ImageError) as error:
            status, message = error.status, str(error)
        except Exception as error:  # noqa: BLE001 - raised, it would take the answers of the whole batch with it
            _log.error("unexpected %s", type(error).__name__)
            status, message = 500, "The model failed on this item."
        context.set_response_status(code=status, phrase=_PHRASES[status], idx=index)
        return {"error": message}

    def _scored(self, payload: bytes | dict[str, Any]) -> dict[str, Any]:
        if isinstance(payload, bytes):
            (score,) = self._scorer.scores([_film(payload)])
            return asdict(score)
        if "instances" in payload:
            scores = self._scorer.scores([_film(_v1_bytes(instance)) for instance in _list(payload["instances"])])
            return {"predictions": [{self._scorer.facts["output"]: score.probability} for score in scores]}
        if "inputs" in payload:
            return self._v2(payload)
        raise ItemError(400, 'Send a film, {"instances": [...]} (V1) or {"inputs": [...]} (V2).')

    def _v2(self, payload: dict[str, Any]) -> dict[str, Any]:
        scores = self._scorer.scores(_v2_films(_list(payload["inputs"])))
        facts = self._scorer.facts
        return {
            "model_name": facts["name"],
            "model_version": facts["version"],
            "id": payload.get("id"),
            "outputs": [
                {
                    "name": facts["output"],
                    "datatype": "FP64",
                    "shape": [len(scores)],
                    "data": [score.probability for score in scores],
                }
            ],
        }

    @property
    def _scorer(self) -> Scorer:
        if self._loaded is None:
            raise RuntimeError("the model is not loaded")
        return self._loaded


def _payload(item: dict[str, Any]) -> bytes | dict[str, Any]:
    """The request's body; TorchServe hands JSON over parsed or not, by its content type."""
    body = item.get("data") if item.get("data") is not None else item.get("body")
    if isinstance(body, (bytes, bytearray, memoryview)):
        raw = bytes(body)
        if len(raw) == _PREPARED_BYTES or looks_like_image(raw) or not raw.lstrip().startswith(b"{"):
            return raw
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            raise ItemError(400, "The body is not valid JSON; send a JSON object, or a film.") from None
    if not isinstance(body, dict):
        raise ItemError(400, "The body is no JSON object and no film; send one of them.")
    return body


def _film(data: bytes) -> Pixels:
    if len(data) == _PREPARED_BYTES and not looks_like_image(data):
        return np.frombuffer(data, dtype=np.uint8).reshape(SIZE, SIZE)
    return prepare(data).pixels


def _v1_bytes(instance: Any) -> bytes:
    image = instance.get("image") if isinstance(instance, dict) else None
    text = image.get("b64") if isinstance(image, dict) else None
    return _unbase64(text)


def _v2_films(inputs: list[Any]) -> list[Pixels]:
    tensor = inputs[0] if len(inputs) == 1 else None
    if not isinstance(tensor, dict) or tensor.get("name") != "image":
        raise ItemError(400, 'Send one input, called "image".')
    data = _list(tensor.get("data"))
    if tensor.get("datatype") == "BYTES":
        return [_film(_unbase64(item[0] if isinstance(item, list) and len(item) == 1 else item)) for item in data]
    try:
        films: Pixels = np.array(data, dtype=np.uint8).reshape(-1, SIZE, SIZE)
    except (ValueError, OverflowError, TypeError):
        films = np.empty((0, SIZE, SIZE), dtype=np.uint8)
    if tensor.get("datatype") != "UINT8" or tensor.get("shape") != list(films.shape):
        raise ItemError(
            400, f"The input is BYTES [N] of base64 films, or UINT8 [N, {SIZE}, {SIZE}] of prepared pixels."
        )
    return list(films)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ItemError(400, "There is no image in the request; send a list of at least one.")
    return value


def _unbase64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise ItemError(400, "An image is not valid base64; send the base64 of a JPEG, PNG or DICOM file.") from None
