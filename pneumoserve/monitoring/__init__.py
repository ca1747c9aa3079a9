"""How a release does where it is used: figures with intervals, of what was answered and of what people read.

`tally` counts studies, `measure` makes figures of them, `intervals` holds the statistics. Whoever asks passes the
studies in; `exported` counts those of an export, by SQL. Two modules stand for themselves: `acceptance` judges a site's
labelled films by a plan, and `drift_watch` compares studies with a baseline; `drift` holds its tests.
"""

from pneumoserve.monitoring.estimates import (
    LEAST,
    Cell,
    Counted,
    Figure,
    Metrics,
    PrevalenceError,
    Stratum,
    Study,
    Tally,
    answer_of,
    check_prevalence,
    choose_one_a_patient,
    count_cohorts,
    measure,
    rank_of,
    tally,
    trace_ppv,
)
from pneumoserve.monitoring.intervals import Interval, Share, Weighted, limit_count, limit_rate, limit_share
from pneumoserve.monitoring.words import (
    MEANINGS,
    REFERENCE,
    Row,
    describe_counts,
    describe_effort,
    describe_figure,
    describe_figures,
    describe_release,
    describe_tested,
    describe_value,
)

__all__ = [
    "LEAST",
    "MEANINGS",
    "REFERENCE",
    "Cell",
    "Counted",
    "Figure",
    "Interval",
    "Metrics",
    "PrevalenceError",
    "Row",
    "Share",
    "Stratum",
    "Study",
    "Tally",
    "Weighted",
    "answer_of",
    "check_prevalence",
    "choose_one_a_patient",
    "count_cohorts",
    "describe_counts",
    "describe_effort",
    "describe_figure",
    "describe_figures",
    "describe_release",
    "describe_tested",
    "describe_value",
    "limit_count",
    "limit_rate",
    "limit_share",
    "measure",
    "rank_of",
    "tally",
    "trace_ppv",
]
