"""How often drift alarms falsely, how much hangs on the baseline, what it finds; writes drift.json beside this file.

Run it with `python -m benchmarks.drift DATASET`, on the films that the reference release was trained with: the scores
of its calibration fold, which never trained, are the population. Studies are drawn from it with replacement, 10 % of
them sick. Goals: at most 1.5 % of windows alarm where nothing changed, and at most 10 % of baselines have more than
2 % of such windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from benchmarks.bench import console, publish
from pneumoserve.decision import Policy
from pneumoserve.monitoring.drift import (
    BASELINE_STUDIES,
    FALSE_ALARMS,
    WINDOW_STUDIES,
    Comparison,
    Studies,
    compare_studies,
)
from pneumoserve.names import DETECTOR
from pneumoserve.release.schema import RunFacts
from training.export import Graph
from training.scores import read_scores
from training.shifts import SHIFTS, Shift
from training.source import open_dataset, read_films

REFERENCE: Final = Path(__file__).parents[1] / "model-store" / "reference"
SICK_SHARE: Final = 0.1
BASELINES: Final = 40
WINDOWS: Final = 100
CHANGED_WINDOWS: Final = 60
CHANGES: Final = ("JPEG quality 20", "brightness -20 %", "rotation +5°", "resize 50 %", "contrast +20 %")
_LEAST: Final = 1e-6


class Population:
    """Films to draw studies from: calibrated logits, the gate's, whether they are referred, and who is sick."""

    def __init__(self, facts: RunFacts, detector: npt.NDArray[Any], chest: npt.NDArray[Any], sick: Any) -> None:
        calibration, policy = facts.models[0].calibration, facts.policy
        self.logit = calibration.slope * detector.astype(float) + calibration.intercept
        probability = 1 / (1 + np.exp(-self.logit))
        self.chest = logit(np.clip(1 / (1 + np.exp(-chest.astype(float))), _LEAST, 1 - _LEAST))
        self.referred = _is_referred(policy, probability, self.chest)
        self._places = {True: np.flatnonzero(sick), False: np.flatnonzero(~sick)}

    def draw(self, count: int, sick_share: float, rng: np.random.Generator) -> Studies:
        """So many studies, a share of them sick."""
        sick = int(rng.binomial(count, sick_share))
        chosen = np.concatenate([rng.choice(self._places[True], sick), rng.choice(self._places[False], count - sick)])
        return Studies(self.logit[chosen], self.chest[chosen], self.referred[chosen])


def _is_referred(policy: Policy, probability: Any, chest: Any) -> Any:
    band = policy.detector_band
    is_strange = chest < logit(policy.chest_threshold or _LEAST)
    return ((probability > band.low) & (probability < band.high)) | is_strange


def compare(
    before: Population, after: Population, sick_share: float, windows: int, rng: np.random.Generator
) -> list[Comparison]:
    """A new baseline, and windows compared with it."""
    baseline = before.draw(BASELINE_STUDIES, SICK_SHARE, rng)
    return [
        compare_studies(baseline, after.draw(WINDOW_STUDIES, sick_share, rng), 0.5, 1, int(rng.integers(2**31)))
        for _ in range(windows)
    ]


def measure_false_alarms(population: Population, rng: np.random.Generator) -> dict[str, Any]:
    """Alarms where nothing changed, over baselines."""
    rates = []
    for number in range(BASELINES):
        found = compare(population, population, SICK_SHARE, WINDOWS, rng)
        rates.append(sum(each.alarm for each in found) / WINDOWS)
        console.print(f"baseline {number + 1} of {BASELINES}: {rates[-1]:.0%} false alarms")
    return {
        "windows": BASELINES * WINDOWS,
        "rate": round(float(np.mean(rates)), 4),
        "aimed_at": FALSE_ALARMS,
        "worst_baseline": max(rates),
        "baselines_above_2_percent": round(float(np.mean([rate > 0.02 for rate in rates])), 3),
    }


def measure_power(
    before: Population, after: Population, sick_share: float, rng: np.random.Generator
) -> dict[str, float]:
    """How often a change alarms, and how often each cause is named then. A new baseline for each six windows."""
    found = [each for _ in range(CHANGED_WINDOWS // 6) for each in compare(before, after, sick_share, 6, rng)]
    alarms = [each for each in found if each.alarm]
    named = sum(each.cause == "images" for each in alarms)
    return {
        "alarms": round(len(alarms) / len(found), 3),
        "named_images": round(named / len(alarms), 3) if alarms else 0.0,
    }


def score_population(facts: RunFacts, dataset: str) -> Callable[[Shift | None], Population]:
    """Gives the fold's films after a shift, as the release scores them."""
    fold = read_scores(REFERENCE / "oof.parquet")["calibration"]
    whole, read = open_dataset(dataset)
    wanted = {item.sha256 for item in fold.items}
    films = read_films([item for item in whole.items if item.sha256 in wanted], read, "reading films")
    sick = np.array([item.cls != "normal" for item in films.items])
    graph = Graph(REFERENCE / "weights" / f"{DETECTOR}.onnx")

    def score(shift: Shift | None) -> Population:
        pixels = films.pixels if shift is None else np.stack([shift(film) for film in films.pixels])
        return Population(facts, *graph.outputs(pixels, "scoring films"), sick)

    return score


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="the folder of the films that the reference was trained with")
    facts = RunFacts.model_validate_json((REFERENCE / "run.json").read_bytes())
    score = score_population(facts, parser.parse_args().dataset)
    rng = np.random.default_rng(1)
    usual = score(None)
    figures: dict[str, Any] = {"false_alarms": measure_false_alarms(usual, rng)}
    figures["changes"] = {
        "a winter: 30 % sick": measure_power(usual, usual, 0.3, rng),
        **{name: measure_power(usual, score(SHIFTS[name]), SICK_SHARE, rng) for name in CHANGES},
    }
    publish("drift", "python -m benchmarks.drift DATASET", figures)


if __name__ == "__main__":
    main()
