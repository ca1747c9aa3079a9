"""One model, loaded: from prepared pixels to calibrated scores. TorchServe's handler and replay run this alike."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pneumoserve
from pneumoserve.imaging import PREPROCESSING_VERSION
from pneumoserve.models.engine import Pixels, Profile, engine_for


@dataclass(frozen=True)
class Score:
    """A model's answer for one film: calibrated probability, logit, and how it was computed.

    `chest_probability`: that it is an upright chest film at all, where the model has a gate that says so.
    """

    probability: float
    logit: float
    profile: Profile
    chest_probability: float | None = None


class Scorer:
    """A model in the folder of its unpacked MAR; `facts` is its model.json."""

    def __init__(self, folder: Path, properties: dict[str, Any]) -> None:
        """Load it on what TorchServe's `properties` name: a GPU, else the CPU.

        Raises:
            RuntimeError: it was made for another preprocessing version.
        """
        self.facts: dict[str, Any] = json.loads((folder / "model.json").read_text())
        if self.facts["preprocessing_version"] != PREPROCESSING_VERSION:
            raise RuntimeError(f"The model needs preprocessing version {self.facts['preprocessing_version']}.")
        self._engine = engine_for(folder, self.facts["name"], self.facts["architecture"], properties)
        self.profile: Profile = {
            **self._engine.profile,
            "preprocessing": PREPROCESSING_VERSION,
            "pneumoserve": pneumoserve.__version__,
            "numpy": np.__version__,
        }

    def scores(self, films: Sequence[Pixels]) -> list[Score]:
        """One score for each film of shape [224, 224]."""
        slope, intercept = self.facts["calibration"]["slope"], self.facts["calibration"]["intercept"]
        return [
            Score(
                _sigmoid(slope * raw.logit + intercept),
                raw.logit,
                self.profile,
                None if raw.chest_logit is None else _sigmoid(raw.chest_logit),
            )
            for raw in self._engine.outputs(films)
        ]


def _sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)) without overflow."""
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))
