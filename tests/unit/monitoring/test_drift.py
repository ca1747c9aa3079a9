"""Drift: what alarms, what explains it, and which studies are compared at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from pneumoserve.decision import STOPPED
from pneumoserve.ids import uuid7
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
from pneumoserve.records import (
    Baseline,
    DriftWindow,
    FolderTarget,
    Incident,
    Record,
    StopBook,
    Stopping,
    append,
    export,
    read_entries,
)
from pneumoserve.signing import generate_key, load_trust, write_public_key
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.commands import Ran, invoke, use_store
from tests.support.drift import POLICY, START, record
from tests.support.entries import RELEASE

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
    monkeypatch.setattr(module, "_RESOLUTION", 1)


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


@pytest.mark.slow
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


def history_of(entries: Sequence[Record | Baseline], site: str | None = None) -> dict[Source, list[Study]]:
    return read_history(entries, RELEASE, POLICY, site).studies


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
    (baseline,) = choose_baselines(read_history(before, RELEASE, POLICY), "lead", "first of this release", START)
    assert (baseline.studies, baseline.first, baseline.site) == (500, before[0].time, "pacs")
    (found,) = find_drift(read_history([*before, baseline, *after], RELEASE, POLICY), 0.5)
    assert [window.studies for window in found.windows] == [200, 200]
    assert (found.windows[0].first, found.windows[1].first) == (after[0].time, after[399].time)
    assert found.waiting == 52


def test_a_baseline_takes_enough_patients_of_one_source() -> None:
    entries = [record(minute, 0.2, patient=minute % 499) for minute in range(600)]
    with pytest.raises(DriftError, match=r"the archive has 499 of release .* Wait for 1 more"):
        choose_baselines(read_history(entries, RELEASE, POLICY), "lead", "why", START)


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


@pytest.mark.slow
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
    entries = read_entries(reader_of(store, State(tmp_path / "state").archive_key), None, RELEASE)
    (incident,) = (each for each in entries if isinstance(each, Incident))
    assert (incident.kind, incident.comment.partition(" to ")[0]) == ("drift", "pacs, CR: 200 studies")
    assert "1 of them unlike it" in drift().stdout


@pytest.mark.slow
def test_a_plan_stops_the_release_on_record_once_and_a_person_resumes_it(
    run: tuple[Run, MemoryStore], tmp_path: Path
) -> None:
    drift, store = run
    state, plan = State(tmp_path / "state"), tmp_path / "stop.yaml"
    write_public_key(generate_key(tmp_path / "lead.pem"), state.trust)
    stopping = Stopping(load_trust(state.trust), state.archive_key.public_key())
    plan.write_text("drift: {alarm: any, windows: 2, looks: 2}")
    drift("--renew", "--by", "lead", "--why", "first")
    later = [record(2000 + minute, 0.4 + minute % 100 / 1000) for minute in range(600)]
    append(store, state.archive_key, later[:399], "front")
    assert drift("--plan", str(plan)).returncode == 1
    assert StopBook(store, RELEASE).list_standing(stopping) == []
    append(store, state.archive_key, later[399:], "front")
    for _ in range(2):
        assert drift("--plan", str(plan)).returncode == 1
    (stop,) = StopBook(store, RELEASE).list_standing(stopping)
    entries = list(read_entries(reader_of(store, state.archive_key), None, RELEASE))
    assert stop in entries
    made = sorted((each for each in entries if isinstance(each, DriftWindow)), key=lambda each: each.first)
    windows = [each.drift_id for each in made]
    # Three alarms beside one baseline are one thing to look into.
    assert len([each for each in entries if isinstance(each, Incident)]) == 1
    assert (stop.evidence, len(windows), stop.plan is None) == (tuple(windows[:2]), 3, False)
    act = ["--by", "lead", "--why", "mended", "--key", str(tmp_path / "lead.pem"), "--state", str(state.folder)]
    resumed = invoke(["release", "resume", RELEASE, *act], {})
    assert (resumed.returncode, f"ended: {stop.stop_id}" in resumed.stdout) == (0, True)
    drift("--plan", str(plan))
    assert StopBook(store, RELEASE).list_standing(stopping) == []
    assert invoke(["release", "resume", RELEASE, *act], {}).returncode == 2
    # A name that no front serves would stop nothing, without a word.
    assert invoke(["release", "stop", "919e240e7590", *act], {}).returncode == 2
    assert invoke(["release", "stop", RELEASE, *act, "--evidence", windows[0]], {}).returncode == 0
    (by_hand,) = StopBook(store, RELEASE).list_standing(stopping)
    assert (by_hand.by, by_hand.plan, by_hand.evidence) == ("lead", None, (windows[0],))


def test_the_exit_code_tells_that_a_plan_is_spent(run: tuple[Run, MemoryStore], tmp_path: Path) -> None:
    drift, store = run
    (tmp_path / "stop.yaml").write_text("drift: {alarm: any, windows: 1, looks: 1}")
    drift("--renew", "--by", "lead", "--why", "first")
    alike = [record(2000 + minute, 0.05 + minute % 100 / 1000) for minute in range(400)]
    append(store, State(tmp_path / "state").archive_key, alike, "front")
    ran = drift("--plan", str(tmp_path / "stop.yaml"))
    assert (ran.returncode, ran.stderr) == (
        1, "All 1 looks of the plan are taken, so it stops nothing more for pacs, CR; renew the baseline.",
    )  # fmt: skip


def test_a_stopped_answer_counts_by_what_its_scores_would_have_been() -> None:
    """Else all referrals while a release is stopped would be drift for ever."""
    for probability, referred in ((0.05, False), (0.2, True)):
        stopped = record(1, probability, stop=uuid7(), decision=STOPPED)
        (study,) = history_of([stopped])[Source("pacs", "CR")]
        assert study.referred is referred


def test_an_export_shows_the_same(run: tuple[Run, MemoryStore], tmp_path: Path) -> None:
    drift, store = run
    export(reader_of(store, State(tmp_path / "state").archive_key), FolderTarget(tmp_path / "export"))
    shown = drift("--export", str(tmp_path / "export"))
    assert (shown.returncode, shown.stdout) == (0, drift().stdout)
    assert "600 studies, and no baseline" in shown.stdout
    missing = drift("--export", str(tmp_path / "none"))
    assert (missing.returncode, "holds no export" in missing.stderr) == (2, True)


def test_what_cannot_be_compared_is_said_in_words(run: tuple[Run, MemoryStore]) -> None:
    drift, _ = run
    ran = drift("--release", "ffffffffffff")
    assert (ran.returncode, ran.stderr.partition(" here")[0]) == (2, "There is no release ffffffffffff")
    assert "no answers of release" in drift("--site", "nobody").stdout
    few = drift("--since", "2026-05-02", "--renew", "--by", "lead", "--why", "why")
    assert few.returncode == 1
    assert "Wait for 500 more" in few.stderr
