"""The candidate beside the stable release, in the same window of live calls.

Every test bounds what it compares in each arm with confidence, and fails only where the bounds lie further apart than
is tolerated. `false_alarms` is the chance that a candidate which stays within what is tolerated is stopped anywhere in
the whole rollout: it is shared by the steps equally, by the looks of a step as 1 / (k (k + 1)) for the k-th, and by the
tests and arms of a look equally (Bonferroni). A look is taken each time the candidate's calls have doubled, over just
those calls, so asking more often changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.names import DECISION, DETECTOR
from pneumoserve.records import GateResult, Record
from pneumoserve.rollout.statistics import binomial_bounds, distance_bound, kolmogorov_distance, quantile_bounds

_TESTS: Final = 4
_FIRST_LOOK: Final = 4
_T = TypeVar("_T")


class ComparisonSettings(BaseModel):
    """What a candidate may do otherwise than the stable release, and how rarely a good one is stopped."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    false_alarms: float = Field(default=0.05, alias="falseAlarms", gt=0, lt=1)
    more_errors: float = Field(default=0.01, alias="moreErrors", ge=0, lt=1, description="added share of failed calls")
    more_referred: float = Field(default=0.10, alias="moreReferred", ge=0, lt=1, description="added share of referrals")
    slower: float = Field(default=1.5, ge=1, description="times the stable release's 95th percentile of time")
    scores_apart: float = Field(
        default=0.25, alias="scoresApart", ge=0, lt=1, description="Kolmogorov distance of the detector's probabilities"
    )


@dataclass(frozen=True)
class ObservedCall:
    """What is compared of one recorded call, or of one film of a call."""

    time: str
    failed: bool
    milliseconds: float | None
    referred: bool | None
    probability: float | None


@dataclass(frozen=True)
class Arm:
    """The calls of one release in a window, the first one first."""

    release: str
    calls: tuple[ObservedCall, ...] = field(default=())

    def until(self, moment: str) -> Arm:
        """Those recorded until a moment, itself included."""
        return Arm(self.release, tuple(call for call in self.calls if call.time <= moment))


def arm_of(release: str, found: Iterable[object]) -> Arm:
    """The arm of a release, by entries of the archive."""
    return Arm(release, _calls(found))


def _calls(found: Iterable[object]) -> tuple[ObservedCall, ...]:
    records = (entry for entry in found if isinstance(entry, Record) and entry.arm == "live" and entry.stop is None)
    return tuple(sorted((_call(each) for each in records if each.kind != "refusal"), key=lambda call: call.time))


def _call(record: Record) -> ObservedCall:
    return ObservedCall(
        time=record.time,
        failed=record.kind == "failure",
        milliseconds=record.duration_ms,
        referred=None if record.decision is None else record.decision.referred,
        probability=next((use.probability for use in record.models if use.name == DETECTOR), None)
        if record.call.model in {DECISION, DETECTOR}
        else None,
    )


def looks(calls: int) -> Iterable[tuple[int, int]]:
    """The looks that so many calls allow: their number, from 1 on, and how many calls each takes."""
    size, number = _FIRST_LOOK, 1
    while size <= calls:
        yield number, size
        size, number = 2 * size, number + 1


def compare(stable: Arm, candidate: Arm, settings: ComparisonSettings, steps: int) -> tuple[GateResult, ...]:
    """The results of every look so far of one of `steps` steps: those that fail, else those of the last look.

    Before the first look, or while the stable release has no calls in the window, it is one `wait`.
    """
    latest: tuple[GateResult, ...] = ()
    for number, size in looks(len(candidate.calls)):
        taken = Arm(candidate.release, candidate.calls[:size])
        other = stable.until(taken.calls[-1].time)
        if not other.calls:
            continue
        level = settings.false_alarms / steps / (number * (number + 1)) / _TESTS / 2
        latest = _look(other, taken, settings, level)
        failed = tuple(result for result in latest if result.outcome == "fail")
        if failed:
            return failed
    return latest or (_too_few(stable, candidate),)


def _too_few(stable: Arm, candidate: Arm) -> GateResult:
    return GateResult(
        gate="evidence",
        outcome="wait",
        sentence=f"{len(candidate.calls)} calls of the candidate and {len(stable.calls)} of the stable release are too "
        "few to compare.",
        numbers={"candidate": len(candidate.calls), "stable": len(stable.calls)},
    )


def _look(stable: Arm, candidate: Arm, settings: ComparisonSettings, alpha: float) -> tuple[GateResult, ...]:
    return (
        _share("errors", [c.failed for c in stable.calls], [c.failed for c in candidate.calls],
               settings.more_errors, alpha),
        _latency(stable, candidate, settings.slower, alpha),
        _share("referrals", _known(c.referred for c in stable.calls), _known(c.referred for c in candidate.calls),
               settings.more_referred, alpha),
        _scores(stable, candidate, settings.scores_apart, alpha),
    )  # fmt: skip


def _known(values: Iterable[_T | None]) -> list[_T]:
    return [value for value in values if value is not None]


def _share(gate: str, stable: Sequence[bool], candidate: Sequence[bool], more: float, alpha: float) -> GateResult:
    low, _ = binomial_bounds(sum(candidate), len(candidate), alpha)
    _, high = binomial_bounds(sum(stable), len(stable), alpha)
    counts = f"{sum(candidate)} of {len(candidate)} beside {sum(stable)} of {len(stable)}"
    return _gate_result(
        gate,
        low > high + more,
        f"The candidate's {gate}, {counts}, are",
        f"more than {more:g} above the stable release's",
        {"candidate": sum(candidate), "of": len(candidate), "stable": sum(stable), "stable_of": len(stable),
         "candidate_at_least": low, "stable_at_most": high, "tolerated": more, "alpha": alpha},
    )  # fmt: skip


def _latency(stable: Arm, candidate: Arm, slower: float, alpha: float) -> GateResult:
    own, other = (
        np.array(_known(c.milliseconds for c in arm.calls if not c.failed), float) for arm in (candidate, stable)
    )
    low, high = -math.inf, math.inf
    if len(own) and len(other):
        low, high = quantile_bounds(own, 0.95, alpha)[0], _upper(other, alpha)
    own_time = "unknown" if not len(own) else f"{np.quantile(own, 0.95):.0f} ms"
    other_time = "unknown" if not len(other) else f"{np.quantile(other, 0.95):.0f} ms"
    return _gate_result(
        "latency",
        low > slower * high,
        f"The candidate's 95th percentile of time, {own_time} beside {other_time}, is",
        f"more than {slower:g} times the stable release's",
        {"candidate_at_least_ms": _finite(low), "stable_at_most_ms": _finite(high), "tolerated": slower,
         "candidate": len(own), "stable": len(other), "alpha": alpha},
    )  # fmt: skip


def _upper(values: np.ndarray, alpha: float) -> float:
    return quantile_bounds(values, 0.95, alpha)[1]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scores(stable: Arm, candidate: Arm, apart: float, alpha: float) -> GateResult:
    own, other = (np.array(_known(c.probability for c in arm.calls), float) for arm in (candidate, stable))
    seen = kolmogorov_distance(other, own)
    # Both arms' share of the level: one inequality holds for the two bands together.
    bound = distance_bound(seen, (len(other), len(own)), 2 * alpha)
    return _gate_result(
        "scores",
        bound > apart,
        f"The detector's probabilities, by a Kolmogorov distance of {seen:.2f}, are",
        f"more than {apart:g} apart from the stable release's",
        {"distance": seen, "at_least": bound, "tolerated": apart, "candidate": len(own), "stable": len(other),
         "alpha": alpha},
    )  # fmt: skip


def _gate_result(
    gate: str, fails: bool, subject: str, what: str, numbers: dict[str, float | int | str | None]
) -> GateResult:
    return GateResult(
        gate=gate,
        outcome="fail" if fails else "pass",
        sentence=f"{subject} {'' if fails else 'not shown to be '}{what}.",
        numbers=numbers,
    )
