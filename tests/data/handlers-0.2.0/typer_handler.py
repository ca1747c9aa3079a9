"""TorchServe handler of the model pneumonia-typer."""

from typing import Any

from pneumoserve.models.handler import Handler

_handler = Handler()


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any]:
    """One answer an item of TorchServe's batch; `data` is None once, when the model is loaded."""
    return _handler.handle(data, context)
