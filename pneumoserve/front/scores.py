"""What the clients of both model servers share: how a score is asked for, read and counted."""

from __future__ import annotations

from typing import Any, Final

from pneumoserve.front import metrics
from pneumoserve.models.scorer import Score
from pneumoserve.names import DETECTOR, TYPER, ModelServer
from pneumoserve.tracing import Span, span

UNANSWERED: Final = "The models do not answer at the moment; try again."


def trace_score(model: str) -> Span:
    """The piece of a call that is spent on a model's score."""
    return span("detector" if model == DETECTOR else "typer", model=model)


def read_score(document: dict[str, Any], server: ModelServer) -> Score:
    """A score of JSON; its profile says what ran the model, too."""
    typer = document.get("typer")
    said = {
        "typer": None if typer is None else read_score(typer, server),
        "profile": {**document["profile"], "server": server},
    }
    return Score(**{**document, **said})


def note_engine(model: str, score: Score) -> None:
    """Let the metrics show which engine has computed a score, and the typer's where it came with it."""
    for name in (model,) if score.typer is None else (model, TYPER):
        metrics.ENGINE_INFO.labels(name, score.profile.get("engine"), score.profile.get("engine_version")).set(1)
