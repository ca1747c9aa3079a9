"""The three KServe models of the front: their metadata, and the columns of their answers."""

from __future__ import annotations

from typing import Any, Final, Protocol

from kserve import Model

import pneumoserve
from pneumoserve.decision import of_study
from pneumoserve.front.errors import CallError
from pneumoserve.front.service import Answer
from pneumoserve.front.wire import INPUT_NAME, Call, Column, json_text
from pneumoserve.ids import uuid7
from pneumoserve.ledger import Receipt
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
    # Later ones come last: clients may go by place.
    "leaning": "BYTES",
    "type_probability": "FP64",
    "notice": "BYTES",
}


def describe_server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": "pneumoserve", "version": pneumoserve.__version__, "extensions": ["binary_tensor_data"]}


class HasReadiness(Protocol):
    """What says whether calls are answered."""

    @property
    def ready(self) -> bool:
        """Whether a call would be answered now."""
        ...


class FrontModel(Model):  # type: ignore[misc]
    """One model of the front, as KServe's registry and metadata know it; `infer` calls go through `Service`."""

    def __init__(self, name: str, service: HasReadiness) -> None:
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
    whole = of_study(decisions)
    notices = (answer.notice for answer in answers if answer.notice is not None)
    return {**whole.model_dump(mode="json"), "notice": next(notices, None) if whole.pneumonia_type else None}


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
        "leaning": decision.leaning,
        "type_probability": decision.type_probability,
        "notice": answer.notice,
    }


def response_head(model: str, call: Call, answers: list[Answer]) -> dict[str, Any]:
    """What a V2 response says beside its tensors; parameters are strings, so that gRPC says the same."""
    receipts = [answer.receipt for answer in answers]
    whole = study(model, call, answers)
    return {
        "model_name": model,
        "model_version": answers[0].release,
        "id": call.id if call.id is not None else uuid7(),
        "parameters": {
            "recorded": receipts[0].recorded,
            "receipts": receipts_text(receipts),
            "intended_use": answers[0].intended_use,
            "assumed_prevalence": json_text(answers[0].assumed_prevalence),
            **({} if whole is None else {"study": json_text(whole)}),
        },
    }


def receipts_text(receipts: list[Receipt]) -> str:
    """The receipts of a call as compact JSON; `recorded` is said beside them, once for all."""
    return json_text([receipt.model_dump(exclude={"recorded"}) for receipt in receipts])
