"""Finished runs of the same recipe that held other films out: what they say of films that they never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pneumoserve.release.schema import RunFacts
from training.errors import TrainingError
from training.fit import calibrated
from training.scores import Scores, read_scores


@dataclass(frozen=True)
class Beside:
    """A finished run and the scores of what it held out; these are calibrated logits, by the run's own calibration."""

    facts: RunFacts
    scores: Scores

    @property
    def hold_out(self) -> str:
        """What it held out."""
        return str(self.facts.training.parameters["hold_out"])

    def check(self, dataset: str, parameters: dict[str, Any]) -> None:
        """Refuse a run of another dataset or recipe: what it says of unseen films is nothing of this one.

        Raises:
            TrainingError: it is one.
        """
        theirs = self.facts.training.parameters
        differing = sorted(
            name for name in parameters.keys() | theirs.keys() if parameters.get(name) != theirs.get(name)
        )
        if self.facts.data.digest != dataset:
            raise TrainingError(f"The run beside that held out {self.hold_out} is of another dataset; leave it out.")
        if differing not in ([], ["hold_out"]):
            raise TrainingError(
                f"The run beside that held out {self.hold_out} has another {differing[0]}; train it by the same recipe."
            )


def read_beside(run: Path) -> Beside:
    """A finished run.

    Raises:
        TrainingError: it is not finished, or held nothing out.
    """
    try:
        facts = RunFacts.model_validate_json((run / "run.json").read_bytes())
        groups = read_scores(run / "oof.parquet")
        scores = groups[str(facts.training.parameters["hold_out"])]
    except (OSError, KeyError, ValidationError):
        raise TrainingError(
            f"{run.name} is no finished run of this version that held films out; train it with --hold-out first."
        ) from None
    detector, typer = (model.calibration for model in facts.models)
    return Beside(facts, calibrated(scores, detector, typer))


def pooled(runs: Sequence[Beside]) -> dict[str, Scores]:
    """The scores of each run by what it held out, and those of all folds as one set, `folds`."""
    groups = {run.hold_out: run.scores for run in runs}
    folds = [run.scores for run in runs if run.hold_out.startswith("fold-")]
    return {**groups, "folds": Scores.joined(folds)} if folds else groups
