"""`pneumoserve metrics --plan`: looks go on record, and a figure beyond its limit stops the release."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pneumoserve.cli import reviews
from pneumoserve.cli.reviews import Review
from pneumoserve.local.state import State
from pneumoserve.records import MetricsLook, ReleaseStop, StopBook, Stopping, read_entries
from pneumoserve.release import fetch
from pneumoserve.review import ReviewDatabase
from pneumoserve.signing import generate_key, load_trust, write_public_key
from tests.support.archives import reader_of
from tests.support.commands import Ran, invoke, use_store
from tests.support.entries import KEY, RELEASE
from tests.support.metrics import DAY, POLICY, read_ward
from tests.support.reviews import Ward

Run = Callable[..., Ran]
# Of 174 studies 30 are referred: looks 1 to 3 of 4 are due.
SINCE = (DAY - timedelta(days=5)).date()
KEPT, PASSED = "productSensitivity: 0.5, referralRate: 0.5", "referralRate: 0.05"


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}"))
    read_ward(ward, capacity=500)
    yield ward
    ward.database.close()


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.make()
    write_public_key(generate_key(tmp_path / "lead.pem"), state.trust)
    return state


@pytest.fixture
def run(ward: Ward, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    @contextlib.contextmanager
    def review_of(*_: object) -> Iterator[Review]:
        reader = reader_of(ward.store, KEY, state.archive_key)
        ward.database.follow(reader)
        yield Review(ward.database, reader, ward.store)

    use_store(ward.store, monkeypatch)
    monkeypatch.setattr(reviews, "review_of", review_of)
    monkeypatch.setattr(fetch, "find_policy", lambda *_: POLICY)

    def typed(limits: str, *words: str, site: str = "") -> Ran:
        rule = f"metrics: {{since: {SINCE}, days: 30, looks: 4, limits: {{{limits}}}}}\n"
        (tmp_path / "stop.yaml").write_text(rule + site)
        plan = ["--plan", str(tmp_path / "stop.yaml"), "--state", str(state.folder)]
        return invoke(["metrics", *(words or ("--release", RELEASE)), *plan], {})

    return typed


def on_record(ward: Ward, state: State) -> tuple[list[MetricsLook], list[ReleaseStop]]:
    entries = list(read_entries(reader_of(ward.store, KEY, state.archive_key), None, RELEASE))
    looks = [each for each in entries if isinstance(each, MetricsLook)]
    return looks, [each for each in entries if isinstance(each, ReleaseStop)]


def test_a_release_that_keeps_its_limits_goes_on_and_each_look_is_on_record_once(
    run: Run, ward: Ward, state: State
) -> None:
    for _ in range(2):
        ran = run(KEPT)
        assert (ran.returncode, "Sensitivity, product" in ran.stdout) == (0, True), ran.stderr
    looks, stops = on_record(ward, state)
    assert (sorted(each.look for each in looks), stops) == ([1, 2, 3], [])
    assert {(each.studies, each.readings) for each in looks} == {(174, 173)}
    assert all(each.results[0].bound > 0.9 for each in looks if each.results[0].bound is not None)


def test_a_figure_beyond_its_limit_stops_the_release_once_until_a_person_resumes_it(
    run: Run, ward: Ward, state: State, tmp_path: Path
) -> None:
    for _ in range(2):
        ran = run(PASSED)
        assert ran.returncode == 1
        assert "A figure is beyond the limit of the plan" in ran.stderr
    looks, (stop,) = on_record(ward, state)
    assert (len(looks), stop.evidence, stop.plan) == (
        3,
        (min(looks, key=lambda each: each.look).look_id,),
        looks[0].plan,
    )
    assert stop.why == "look 1 of 4 shows referral_rate beyond the limit"
    stopping = Stopping(load_trust(state.trust), state.archive_key.public_key())
    assert StopBook(ward.store, RELEASE).list_standing(stopping) == [stop]
    act = ["--by", "lead", "--why", "seen", "--key", str(tmp_path / "lead.pem"), "--state", str(state.folder)]
    assert invoke(["release", "resume", RELEASE, *act], {}).returncode == 0
    assert run(PASSED).returncode == 0
    assert StopBook(ward.store, RELEASE).list_standing(stopping) == []
    # Another plan has looks of its own, at what was answered after the person had seen the rest.
    assert run("referralRate: 0.06").returncode == 0
    assert {each.studies for each in on_record(ward, state)[0] if each.plan != stop.plan} == {0}


def test_the_exit_code_tells_that_a_plan_is_spent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.review.test_metrics_plan.SINCE", SINCE - timedelta(days=30))
    ran = run(KEPT)
    assert (ran.returncode, "All 4 looks of the plan are taken" in ran.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "site", "sentence"),
    [
        (["--json"], "", "name it with --release"),
        (["--release", RELEASE, "--export", "."], "", "leave --export out"),
        (["--release", RELEASE], "site: nowhere\n", "those that studies came from: hospital-a"),
    ],
)
def test_what_cannot_be_followed_is_said_and_leaves_nothing(
    run: Run, ward: Ward, state: State, words: list[str], site: str, sentence: str
) -> None:
    ran = run(KEPT, *words, site=site)
    assert (ran.returncode, sentence in ran.stderr) == (2, True), ran.stderr
    assert on_record(ward, state) == ([], [])
