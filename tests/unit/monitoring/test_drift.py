"""Drift: what alarms, what explains it, and which studies are compared at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from pneumoserve.decision import Band, Policy, Population
from pneumoserve.local.state import State
from pneumoserve.monitoring import drift as module
from pneumoserve.monitoring.drift import Studies, compare_studies, estimate_log_odds
from pneumoserve.monitoring.drift_watch import (
    DriftError,
    Source,
    Study,
    choose_baselines,
    find_drift,
    read_history,
)
from pneumoserve.names import DETECTOR
from pneumoserve.records import Baseline, CallDetail, Record, append
from pneumoserve.store import MemoryStore
from tests.support.commands import Ran, invoke, use_store
from tests.support.entries import RELEASE, id_made, prediction, use

START = datetime(2026, 5, 1, tzinfo=UTC)
POLICY = Policy(
    detector_threshold=0.3, detector_band=Band(low=0.1, high=0.8), typer_threshold=0.5,
    typer_band=Band(low=0.4, high=0.6), assumed_prevalence=0.5, why="",
    population=Population(min_age_years=1, below_age_years=6, unknown_dicom_age="refer"),
)  # fmt: skip
# How far apart the sick and the well lie, in standard deviations: an AUC of .97.
_APART = 2.66
Run = Callable[..., Ran]


def draw_studies(count: int, sick_share: float, seed: int, shift: float = 0.0) -> Studies:
    """Scores by a binormal model, calibrated for half of the patients sick; `shift` moves what the gate says."""
    rng = np.random.default_rng(seed)
    sick = rng.random(count) < sick_share
    logit = _APART * (rng.standard_normal(count) + _APART * sick) - _APART**2 / 2
    probability = expit(logit)
    return Studies(logit, 4 + shift + rng.standard_normal(count), (probability > 0.1) & (probability < 0.9))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESAMPLES", 199)


def test_like_studies_do_not_alarm() -> None:
    results = [
        compare_studies(draw_studies(1000, 0.05, seed), draw_studies(200, 0.05, 1000 + seed), 0.5, 1, seed)
        for seed in range(5)
    ]
    assert not any(result.alarm or result.cause for result in results)


def test_a_winter_is_a_change_of_case_mix() -> None:
    result = compare_studies(draw_studies(1000, 0.1, 1), draw_studies(200, 0.4, 2), 0.5, 1, 3)
    assert (result.alarm, result.cause) == (True, "case_mix")
    assert result.baseline_share == pytest.approx(0.1, abs=0.04)
    assert result.sick_share == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("sick_share", [0.1, 0.4])
def test_other_images_are_named_as_such_whatever_the_case_mix(sick_share: float) -> None:
    result = compare_studies(draw_studies(1000, 0.1, 1), draw_studies(200, sick_share, 2, shift=-1.5), 0.5, 1, 3)
    assert (result.alarm, result.cause) == (True, "images")


def test_more_referrals_alone_alarm() -> None:
    baseline, window = draw_studies(1000, 0.1, 1), draw_studies(200, 0.1, 2)
    referring = Studies(window.logit, window.chest, window.referred | (np.arange(200) % 4 == 0))
    assert compare_studies(baseline, referring, 0.5, 1, 3).alarm
    assert not compare_studies(baseline, window, 0.5, 1, 3).alarm


def test_many_sources_share_one_rate_of_false_alarms() -> None:
    baseline, window = draw_studies(1000, 0.1, 1), draw_studies(200, 0.29, 6)
    alone, among_many = (compare_studies(baseline, window, 0.5, groups, 3) for groups in (1, 20))
    assert alone.scores_p == among_many.scores_p
    assert (alone.alarm, among_many.alarm) == (True, False)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("assumed", [0.5, 0.1])
def test_the_share_of_sick_patients_is_found_from_scores_that_assume_another(share: float, assumed: float) -> None:
    logit = draw_studies(20_000, share, 1).logit + np.log(assumed / (1 - assumed))
    assert expit(estimate_log_odds(logit, assumed)) == pytest.approx(share, abs=0.01)


def record(
    minute: int, probability: float, patient: int | None = None, subject: str = "pacs", **changes: object
) -> Record:
    made = prediction(id_made(START + timedelta(minutes=minute)), typed=False)
    call: CallDetail = made.call.model_copy(
        update={"subject": subject, "patient": None if patient is None else f"{patient:064x}"}
    )
    gate = use(DETECTOR, probability).model_copy(update={"chest_probability": 0.98})
    return made.model_copy(update={"call": call, "models": (gate,), **changes})


def history_of(entries: Sequence[Record | Baseline], site: str | None = None) -> dict[Source, list[Study]]:
    return read_history(entries, RELEASE, site).studies


def test_only_live_answers_of_the_release_and_the_site_count() -> None:
    entries = [
        record(1, 0.2),
        record(2, 0.2, subject="other"),
        record(3, 0.2, arm="shadow"),
        record(4, 0.2, release="ba9876543210"),
        record(5, 0.2, models=()),
    ]
    assert {source: len(studies) for source, studies in history_of(entries).items()} == {
        Source("pacs", "CR"): 1, Source("other", "CR"): 1,
    }  # fmt: skip
    assert list(history_of(entries, "pacs")) == [Source("pacs", "CR")]


def test_images_of_a_study_count_as_one_and_the_sickest_speaks() -> None:
    call = record(1, 0.2).call.model_copy(update={"study": "5" * 64})
    (study,) = history_of([record(2, 0.1, call=call), record(1, 0.9, call=call)])[Source("pacs", "CR")]
    assert study.logit == pytest.approx(np.log(9))
    assert study.time == record(1, 0.9).time


def test_a_patient_counts_once_in_a_window_and_windows_do_not_overlap() -> None:
    before = [record(minute, 0.1 + 0.001 * minute) for minute in range(500)]
    after = [record(1000 + minute, 0.3, patient=minute // 2) for minute in range(900)]
    (baseline,) = choose_baselines(read_history(before, RELEASE), "lead", "first of this release", START)
    assert (baseline.studies, baseline.first, baseline.site) == (500, before[0].time, "pacs")
    (found,) = find_drift(read_history([*before, baseline, *after], RELEASE), 0.5)
    assert [window.studies for window in found.windows] == [200, 200]
    assert (found.windows[0].first, found.windows[1].first) == (after[0].time, after[399].time)
    assert found.waiting == 52


def test_a_baseline_takes_enough_patients_of_one_source() -> None:
    entries = [record(minute, 0.2, patient=minute % 499) for minute in range(600)]
    with pytest.raises(DriftError, match=r"the archive has 499 of release .* Wait for 1 more"):
        choose_baselines(read_history(entries, RELEASE), "lead", "why", START)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, MemoryStore]:
    """Runs `pneumoserve drift WORDS…` on a store in memory."""
    store, state = MemoryStore(), State(tmp_path / "state")
    state.make()

    use_store(store, monkeypatch)
    monkeypatch.setattr("pneumoserve.release.fetch.find_policy", lambda name, *_: POLICY if name == RELEASE else None)

    def typed(*words: str) -> Ran:
        return invoke(["drift", "--release", RELEASE, *words, "--state", str(state.folder)], {})

    append(store, state.archive_key, [record(minute, 0.05 + minute % 100 / 1000) for minute in range(600)], "front")
    return typed, store


def test_a_person_chooses_a_baseline_and_an_alarm_goes_on_record_once(
    run: tuple[Run, MemoryStore], tmp_path: Path
) -> None:
    drift, store = run
    assert "600 studies, and no baseline" in drift().stdout
    assert drift("--renew").returncode == 2
    assert "600 studies from 2026-05-01" in drift("--renew", "--by", "lead", "--why", "first").stdout
    assert "0 windows since the baseline" in drift().stdout
    later = [record(2000 + minute, 0.4 + minute % 100 / 1000) for minute in range(250)]
    append(store, State(tmp_path / "state").archive_key, later, "front")
    written = len(list(store.list("records/")))
    for _ in range(2):
        ran = drift("--json")
        assert ran.returncode == 1
        (source,) = json.loads(ran.stdout)
        assert (source["site"], source["source"], source["waiting"]) == ("pacs", "CR", 50)
        (window,) = source["windows"]
        assert (window["alarm"], window["first"]) == (True, later[0].time)
    assert len(list(store.list("records/"))) == written + 1
    assert "1 of them unlike it" in drift().stdout


def test_what_cannot_be_compared_is_said_in_words(run: tuple[Run, MemoryStore]) -> None:
    drift, _ = run
    ran = drift("--release", "ffffffffffff")
    assert (ran.returncode, ran.stderr.partition(" here")[0]) == (2, "There is no release ffffffffffff")
    assert "no answers of release" in drift("--site", "nobody").stdout
    few = drift("--since", "2026-05-02", "--renew", "--by", "lead", "--why", "why")
    assert few.returncode == 1
    assert "Wait for 500 more" in few.stderr
