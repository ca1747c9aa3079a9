"""Each figure in one sentence for a clinician, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from pneumoserve.monitoring.estimates import Counted, Figure, Metrics, Tally
from pneumoserve.records import Effort


class Meaning(NamedTuple):
    """A figure's name, what it says, and whether it is shown as a number of studies rather than as a share."""

    name: str
    sentence: str
    counts: bool = False


class Row(NamedTuple):
    """A figure in words, as tables show it."""

    name: str
    sentence: str
    shown: str
    bounds: str
    naive: str
    always_normal: str


_SOURCES: Final = {"blood_test": "blood tests", "follow_up": "follow-up"}
MEANINGS: Final[dict[str, Meaning]] = {
    "prevalence": Meaning("Prevalence", "The share of studies that show pneumonia."),
    "product_sensitivity": Meaning(
        "Sensitivity, product", "Of pneumonias, the share that is called pneumonia or seen by a person."
    ),
    "product_specificity": Meaning(
        "Specificity, product",
        "Of studies without pneumonia, the share that is called normal with nobody asked to look.",
    ),
    "product_ppv": Meaning(
        "PPV, product", "Of studies that are called pneumonia or referred, the share that shows it."
    ),
    "product_npv": Meaning(
        "NPV, product", "Of studies that are called normal with nobody asked to look, the share without pneumonia."
    ),
    "threshold_sensitivity": Meaning(
        "Sensitivity, threshold", "Of pneumonias, the share whose score is at the threshold or above."
    ),
    "threshold_specificity": Meaning(
        "Specificity, threshold", "Of studies without pneumonia, the share whose score is below the threshold."
    ),
    "threshold_ppv": Meaning(
        "PPV, threshold", "Of studies with a score at the threshold or above, the share that shows pneumonia."
    ),
    "threshold_npv": Meaning(
        "NPV, threshold", "Of studies with a score below the threshold, the share without pneumonia."
    ),
    "stated_pneumonia_ppv": Meaning(
        "PPV of a stated pneumonia",
        "Of studies that are called pneumonia with nobody asked to look, the share that shows it.",
    ),
    "false_alarm_rate": Meaning(
        "False alarm rate",
        "Of studies without pneumonia, the share that is called pneumonia with nobody asked to look.",
    ),
    "referral_rate": Meaning("Referral rate", "The share of all studies that a person is asked to look at."),
    "referral_rate_sick": Meaning("Referral rate of pneumonias", "Of pneumonias, the share that is referred."),
    "referral_rate_well": Meaning(
        "Referral rate without pneumonia", "Of studies without pneumonia, the share that is referred."
    ),
    "misses_per_1000": Meaning(
        "Misses in 1,000", "Of 1,000 studies, the pneumonias that are called normal with nobody asked to look.", True
    ),
    "needless_referrals_per_1000": Meaning(
        "Needless referrals in 1,000", "Of 1,000 studies, those that are referred and show no pneumonia.", True
    ),
}
REFERENCE: Final = (
    "The truth here is what blind readers found. A reader who errs makes a release look worse: to one reader of "
    "sensitivity .90 and specificity .98, a sensitivity of .98 looks like .62; by the reading room's rule, like .935."
)
NOT_ESTIMABLE: Final = (
    "Sensitivity and specificity against it are not estimable: it is known only of those who were tested."
)


def _digits(name: str, value: float) -> int:
    """How many digits after the point a figure and its interval have."""
    if MEANINGS[name].counts:
        return 0 if value >= 100 else 1 if value >= 1 or value == 0 else 2
    # Where few are sick, what matters lies between 99 and 100 %.
    return 1 if 0.01 <= value <= 0.99 or value in {0.0, 1.0} else 2


def _format(name: str, value: float, digits: int) -> str:
    """A share in percent, or a number of studies."""
    if MEANINGS[name].counts:
        return f"{value:,.{digits}f}"
    return f"{100 * value:.{digits}f} %"


def _format_range(name: str, low: float, high: float, digits: int) -> str:
    return f"{_format(name, low, digits).removesuffix(' %')} to {_format(name, high, digits)}"


def describe_figure(name: str, figure: Figure) -> str:
    """A figure and its interval; or why there is none, and how many readings more it takes."""
    if figure.interval is None:
        more = f"; {figure.lacking} readings more" if figure.lacking else ""
        return f"no number: {figure.why}{more}"
    found = figure.interval
    digits = _digits(name, found.value)
    return f"{_format(name, found.value, digits)} ({_format_range(name, found.low, found.high, digits)})"


def describe_bounds(name: str, figure: Figure) -> str:
    """What a figure would be if all that nobody could judge was sick, and if all of it was well."""
    if figure.bounds is None or figure.interval is None:
        return ""
    return _format_range(name, *figure.bounds, _digits(name, figure.interval.value))


def describe_value(name: str, value: float | None) -> str:
    """A value that has no interval; a dash where there is none."""
    return "-" if value is None else _format(name, value, _digits(name, value))


def describe_figures(figures: Mapping[str, Figure]) -> list[Row]:
    """A row for each of some figures, in the order of `MEANINGS`."""
    return [
        Row(
            meaning.name,
            meaning.sentence,
            describe_figure(name, figures[name]),
            describe_bounds(name, figures[name]),
            describe_value(name, figures[name].naive),
            describe_value(name, figures[name].always_normal),
        )
        for name, meaning in MEANINGS.items()
        if name in figures
    ]


def describe_release(counted: Counted, found: Metrics, closed_after: int) -> dict[str, Any]:
    """All that was counted and found of a release, for machines; `closed_after` in days."""
    return {
        "release": counted.release,
        "reference": "blind readings",
        "closed_after_days": closed_after,
        "studies": counted.tally.studies,
        "open": counted.open,
        "stopped": counted.stopped,
        "left_out_same_patient": counted.tally.left_out,
        "without_patient": counted.tally.without_patient,
        "strata": [asdict(stratum) for stratum in counted.tally.strata],
        "figures": {name: asdict(figure) for name, figure in found.observed.items()},
        "prevalence": found.prevalence,
        "at_prevalence": {name: asdict(figure) for name, figure in found.at_prevalence.items()},
        "effort": asdict(counted.effort),
        "tested": counted.tested,
    }


def describe_counts(counted: Tally, still_open: int, closed_after: int, stopped: int) -> list[str]:
    """How many studies count, and which do not: of days still open, or answered while the release was stopped."""
    answers = counted.answers
    lines = [
        f"{counted.studies:,} studies count: {answers.get('referred', 0):,} referred, "
        f"{answers.get('normal', 0):,} confidently normal, {answers.get('pneumonia', 0):,} confidently pneumonia; "
        f"{counted.read:,} were read"
    ]
    if still_open:
        lines.append(
            f"{still_open:,} newer studies do not count yet: a study counts {closed_after} days after its answer"
        )
    if stopped:
        lines.append(
            f"{stopped:,} studies were answered while the release was stopped; they count in no figure, since "
            "it judged nothing then"
        )
    if counted.left_out:
        lines.append(f"{counted.left_out:,} more are of the same patients: one study of each counts, chosen by chance")
    if counted.without_patient:
        lines.append(f"{counted.without_patient:,} studies name no patient, so that each counts as one of its own")
    return lines


def describe_effort(counted: Tally, effort: Effort) -> list[str]:
    """What people did, and what they were spared."""
    total = counted.studies + counted.left_out
    lines = [
        f"readings: {effort.readings:,}, that is {1000 * effort.readings / total:,.0f} of 1,000 studies; "
        f"{total - effort.read:,} studies were read by nobody",
        f"ordered after alerts: {effort.blood_tests:,} blood tests, {effort.experts:,} expert opinions; how many blood "
        "tests were spared is not estimable from this archive",
    ]
    if effort.minutes is not None:
        minutes = effort.minutes * 1000 * effort.readings / total
        lines.append(
            f"reader minutes: {effort.minutes:.1f} a reading (median, from images to verdict), "
            f"that is {minutes:,.0f} of 1,000 studies"
        )
    return lines


def describe_tested(tested: Mapping[str, Mapping[str, tuple[int, int, int]]]) -> list[str]:
    """What blood tests and follow-up say of those who were tested, and no more.

    By source and kind of answer: how many studies there are, how many were tested, how many of these are sick.
    """
    lines = []
    for source, answers in sorted(tested.items()):
        parts = [
            f"{known:,} of {answered:,} studies with the answer {answer} were tested, {sick:,} of them sick"
            for answer, (answered, known, sick) in sorted(answers.items())
        ]
        lines.append(f"{_SOURCES[source]}: {'; '.join(parts)}. {NOT_ESTIMABLE}")
    return lines
