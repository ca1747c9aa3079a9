"""Two arms of live calls: how often a good candidate is stopped, and how soon a bad one is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.decision import STOPPED
from pneumoserve.ids import uuid7
from pneumoserve.records import append
from pneumoserve.rollout.comparison import Arm, ComparisonSettings, ObservedCall, arm_of, compare, looks
from pneumoserve.rollout.tail import Tail
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.entries import prediction, refusal

SETTINGS = ComparisonSettings()
STABLE, CANDIDATE = "000000000001", "000000000002"
STEPS = 4
START = datetime(2026, 11, 26, tzinfo=UTC)


def arm(
    release: str,
    count: int,
    per_second: float,
    random: np.random.Generator,
    *,
    failing: float = 0.0,
    slower_ms: float = 0.0,
    referring: float = 0.2,
    shift: float = 0.0,
) -> Arm:
    """Calls at a rate, some of them failed; times are lognormal, median 120 ms; scores of two humps."""
    has_failed, is_referred = random.random(count) < failing, random.random(count) < referring
    times = random.lognormal(np.log(120), 0.3, count) + slower_ms
    scores = np.clip(random.beta(0.5, 0.5, count) + shift, 0, 1)
    calls = (
        ObservedCall(
            time=(START + timedelta(seconds=number / per_second)).isoformat(timespec="milliseconds"),
            failed=failed,
            milliseconds=milliseconds,
            referred=None if failed else referred,
            probability=None if failed else score,
        )
        for number, (failed, referred, milliseconds, score) in enumerate(
            zip(has_failed.tolist(), is_referred.tolist(), times.tolist(), scores.tolist(), strict=True)
        )
    )
    return Arm(release, tuple(calls))


def arms(seed: int, candidate_share: float, seconds: float, **otherwise: float) -> tuple[Arm, Arm]:
    """Both arms under ten calls a second."""
    random = np.random.default_rng(seed)
    rates = 10 * (1 - candidate_share), 10 * candidate_share
    return (
        arm(STABLE, int(rates[0] * seconds), rates[0], random),
        arm(CANDIDATE, int(rates[1] * seconds), rates[1], random, **otherwise),
    )


def failed(stable: Arm, candidate: Arm, settings: ComparisonSettings = SETTINGS) -> set[str]:
    return {each.gate for each in compare(stable, candidate, settings, STEPS) if each.outcome == "fail"}


@pytest.mark.slow
def test_a_good_candidate_is_stopped_no_more_often_than_stated() -> None:
    """A candidate at the very edge of what is tolerated, over all looks of a step, in the test that is the tightest."""
    settings = ComparisonSettings(falseAlarms=0.4, moreErrors=0.05)
    stopped = sum(bool(failed(*arms(seed, 0.5, 100, failing=0.05), settings)) for seed in range(100))
    # One of four steps has a quarter of .4; 100 trials of .1 are below 20 with a probability of .998.
    assert stopped < 20


def test_the_same_candidate_with_twice_the_errors_is_stopped() -> None:
    settings = ComparisonSettings(falseAlarms=0.4, moreErrors=0.05)
    assert all("errors" in failed(*arms(seed, 0.5, 200, failing=0.25), settings) for seed in range(20))


@pytest.mark.parametrize(
    ("gate", "seconds", "otherwise"),
    [
        ("errors", 60, {"failing": 0.5}),
        ("latency", 60, {"slower_ms": 1000}),
        ("referrals", 60, {"referring": 0.95}),
        # Distributions take more calls than shares.
        ("scores", 260, {"shift": 0.9}),
    ],
)
def test_what_is_plainly_worse_is_seen_soon_at_a_step_of_ten_percent(
    gate: str, seconds: float, otherwise: dict[str, float]
) -> None:
    assert all(gate in failed(*arms(seed, 0.1, seconds, **otherwise)) for seed in range(20))


def test_five_hundreds_are_seen_within_a_minute_of_a_step_of_one_percent() -> None:
    assert all("errors" in failed(*arms(seed, 0.01, 60, failing=1.0)) for seed in range(20))


def test_too_little_is_no_pass() -> None:
    stable, candidate = arms(1, 0.1, 3)
    assert {each.outcome for each in compare(stable, candidate, SETTINGS, STEPS)} == {"wait"}
    nothing = Arm(STABLE)
    _, many = arms(1, 0.1, 60)
    assert {each.outcome for each in compare(nothing, many, SETTINGS, STEPS)} == {"wait"}


def test_asking_again_changes_nothing_until_the_calls_have_doubled() -> None:
    assert list(looks(3)) == []
    assert list(looks(17)) == [(1, 4), (2, 8), (3, 16)]
    stable, candidate = arms(2, 0.1, 60, referring=0.4)
    sixteen = Arm(CANDIDATE, candidate.calls[:16])
    assert compare(stable, sixteen, SETTINGS, STEPS) == compare(
        stable, Arm(CANDIDATE, candidate.calls[:31]), SETTINGS, STEPS
    )


def test_arms_are_read_from_the_archive() -> None:
    """Failures count, a caller's mistakes and shadows do not, nor does what came before."""
    store = MemoryStore()
    key = Ed25519PrivateKey.generate()
    ours = [prediction(release=STABLE) for _ in range(3)]
    shadowed = prediction(release=CANDIDATE).model_copy(update={"arm": "shadow"})
    failure = refusal(release=CANDIDATE).model_copy(update={"kind": "failure"})
    entries = [*ours, refusal(release=STABLE), failure, shadowed]
    append(store, key, entries, "test")
    reader, since = reader_of(store, key), datetime.fromisoformat(ours[1].time)
    read = {release: arm_of(release, Tail(reader, release, since).read()) for release in (STABLE, CANDIDATE)}
    assert [call.failed for call in read[CANDIDATE].calls] == [True]
    assert 2 <= len(read[STABLE].calls) <= 3
    assert {call.probability for call in read[STABLE].calls} == {ours[0].models[0].probability}


def test_what_was_answered_while_a_release_was_stopped_is_not_compared() -> None:
    """All of it is referred: the candidate would seem to refer less than it does."""
    stopped = prediction().model_copy(update={"stop": uuid7(), "decision": STOPPED})
    assert [call.referred for call in arm_of(STABLE, [prediction(typed=False), stopped]).calls] == [False]
