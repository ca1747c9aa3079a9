"""A plan's looks at the metrics: which studies they are at, what they decide, and how often they are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest

from pneumoserve.monitoring import Cell, Counted, Tally, measure
from pneumoserve.monitoring.metrics_watch import MetricsWatch
from pneumoserve.monitoring.stop_plan import Limits, MetricsRule, StopPlan
from pneumoserve.records import Effort, EmptyPeriodError, Scope
from tests.support.entries import RELEASE
from tests.support.simulation import Studies, World, answer_all, count

SINCE = date(2026, 1, 1)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
# Of 100 sick studies 80 were found, and of 900 well ones 45 were referred.
TALLY = Tally(
    answers={"referred": 125, "normal": 875},
    cells={
        Cell("referred", True, 1.0, True): 80,
        Cell("referred", True, 1.0, False): 45,
        Cell("normal", False, 1.0, True): 20,
        Cell("normal", False, 1.0, False): 855,
    },
)


def watch_of(looks: int = 2, site: str | None = None, **limits: float) -> MetricsWatch:
    rule = MetricsRule(since=SINCE, days=30, looks=looks, limits=Limits(**limits))
    return MetricsWatch(RELEASE, StopPlan(site=site, metrics=rule), rule)


def counted(tally: Tally) -> list[Counted]:
    return [Counted(RELEASE, tally, 0, 0, Effort(0, 0, None, 0, 0), {})]


def take(watch: MetricsWatch, tally: Tally = TALLY, resumed: str | None = None, now: datetime = NOW) -> list[Any]:
    return watch.take_looks(lambda _: counted(tally), (), resumed, now)


@pytest.mark.parametrize(
    ("name", "inside", "beyond"),
    [
        ("product_sensitivity", 0.85, 0.95),
        ("threshold_specificity", 0.95, 0.99),
        ("misses_per_1000", 15.0, 5.0),
        ("referral_rate", 0.11, 0.05),
    ],
)
def test_a_limit_is_passed_only_where_the_whole_interval_lies_beyond_it(
    name: str, inside: float, beyond: float
) -> None:
    """Sensitivity .80 is seen, and .85 may still be true."""
    for limit, passed in ((inside, False), (beyond, True)):
        watch = watch_of(**{name: limit})
        first, second = take(watch)
        (result,) = second.results
        assert (result.figure, result.passed) == (name, passed)
        assert (watch.find_stop([first, second], None) is not None) is passed
        interval = measure(TALLY, alpha=2 * watch.rule.level(2)).observed[name].interval
        assert interval is not None
        assert result.bound in {interval.low, interval.high}


def test_the_more_limits_the_surer_each_has_to_be() -> None:
    alone, together = (take(watch_of(**limits))[1] for limits in (
        {"referral_rate": 0.2}, {"referral_rate": 0.2, "product_sensitivity": 0.5}
    ))  # fmt: skip
    assert together.level < alone.level
    bounds = [next(each.bound for each in look.results if each.figure == "referral_rate") for look in (alone, together)]
    assert bounds[1] < bounds[0]


def test_with_too_few_readings_nothing_is_passed() -> None:
    few = Tally(answers={"referred": 9}, cells={Cell("referred", True, 1.0, True): 9})
    look = take(watch_of(product_sensitivity=0.999), few)[0]
    assert (look.studies, look.readings, look.results[0].bound, look.passed) == (9, 9, None, ())


def test_each_look_is_at_all_days_so_far_and_is_taken_once() -> None:
    asked: list[Scope] = []

    def note(scope: Scope) -> Sequence[Counted]:
        asked.append(scope)
        return counted(TALLY)

    watch = watch_of(3, "pacs", referral_rate=0.5)
    looks = watch.take_looks(note, {2}, None, NOW)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    days = [start + timedelta(days=30), start + timedelta(days=90)]
    assert asked == [Scope(start, RELEASE, "pacs", before) for before in days]
    assert [(each.look, each.first_day, each.before) for each in looks] == [
        (1, "2026-01-01", "2026-01-31"), (3, "2026-01-01", "2026-04-01"),
    ]  # fmt: skip
    assert watch.select([*looks, looks[0].model_copy(update={"plan": "f" * 64})]) == looks
    assert take(watch, now=datetime(2026, 2, 13, 23, tzinfo=UTC)) == []


def test_what_a_person_saw_who_resumed_stops_nothing_again() -> None:
    asked: list[Scope] = []

    def note(scope: Scope) -> Sequence[Counted]:
        asked.append(scope)
        assert scope.since is not None
        assert scope.before is not None
        if scope.since >= scope.before:
            raise EmptyPeriodError("nothing")
        return counted(TALLY)

    watch = watch_of(referral_rate=0.05)
    resumed = "2026-02-10T23:30:00.000Z"
    earlier, later = watch.take_looks(note, (), resumed, NOW)
    assert [scope.since for scope in asked] == [datetime(2026, 2, 11, tzinfo=UTC)] * 2
    assert (earlier.studies, earlier.passed, later.studies) == (0, (), 1000)
    seen = later.model_copy(update={"time": "2026-02-10T08:00:00.000Z"})
    assert watch.find_stop([seen], resumed) is None
    assert watch.find_stop([seen, later], resumed) == later


# --- how often it is wrong


@dataclass(frozen=True)
class Ward:
    """Studies come as a world has them, as many in each look; `until` are the worlds of the first looks."""

    until: tuple[World, ...]

    @classmethod
    def of(cls, sensitivity: float) -> Ward:
        world = World(sensitivity, prevalence=0.1)
        return cls(tuple(replace(world, studies=1000 * look) for look in (1, 2, 3, 4)))

    def stops(self, watch: MetricsWatch, run: int) -> bool:
        """Whether the plan stops the release in a run."""
        whole, random = self.until[-1], np.random.default_rng(run)
        number = random.random(whole.studies)
        studies = answer_all(whole, random, number)

        def count_until(scope: Scope) -> list[Counted]:
            assert scope.before is not None
            part = self.until[(scope.before.date() - SINCE).days // watch.rule.days - 1]
            columns = (each[: part.studies] for each in (studies.sick, studies.stratum, studies.above, number))
            return counted(count(part, Studies(*columns), part.studies / 5))

        return watch.find_stop(watch.take_looks(count_until, (), None, NOW), None) is not None


@pytest.mark.slow
def test_a_release_that_just_keeps_its_limit_is_rarely_stopped_and_a_bad_one_is() -> None:
    """The limit is .90, alpha .05: 30 runs each of a true sensitivity of .90 and of .70."""
    watch = watch_of(4, product_sensitivity=0.9)
    stopped = [sum(map(partial(Ward.of(truth).stops, watch), range(30))) for truth in (0.9, 0.7)]
    assert stopped[0] <= 2
    assert stopped[1] >= 25
