"""TorchServe's handler of both models: prepared pixels or films in, calibrated scores out, one answer an item.

An item of TorchServe's batch is one request. It holds prepared pixels, as the front sends them, or a film's file. A bad
item gets a status and an error of its own, and its neighbours their answers.

This file is part of every MAR, and so of every signed release: what it imports must stay where it is.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from pneumoserve.imaging import SIZE, ImageError, looks_like_image
from pneumoserve.imaging.prepare import prepare
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


class Handler:
    """One model, which is loaded by the first call."""

    def __init__(self) -> None:
        self._scorer: Scorer | None = None

    def handle(self, data: list[dict[str, Any]] | None, context: Any) -> list[Any]:
        """One answer an item; without items the model is only loaded."""
        if self._scorer is None:
            self._scorer = Scorer(Path(context.system_properties["model_dir"]), context.system_properties)
        if not data:
            return []
        _log.info("batch=%d", len(data))
        return [_answer(self._scorer, item, index, context) for index, item in enumerate(data)]


def _answer(scorer: Scorer, item: dict[str, Any], index: int, context: Any) -> dict[str, Any]:
    try:
        (score,) = scorer.scores([_read_pixels(item)])
        return asdict(score)
    except ImageError as error:
        status, message = error.status, str(error)
    except Exception as error:  # noqa: BLE001 - raised, it would take the answers of the whole batch with it
        _log.error("unexpected %s", type(error).__name__)
        status, message = 500, "The model failed on this item."
    context.set_response_status(code=status, phrase=_PHRASES[status], idx=index)
    return {"error": message}


def _read_pixels(item: dict[str, Any]) -> Pixels:
    """The item's film, uint8 of shape [224, 224].

    Raises:
        ImageError: it holds none.
    """
    body = item.get("data") if item.get("data") is not None else item.get("body")
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise ImageError(400, "The body is no film; send prepared pixels, or a film's file.")
    data = bytes(body)
    if len(data) == _PREPARED_BYTES and not looks_like_image(data):
        return np.frombuffer(data, dtype=np.uint8).reshape(SIZE, SIZE)
    return prepare(data).pixels


_handler = Handler()


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any]:
    """TorchServe's entry point; `data` is None once, when the model is loaded."""
    return _handler.handle(data, context)
