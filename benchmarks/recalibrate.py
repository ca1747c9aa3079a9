"""How a policy that is fitted to half of a source does on the other half; writes recalibrate.json beside this file.

Run it with `python -m benchmarks.recalibrate`, or with the folder of a run that held out a source, to take that run's
scores (`oof.parquet`). The scores beside this file are of a run that never saw the normal films named NORMAL2-IM-:

    pneumoserve train --dataset kermany224 --out RUN --hold-out prefix:NORMAL2-IM- --exclude none --no-audit --threads 1

The pneumonias are those of its calibration fold, which the networks never saw either. Twenty times, the patients are
halved by chance; a policy is fitted to one half and measured on the other. So is one by training's rules, for
comparison.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.bench import publish
from pneumoserve.decision import Policy
from pneumoserve.release.schema import RunFacts
from training.fit import calibrate, judge, sigmoid
from training.policy import EvaluationSet, choose_policy
from training.scores import Scores, read_scores, write_scores
from training.site_policy import fit_site_policy

ROOT: Final = Path(__file__).parents[1]
SCORES: Final = Path(__file__).with_name("recalibrate.parquet")
SPLITS: Final = 20
# The sensitivity and specificity to reach are the least, the others the most.
GOALS: Final = {
    "sensitivity": 0.975,
    "specificity": 0.80,
    "confident_misses": 0.018,
    "confident_false_alarms": 0.045,
    "finding_referred_normals": 0.18,
    "finding_referred_pneumonias": 0.30,
}


def measure(source: Scores, facts: RunFacts) -> dict[str, Any]:
    """Mean, least and largest of each figure over the splits: of a site's policy, and of one by training's rules."""
    generator = np.random.default_rng(0)
    typer = facts.models[1].calibration
    fitted_to, by_site, by_training = [], [], []
    for _ in range(SPLITS):
        first = _half(source, generator)
        fitted = fit_site_policy(_rows(source, first), typer, facts.policy)
        fitted_to.append(len(set(source.patients[first & source.sick])))
        known, unknown = (calibrate(_rows(source, half), fitted.calibration, typer) for half in (first, ~first))
        by_site.append(_figures(unknown, fitted.policy))
        fold = EvaluationSet("half", sigmoid(known.detector), sigmoid(known.chest), known.sick, known.patients)
        by_training.append(_figures(unknown, choose_policy(fold, [])))
    return {
        "splits": SPLITS,
        "sick_patients_fitted_to": round(float(np.mean(fitted_to)), 1),
        "goals": GOALS,
        "site": _summarise(by_site),
        "training_rules": _summarise(by_training),
    }


def _summarise(found: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    columns = {name: np.array([each[name] for each in found]) for name in GOALS}
    ways = {"mean": np.mean, "least": np.min, "most": np.max}
    return {
        name: {word: round(float(way(values)), 4) for word, way in ways.items()} for name, values in columns.items()
    }


def _figures(scores: Scores, policy: Policy) -> dict[str, float]:
    verdicts = judge(scores, policy)
    sick, stated = scores.sick, ~verdicts.unsure & ~verdicts.refused
    return {
        "sensitivity": float(verdicts.called[sick].mean()),
        "specificity": float((~verdicts.called)[~sick].mean()),
        "confident_misses": float((~verdicts.called & stated)[sick].mean()),
        "confident_false_alarms": float((verdicts.called & stated)[~sick].mean()),
        "finding_referred_normals": float((~stated)[~sick].mean()),
        "finding_referred_pneumonias": float((~stated)[sick].mean()),
    }


def _half(scores: Scores, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Half of the patients with pneumonia, and half of those without."""
    first: set[str] = set()
    for chosen in (scores.sick, ~scores.sick):
        patients = np.unique(scores.patients[chosen])
        first |= set(generator.permutation(patients)[: len(patients) // 2])
    return np.array([patient in first for patient in scores.patients])


def _rows(scores: Scores, chosen: npt.NDArray[np.bool_]) -> Scores:
    items = [item for item, is_chosen in zip(scores.items, chosen, strict=True) if is_chosen]
    return Scores(items, scores.detector[chosen], scores.typer[chosen], scores.chest[chosen])


def keep_scores(run: Path) -> None:
    """Keep the scores of a run that held out a source: what it held out, and pneumonias of its calibration fold."""
    groups = read_scores(run / "oof.parquet")
    held_out = next(scores for name, scores in groups.items() if name != "calibration")
    fold = groups["calibration"]
    parts = [held_out] if held_out.sick.any() else [_rows(fold, fold.sick), held_out]
    write_scores(SCORES, {"site": Scores.concatenate(parts)})


def main() -> None:
    """Measure, and write the result beside this file."""
    if len(sys.argv) > 1:
        keep_scores(Path(sys.argv[1]))
    facts = RunFacts.model_validate_json((ROOT / "model-store" / "reference" / "run.json").read_bytes())
    publish("recalibrate", "python -m benchmarks.recalibrate", measure(read_scores(SCORES)["site"], facts))


if __name__ == "__main__":
    main()
