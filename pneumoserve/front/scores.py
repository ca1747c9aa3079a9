"""A score as the models' containers send it."""

from __future__ import annotations

from typing import Any

from pneumoserve.front import metrics
from pneumoserve.models.scorer import Score
from pneumoserve.names import TYPER, ModelServer


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
