"""One model, loaded: from prepared pixels to calibrated scores. TorchServe's handler and replay run this alike."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import pneumoserve
from pneumoserve.imaging import PREPROCESSING_VERSION
from pneumoserve.models.engine import Pixels, Profile, Raw, engine_for
from pneumoserve.models.shared_trunk import Packed
from pneumoserve.names import DETECTOR, TYPER

if TYPE_CHECKING:
    from pneumoserve.release import Release

# The variable that names the typer's MAR to a worker.
TYPER_MAR: Final = "PNEUMOSERVE_TYPER_MAR"


def make_worker_environment(release: Release) -> dict[str, str]:
    """What a worker's environment needs, whichever server starts it."""
    return {
        # One spinning OpenMP thread more on a busy core makes a prediction ten times slower.
        "OMP_NUM_THREADS": "1",
        "GOMP_SPINCOUNT": "0",
        TYPER_MAR: str(release.folder / "model-store" / f"{TYPER}.mar"),
    }


@dataclass(frozen=True)
class Score:
    """A model's answer for one film: calibrated probability, logit, and how it was computed.

    `chest_probability`: that it is an upright chest film at all, where the model has a gate that says so. `typer`: a
    detector's score holds the typer's, where both came of one run.
    """

    probability: float
    logit: float
    profile: Profile
    chest_probability: float | None = None
    typer: Score | None = None


class Scorer:
    """A model in the folder of its unpacked MAR; `facts` is its model.json.

    In TorchServe, where TYPER_MAR names the typer's archive, a detector with the same trunk answers for the typer too.
    """

    def __init__(self, folder: Path, properties: dict[str, Any]) -> None:
        """Load it on what TorchServe's `properties` name: a GPU, else the CPU.

        Raises:
            RuntimeError: it was made for another preprocessing version.
        """
        self.facts: dict[str, Any] = json.loads((folder / "model.json").read_text())
        if self.facts["preprocessing_version"] != PREPROCESSING_VERSION:
            raise RuntimeError(f"The model needs preprocessing version {self.facts['preprocessing_version']}.")
        typer = _typer_beside(self.facts["name"])
        self._typer_facts = None if typer is None else typer.facts
        self._engine = engine_for(folder, self.facts["name"], self.facts["architecture"], properties, typer)
        self.profile: Profile = {
            **self._engine.profile,
            "preprocessing": PREPROCESSING_VERSION,
            "pneumoserve": pneumoserve.__version__,
            "numpy": np.__version__,
        }

    def scores(self, films: Sequence[Pixels]) -> list[Score]:
        """One score for each film of shape [224, 224]."""
        return [self._score(raw) for raw in self._engine.outputs(films)]

    def _score(self, raw: Raw) -> Score:
        return Score(
            _calibrate(self.facts, raw.logit),
            raw.logit,
            self.profile,
            None if raw.chest_logit is None else _sigmoid(raw.chest_logit),
            self._typer_score(raw.typer_logit),
        )

    def _typer_score(self, logit: float | None) -> Score | None:
        if self._typer_facts is None or logit is None:
            return None
        return Score(_calibrate(self._typer_facts, logit), logit, self.profile)


def _typer_beside(name: str) -> Packed | None:
    """The typer beside a detector that runs in TorchServe."""
    mar = os.environ.get(TYPER_MAR)
    return None if mar is None or name != DETECTOR else Packed.read_mar(Path(mar), TYPER)


def _calibrate(facts: dict[str, Any], logit: float) -> float:
    return _sigmoid(facts["calibration"]["slope"] * logit + facts["calibration"]["intercept"])


def _sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)) without overflow."""
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))
