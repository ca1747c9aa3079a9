"""Finished runs of the same recipe that held other films out: what they say of films that they never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pneumoserve.release.schema import RunFacts
from training.errors import TrainingError
from training.scores import Logits, Scores, read_scores


@dataclass(frozen=True)
class ReferenceRun:
    """A finished run with the scores of the calibration fold and of what it held out."""

    facts: RunFacts
    calibration: Scores
    held_out: Scores

    @property
    def hold_out(self) -> str:
        """What it held out."""
        return str(self.facts.training.parameters["hold_out"])

    def on_scale_of(self, fold: Scores) -> Scores:
        """The scores of what it held out, on the scale of another run that scored the calibration fold as `fold`.

        Each run's scores are as wide as its films were easy to separate. What two runs share is the calibration fold:
        a score becomes the one that has the same rank among its films (quantile mapping).
        """
        theirs = {item.sha256: place for place, item in enumerate(self.calibration.items)}
        common = [place for place, item in enumerate(fold.items) if item.sha256 in theirs]
        rows = [theirs[fold.items[place].sha256] for place in common]
        return Scores(
            self.held_out.items,
            *(
                _map_quantiles(
                    getattr(self.held_out, name), getattr(self.calibration, name)[rows], getattr(fold, name)[common]
                )
                for name in ("detector", "typer", "chest")
            ),
        )

    def check(self, dataset: str, parameters: dict[str, Any]) -> None:
        """Refuse a run of another dataset or recipe: what it says of unseen films is nothing of this one.

        Raises:
            TrainingError: it is one.
        """
        theirs = self.facts.training.parameters
        compared = (parameters.keys() | theirs.keys()) - {"hold_out"}
        differing = sorted(name for name in compared if parameters.get(name) != theirs.get(name))
        if self.facts.data.digest != dataset:
            raise TrainingError(f"The reference run that held out {self.hold_out} is of another dataset; leave it out.")
        if differing:
            raise TrainingError(
                f"The reference run that held out {self.hold_out} has another {differing[0]}; "
                "train it by the same recipe."
            )


def read_reference_run(run: Path) -> ReferenceRun:
    """A finished run.

    Raises:
        TrainingError: it is not finished, or held nothing out.
    """
    try:
        facts = RunFacts.model_validate_json((run / "run.json").read_bytes())
        groups = read_scores(run / "oof.parquet")
        return ReferenceRun(facts, groups["calibration"], groups[str(facts.training.parameters["hold_out"])])
    except (OSError, KeyError, ValidationError):
        raise TrainingError(
            f"{run.name} is no finished run of this version that held films out; train it with --hold-out first."
        ) from None


def pool(runs: Sequence[ReferenceRun], fold: Scores) -> dict[str, Scores]:
    """What each run held out, on the scale of `fold`, by what that is; and all folds as one set, `folds`."""
    groups = {run.hold_out: run.on_scale_of(fold) for run in runs}
    folds = [scores for name, scores in groups.items() if name.startswith("fold-")]
    return {**groups, "folds": Scores.concatenate(folds)} if folds else groups


def _map_quantiles(values: Logits, source: Logits, target: Logits) -> Logits:
    """Values of the scale of `source` on that of `target`; beyond their ends scores move along with the ends."""
    source, target = np.sort(source), np.sort(target)
    beyond = values - np.clip(values, source[0], source[-1])
    mapped: Logits = (np.interp(values, source, target) + beyond).astype(np.float32)
    return mapped
