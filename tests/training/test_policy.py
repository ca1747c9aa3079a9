"""Thresholds hold on every evaluation set; figures are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from pneumoserve.binomial import lower_limit
from pneumoserve.release.schema import Calibration, RunFacts
from tests.training.test_training import item
from training.fit import calibrate, ece, ece_of_perfection, fit_platt, is_referred, measure, slope_and_intercept
from training.policy import EvaluationSet, choose_policy
from training.reference_runs import ReferenceRun
from training.scores import Scores, auc


def scored(name: str, seed: int, shift: float = 0.0, count: int = 900) -> EvaluationSet:
    draw = np.random.default_rng(seed)
    sick = draw.random(count) < 0.6
    logits = np.where(sick, 4.0, -4.0) + draw.normal(shift, 2.0, count)
    chest = 6.0 + draw.normal(0, 2, count)
    patients = np.array([f"p{number}" for number in draw.integers(0, count // 2, count)])
    return EvaluationSet(name, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-chest)), sick, patients)


@pytest.mark.parametrize("seed", range(5))
def test_every_rate_holds_on_every_set(seed: int) -> None:
    sets = [
        scored("fold", seed),
        scored("brighter", seed + 10, 1.5),
        scored("darker", seed + 20, -1.5),
    ]
    policy = choose_policy(sets[0], sets[1:])
    for each in sets:
        ill, well = each.pneumonia[each.sick], each.pneumonia[~each.sick]
        assert (ill < policy.detector_band.low).mean() <= (0.005 if each is sets[0] else 0.01)
        assert (well >= policy.detector_band.high).mean() <= 0.03
        assert (each.chest < policy.chest_threshold).mean() <= 0.01
        missed = int((ill < policy.detector_threshold).sum())
        assert lower_limit(len(ill) - missed, len(ill), 0.05) >= 0.96
    fold = sets[0]
    missed_patients = {*fold.patients[fold.sick & (fold.pneumonia < policy.detector_threshold)]}
    count = len({*fold.patients[fold.sick]})
    assert lower_limit(count - len(missed_patients), count, 0.05) >= 0.96
    for decided in ("brighter", "darker"):
        assert decided in policy.why


def test_a_set_that_is_worse_moves_the_policy_its_way() -> None:
    alone = choose_policy(scored("fold", 0), [])
    bound = choose_policy(scored("fold", 0), [scored("other", 1, -2.0)])
    assert bound.detector_threshold < alone.detector_threshold
    assert bound.detector_band.low < alone.detector_band.low


def test_a_patient_is_missed_if_any_film_is() -> None:
    scores = np.array([0.1] + [0.9] * 399)
    chest = np.full(400, 0.9)

    def threshold(patients: int) -> float:
        names = np.array([f"p{number % patients}" for number in range(400)])
        return choose_policy(EvaluationSet("x", scores, chest, np.ones(400, bool), names), []).detector_threshold

    assert threshold(400) == pytest.approx(0.9)
    # One film missed of four patients is a quarter of them, and none may be.
    assert threshold(4) == pytest.approx(0.1)


def drawn(count: int = 3000, stated_slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that follow them but for a slope."""
    draw = np.random.default_rng(3)
    logits = draw.normal(0, 2, count)
    labels = draw.random(count) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-logits * stated_slope)), labels


def test_calibration_figures_tell_a_model_that_is_too_sure() -> None:
    honest, labels = drawn()
    too_sure, _ = drawn(stated_slope=2.5)
    slope, intercept = slope_and_intercept(honest, labels, balanced=False)
    assert (slope, intercept) == (pytest.approx(1, abs=0.1), pytest.approx(0, abs=0.1))
    assert slope_and_intercept(too_sure, labels, balanced=False)[0] == pytest.approx(0.4, abs=0.05)
    perfect = ece_of_perfection(honest, labels, balanced=False)
    assert ece(honest, labels, balanced=False) == pytest.approx(perfect, abs=0.01)
    assert ece(too_sure, labels, balanced=False) > 3 * perfect


def test_where_every_draw_is_of_one_class_there_is_no_perfect_calibration_to_tell() -> None:
    assert np.isnan(ece_of_perfection(np.zeros(4), np.array([True, False, False, True]), balanced=False))


def test_platt_scaling_finds_the_line_again() -> None:
    honest, labels = drawn()
    logits = np.log(honest / (1 - honest))
    found = fit_platt(logits / 3 - 1, labels, balanced=False)
    assert (found.slope, found.intercept) == (pytest.approx(3, abs=0.4), pytest.approx(3, abs=0.4))


def test_scores_of_another_run_come_onto_the_scale_of_this_one() -> None:
    """The other run's network is twice as sure and leans to pneumonia; it lacks a film that this one has."""
    ours = np.linspace(-6, 6, 41, dtype=np.float32)
    films = [item(f"p{n}", "calibration", f"{n}") for n in range(41)]
    fold = Scores(films, ours, ours, ours)
    theirs = Scores(films[1:], 2 * ours[1:] + 3, ours[1:], ours[1:] - 1)
    unseen = np.array([-1.5, 0.3, 7.0], dtype=np.float32)
    held = Scores([item(f"q{n}", "train", f"q{n}") for n in range(3)], 2 * unseen + 3, unseen, unseen - 1)
    reference = ReferenceRun(RunFacts.model_construct(), theirs, held)
    mapped = reference.on_scale_of(fold)
    # Beyond the highest film that both scored nothing is known but the distance from it.
    assert mapped.detector == pytest.approx([-1.5, 0.3, 6 + 2 * (7 - 6)], abs=1e-5)
    assert mapped.typer == pytest.approx(unseen)
    assert mapped.chest == pytest.approx(unseen)
    assert mapped.items == held.items


def test_the_auc_counts_ties_as_halves() -> None:
    labels = np.array([True, True, False, False])
    assert auc(labels, np.array([3, 1, 1, 0])) == 0.875
    assert np.isnan(auc(np.ones(3, bool), np.arange(3)))


def test_figures_are_those_of_the_policy() -> None:
    policy = choose_policy(scored("fold", 0), []).model_copy(update={"detector_threshold": 0.5, "chest_threshold": 0.5})
    policy = policy.model_copy(
        update={
            "detector_band": policy.detector_band.model_copy(update={"low": 0.25, "high": 0.75}),
            "typer_band": policy.typer_band.model_copy(update={"low": 0.5, "high": 0.5}),
        }
    )
    # normal: right, uncertain, alarmed; sick: missed, found, found but of the other type, no chest film by the gate
    films = [item(f"p{n}", "calibration", f"{n}", "normal" if n < 3 else "bacterial") for n in range(6)]
    films.append(item("p6", "calibration", "6", "viral"))
    logits = np.array([-3, 0.5, 3, -3, 3, 3, 3], dtype=np.float32)
    typer = np.array([0, 0, 0, 0, 3, -3, 3], dtype=np.float32)
    chest = np.array([9, 9, 9, 9, 9, 9, -9], dtype=np.float32)
    scores = Scores(films, logits, typer, chest)
    found = {name: metric.value for name, metric in measure(scores, "x", policy).items()}
    assert found["x/detector_sensitivity"] == 0.75
    assert found["x/detector_specificity"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["x/confident_normal_among_pneumonias"] == 0.25
    assert found["x/confident_pneumonia_among_normals"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["x/not_a_chest_film"] == pytest.approx(1 / 7, abs=1e-4)
    assert found["x/referred"] == pytest.approx(2 / 7, abs=1e-4)
    assert found["x/typer_accuracy_where_stated"] == 0.5
    assert is_referred(scores, policy).tolist() == [False, True, False, False, False, False, True]
    half = calibrate(scores, Calibration(slope=0.5, intercept=0), Calibration(slope=1, intercept=1))
    assert half.detector[0] == -1.5
    assert half.typer[0] == 1
