"""Following the metrics of a release by the rule of a site's plan: what each look shows, and whether it stops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from pneumoserve.ids import time_text, uuid7
from pneumoserve.monitoring.estimates import Counted, Figure, measure, tally
from pneumoserve.monitoring.stop_plan import AT_LEAST, MetricsRule, StopPlan
from pneumoserve.records import EmptyPeriodError, Entry, LimitResult, MetricsLook, Scope

# Counts the closed studies of a scope, by release.
Count = Callable[[Scope], Sequence[Counted]]


@dataclass(frozen=True)
class MetricsWatch:
    """A release that a plan's rule of metrics watches."""

    release: str
    plan: StopPlan
    rule: MetricsRule

    def select(self, entries: Iterable[Entry]) -> list[MetricsLook]:
        """The looks of this plan at this release."""
        looks = (each for each in entries if isinstance(each, MetricsLook) and each.release == self.release)
        return [each for each in looks if each.plan == self.plan.digest]

    def take_looks(self, count: Count, taken: Collection[int], resumed: str | None, now: datetime) -> list[MetricsLook]:
        """The looks that are due and not yet `taken`, to be put on record. Another day's run takes the same.

        After the release was resumed, at `resumed`, studies of the days after it count alone: a person has seen the
        earlier ones.

        Raises:
            NoStudiesError: the release has answered nothing, or the plan's site sent nothing.
        """
        start = self.rule.end_of(0)
        if resumed is not None:
            day_after = datetime.fromisoformat(resumed).astimezone(UTC).date() + timedelta(days=1)
            start = max(start, datetime.combine(day_after, time(), UTC))
        due = (look for look in self.rule.list_due(now) if look not in taken)
        return [self._take(count, look, start, now) for look in due]

    def _take(self, count: Count, look: int, start: datetime, now: datetime) -> MetricsLook:
        before = self.rule.end_of(look)
        try:
            counted = count(Scope(start, self.release, self.plan.site, before))[0].tally
        except EmptyPeriodError:
            counted = tally((), None)
        level = self.rule.level(look)
        figures = measure(counted, alpha=2 * level).observed
        return MetricsLook(
            release=self.release, time=time_text(now), look_id=uuid7(), site=self.plan.site, plan=self.plan.digest,
            look=look, first_day=start.date().isoformat(), before=before.date().isoformat(), level=level,
            studies=counted.studies, readings=counted.read,
            results=tuple(_judge(name, limit, figures[name]) for name, limit in self.rule.limits.named.items()),
        )  # fmt: skip

    def find_stop(self, looks: Sequence[MetricsLook], resumed: str | None) -> MetricsLook | None:
        """The first of this plan's looks that stops the release; None where none does.

        What was on record when a person resumed the release, at `resumed`, does not stop it again.
        """
        return next((each for each in looks if each.passed and (resumed is None or each.time > resumed)), None)


def _judge(name: str, limit: float, figure: Figure) -> LimitResult:
    if figure.interval is None:
        return LimitResult(figure=name, limit=limit, value=None, bound=None, passed=False)
    least = name in AT_LEAST
    bound = figure.interval.high if least else figure.interval.low
    passed = bound < limit if least else bound > limit
    return LimitResult(figure=name, limit=limit, value=figure.interval.value, bound=bound, passed=passed)
