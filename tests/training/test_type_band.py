"""Types are stated where they are wrong rarely enough, shown on patients that never trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumoserve.decision import Band, Policy, Population
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release.card import type_evidence
from pneumoserve.release.schema import RunFacts
from tests.training.test_training import item
from training import fit
from training.errors import TrainingError
from training.retype import retype
from training.scores import Scores, read_scores, write_scores
from training.type_band import WRONG_TYPES, choose_type_band, rate_by_patient, trade_off

POLICY = Policy(
    detector_threshold=0.5,
    detector_band=Band(low=0.25, high=0.75),
    typer_threshold=0.5,
    typer_band=Band(low=0, high=1),
    chest_threshold=0.5,
    population=Population(min_age_years=1, below_age_years=6, unknown_dicom_age="refer"),
    assumed_prevalence=0.5,
    why="to test with",
)


def drawn(patients: int, images: int = 2, seed: int = 0) -> Scores:
    """Pneumonias whose labels follow the typer's probabilities, two images a patient, and one normal image each."""
    draw = np.random.default_rng(seed)
    typer = draw.normal(0, 2, patients * images).astype(np.float32)
    bacterial = draw.random(len(typer)) < 1 / (1 + np.exp(-typer))
    items = [
        item(f"p{number % patients}", "calibration", f"{number}", "bacterial" if kind else "viral")
        for number, kind in enumerate(bacterial)
    ]
    normals = [item(f"p{number}", "calibration", f"n{number}", "normal") for number in range(patients)]
    detector = np.full(len(items) + patients, 9, dtype=np.float32)
    # All of one certain type: they would bring the error down if they counted.
    return Scores(items + normals, detector, np.append(typer, np.full(patients, 9, np.float32)), detector)


@pytest.mark.parametrize("seed", range(3))
def test_stated_types_are_wrong_as_rarely_as_the_policy_says(seed: int) -> None:
    scores = drawn(400, seed=seed)
    policy = choose_type_band(POLICY, scores)
    found, band = policy.type_evidence, policy.typer_band
    assert found is not None
    assert found.rate is not None
    assert found.bound is not None
    assert found.rate < found.bound <= found.target == WRONG_TYPES
    probability = 1 / (1 + np.exp(-scores.typer.astype(float)))
    stated = scores.sick & ((probability < band.low) | (probability >= band.high))
    wrong = ((probability >= 0.5) != scores.bacterial)[stated]
    assert (found.asked, found.images) == (800, stated.sum())
    assert found.patients == len({*scores.patients[stated]})
    assert wrong.mean() == pytest.approx(found.rate, abs=0.02)
    # A wider statement would not hold the rate.
    wider = next(each for each in trade_off(policy, scores) if each.least == round(band.high - 0.01, 2))
    assert wider.bound > WRONG_TYPES
    assert f"at least {band.high}" in type_evidence(policy)
    assert f"at most {WRONG_TYPES:.0%}" in type_evidence(policy)


def test_only_pneumonias_that_are_called_so_confidently_count() -> None:
    scores = drawn(400)
    unsure = Scores(scores.items, np.zeros_like(scores.detector), scores.typer, scores.chest)
    refused = Scores(scores.items, scores.detector, scores.typer, np.full_like(scores.chest, -9))
    for none in (unsure, refused):
        assert list(trade_off(POLICY, none)) == []


def test_with_too_few_patients_no_type_is_stated() -> None:
    policy = choose_type_band(POLICY, drawn(10, images=40))
    assert policy.typer_band == Band(low=0, high=1)
    assert policy.type_evidence is not None
    assert (policy.type_evidence.asked, policy.type_evidence.images) == (400, 0)
    assert "No type is stated" in type_evidence(policy)


def test_a_patient_counts_once_however_many_images_there_are() -> None:
    patients = np.array(["often"] * 96 + ["a", "b", "c", "d"])
    wrong = patients == "often"
    assert rate_by_patient(wrong, patients) == (pytest.approx(0.2), 5)


@pytest.fixture
def whole_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many replicates as the reference run's figures rest on."""
    monkeypatch.setattr(fit, "_REPLICATES", 1000)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_reference_run_is_what_the_command_makes_of_it(tmp_path: Path, whole_bootstrap: None) -> None:
    run = tmp_path / "run"
    shutil.copytree(REFERENCE_RUN, run)
    facts = json.loads((run / "run.json").read_bytes())
    facts["policy"] |= {"typer_band": {"low": 0.4497, "high": 0.5503}, "type_evidence": None}
    (run / "run.json").write_text(json.dumps(facts))
    before = facts["models"]
    retype(run)
    written, wanted = files_of(run), files_of(REFERENCE_RUN)
    del written["report/types.png"], wanted["report/types.png"]
    assert written == wanted
    assert json.loads(written["run.json"])["models"] == before


def test_scores_of_another_run_are_refused(tmp_path: Path, whole_bootstrap: None) -> None:
    run = tmp_path / "run"
    shutil.copytree(REFERENCE_RUN, run)
    before = (run / "run.json").read_bytes()
    groups: dict[str, Any] = read_scores(run / "oof.parquet")
    fold = groups["calibration"]
    write_scores(run / "oof.parquet", {"calibration": Scores(fold.items, fold.detector, fold.typer[::-1], fold.chest)})
    with pytest.raises(TrainingError, match="restore both"):
        retype(run)
    assert (run / "run.json").read_bytes() == before


def test_the_reference_run_states_its_error_rate() -> None:
    facts = RunFacts.model_validate_json((REFERENCE_RUN / "run.json").read_bytes())
    found = facts.policy.type_evidence
    assert found is not None
    assert found.bound is not None
    assert found.bound <= WRONG_TYPES
