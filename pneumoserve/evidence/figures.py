"""The figures of each release, as machines read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pneumoserve.decision import Policy
from pneumoserve.monitoring import Metrics, Tally, measure, tally
from pneumoserve.review import Cohort


@dataclass(frozen=True)
class Measured:
    """A release's closed studies, counted, and the figures that follow."""

    cohort: Cohort
    counted: Tally
    metrics: Metrics


def measure_cohorts(
    cohorts: Iterable[Cohort], policy_of: Callable[[str], Policy | None], prevalence: float | None = None
) -> list[Measured]:
    """Count and measure cohorts; `policy_of` knows a release's policy, or None."""
    found = []
    for cohort in cohorts:
        policy = policy_of(cohort.release)
        counted = tally(cohort.studies, None if policy is None else policy.detector_threshold)
        found.append(Measured(cohort, counted, measure(counted, prevalence)))
    return found


def describe_cohort(measured: Measured, closed_after: int) -> dict[str, Any]:
    """All that `pneumoserve metrics --json` says of a release; `closed_after` in days."""
    cohort, counted, found = measured.cohort, measured.counted, measured.metrics
    return {
        "release": cohort.release,
        "reference": "blind readings",
        "closed_after_days": closed_after,
        "studies": counted.studies,
        "open": cohort.open,
        "stopped": cohort.stopped,
        "left_out_same_patient": counted.left_out,
        "without_patient": counted.without_patient,
        "strata": [asdict(stratum) for stratum in counted.strata],
        "figures": {name: asdict(figure) for name, figure in found.observed.items()},
        "prevalence": found.prevalence,
        "at_prevalence": {name: asdict(figure) for name, figure in found.at_prevalence.items()},
        "effort": asdict(cohort.effort),
        "tested": cohort.tested,
    }
