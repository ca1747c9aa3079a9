"""The three KServe models of the front: their metadata, and the columns of their answers."""

from __future__ import annotations

from typing import Any, Final

from kserve import Model

from pneumoserve.decision import of_study
from pneumoserve.front.errors import CallError
from pneumoserve.front.service import Answer, Service
from pneumoserve.front.wire import INPUT_NAME, Call, Column, json_text
from pneumoserve.names import DECISION, DETECTOR

DECISION_OUTPUTS: Final = {
    "prediction_id": "BYTES",
    "release": "BYTES",
    "finding": "BYTES",
    "pneumonia_type": "BYTES",
    "confidence": "FP64",
    "pneumonia_probability": "FP64",
    "bacterial_probability": "FP64",
    "referred": "BOOL",
    "reasons": "BYTES",
}


class FrontModel(Model):  # type: ignore[misc]
    """One model of the front, as KServe's registry and metadata know it; `infer` calls go through `Service`."""

    def __init__(self, name: str, service: Service) -> None:
        super().__init__(name)
        self._service = service
        self.ready = True

    def load(self) -> bool:
        """Nothing to load: the release was verified before the server started."""
        return True

    async def healthy(self) -> bool:
        """Whether a call of this model would be answered now."""
        return self._service.ready

    def get_input_types(self) -> list[dict[str, Any]]:
        """The one input: encoded films."""
        return [{"name": INPUT_NAME, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs, each of shape [N]."""
        outputs = _outputs(self.name).items()
        return [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in outputs]


def _outputs(model: str) -> dict[str, str]:
    return DECISION_OUTPUTS if model == DECISION else {_score_name(model): "FP64"}


def _score_name(model: str) -> str:
    return "pneumonia_probability" if model == DETECTOR else "bacterial_probability"


def check_outputs(model: str, call: Call) -> None:
    """Refuse a call for outputs that do not exist before its films are judged, and recorded as answered.

    Raises:
        CallError: 400 with the outputs that do.
    """
    names = _outputs(model)
    if call.outputs is not None and not call.outputs.keys() <= names.keys():
        raise CallError(400, f"A requested output does not exist; the outputs are {', '.join(names)}.")


def columns(model: str, answers: list[Answer]) -> list[Column]:
    """The V2 output tensors of an answered call; null is an empty string, a model that did not run None."""
    if model != DECISION:
        name = _score_name(model)
        return [Column(name, "FP64", [getattr(answer, name) for answer in answers])]
    rows = [_row(answer) for answer in answers]
    return [
        Column(name, datatype, [_cell(row[name], datatype) for row in rows])  # type: ignore[arg-type]
        for name, datatype in DECISION_OUTPUTS.items()
    ]


def _cell(value: Any, datatype: str) -> Any:
    if datatype != "BYTES" or isinstance(value, str):
        return value
    return "" if value is None else json_text(value)


def predictions(model: str, answers: list[Answer]) -> list[dict[str, Any]]:
    """The V1 predictions of an answered call."""
    if model == DECISION:
        return [_row(answer) for answer in answers]
    name = _score_name(model)
    return [
        {"prediction_id": answer.prediction_id, "release": answer.release, name: getattr(answer, name)}
        for answer in answers
    ]


def study(model: str, call: Call, answers: list[Answer]) -> dict[str, Any] | None:
    """The answer for the films of a call as one study, None where the caller names no study or asks for scores."""
    decisions = [answer.decision for answer in answers if answer.decision is not None]
    if model != DECISION or call.named.study is None or not decisions:
        return None
    return of_study(decisions).model_dump(mode="json")


def _row(answer: Answer) -> dict[str, Any]:
    decision = answer.decision
    if decision is None:
        raise CallError(500, "The answer holds no decision; this is a fault of the service.")
    return {
        "prediction_id": answer.prediction_id,
        "release": answer.release,
        "finding": decision.finding,
        "pneumonia_type": decision.pneumonia_type,
        "confidence": decision.confidence,
        "pneumonia_probability": answer.pneumonia_probability,
        "bacterial_probability": answer.bacterial_probability,
        "referred": decision.referred,
        "reasons": list(decision.reasons),
    }
