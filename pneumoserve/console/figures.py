"""Leads and auditors: what readings show of each release, as numbers and as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request, Response

from pneumoserve.console.pages import sentence_of, show
from pneumoserve.console.services import Services
from pneumoserve.monitoring import (
    MEANINGS,
    REFERENCE,
    Counted,
    Figure,
    Metrics,
    PrevalenceError,
    Tally,
    check_prevalence,
    describe_counts,
    describe_effort,
    describe_figure,
    describe_figures,
    describe_tested,
    measure,
    trace_ppv,
)
from pneumoserve.records import NoStudiesError, Scope
from pneumoserve.review import CLOSED_AFTER, ReviewError

router = APIRouter()
# Where the plots stand in their pictures, in the picture's units.
_LEFT: Final = 240
_WIDTH: Final = 440
_ROW: Final = 24
_CURVE_HEIGHT: Final = 160
# At which prevalences the PPV is drawn, and the ends of its logarithmic axis.
_PREVALENCES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_TICKS: Final = (0.001, 0.01, 0.1, 0.5)


class _FormError(ReviewError, ValueError):
    """What was typed cannot be understood."""


class Line(NamedTuple):
    """An interval in a plot, in the picture's units."""

    name: str
    y: float
    low: float
    high: float
    value: float
    naive: float


class Curve(NamedTuple):
    """PPV against prevalence, in the picture's units: points of the line, of the band around it, and of two marks."""

    line: str
    band: str
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]


@router.get("/overview/metrics")
def show_figures(
    request: Request, prevalence: str = "", release: str = "", since: str = "", site: str = ""
) -> Response:
    """The figures of each release, as observed and at the prevalence that was asked for."""
    services: Services = request.app.state.services
    typed = {"prevalence": prevalence, "release": release, "since": since, "site": site}
    common: dict[str, Any] = {"typed": typed, "reference": REFERENCE, "problem": None, "parts": []}
    try:
        asked = _read_prevalence(prevalence) or services.prevalence
        scope = Scope(_read_day(since), release.strip() or None, site.strip() or None)
        counted = services.count_studies(scope)
    except (_FormError, NoStudiesError, PrevalenceError) as error:
        status = 404 if isinstance(error, NoStudiesError) else 422
        # An archive without a study is no mistake of whoever looks.
        status = status if any(typed.values()) else 200
        return show(request, "figures.html", status, **{**common, "problem": sentence_of(error)})
    common["parts"] = [_part(each, asked) for each in counted]
    return show(request, "figures.html", **common)


def _read_prevalence(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        found = float(text.replace(",", "."))
    except ValueError:
        found = math.nan
    check_prevalence(found)
    return found


def _read_day(text: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d")
    except ValueError:
        raise _FormError("A first day is written like 2026-11-30; correct it, or leave it out.") from None


def _part(release: Counted, prevalence: float | None) -> dict[str, Any]:
    """What the page shows of a release."""
    counted = release.tally
    found = measure(counted, prevalence)
    blocks = [("As observed", found.observed)] if counted.studies else []
    if prevalence is not None and counted.studies:
        blocks.append((f"At a prevalence of {100 * prevalence:g} %", found.at_prevalence))
    lines = [*describe_effort(counted, release.effort), *describe_tested(release.tested)] if counted.studies else []
    return {
        "release": release.release,
        "counts": describe_counts(counted, release.open, CLOSED_AFTER.days, release.stopped),
        "strata": counted.strata,
        "observed": describe_figure("prevalence", found.observed["prevalence"]),
        "blocks": [(title, _lines(figures), describe_figures(figures)) for title, figures in blocks],
        "curve": _curve(counted, found),
        "lines": lines,
    }


def _lines(figures: Mapping[str, Figure]) -> list[Line]:
    """The intervals of all shares that have one."""
    found: list[Line] = []
    for name, meaning in MEANINGS.items():
        figure = figures.get(name)
        if figure is None or figure.interval is None or meaning.counts:
            continue
        interval = figure.interval
        naive = interval.value if figure.naive is None else figure.naive
        low, high, value, wrong = (
            round(_LEFT + _WIDTH * each, 1) for each in (interval.low, interval.high, interval.value, naive)
        )
        found.append(Line(meaning.name, _ROW * (len(found) + 1), low, high, value, wrong))
    return found


def _curve(counted: Tally, found: Metrics) -> Curve | None:
    """None where there is no sensitivity or specificity to draw it of."""
    if any(found.observed[f"product_{name}"].interval is None for name in ("sensitivity", "specificity")):
        return None
    traced = trace_ppv(counted, _PREVALENCES)
    places = [_across(each) for each in _PREVALENCES]

    def points(values: list[float]) -> list[str]:
        return [f"{x:.1f},{_down(value):.1f}" for x, value in zip(places, values, strict=True)]

    lower, upper = points([each.low for each in traced]), points([each.high for each in traced])
    marks = []
    observed = found.observed["prevalence"].interval
    if observed is not None and _PREVALENCES[0] <= observed.value <= _PREVALENCES[-1]:
        marks.append((round(_across(observed.value), 1), "observed"))
    if found.prevalence is not None and _PREVALENCES[0] <= found.prevalence <= _PREVALENCES[-1]:
        marks.append((round(_across(found.prevalence), 1), "asked for"))
    return Curve(
        line=" ".join(points([each.value for each in traced])),
        band=" ".join([*lower, *reversed(upper)]),
        ticks=tuple((round(_across(each), 1), f"{100 * each:g} %") for each in _TICKS),
        marks=tuple(marks),
    )


def _across(prevalence: float) -> float:
    first, last = math.log(_PREVALENCES[0]), math.log(_PREVALENCES[-1])
    return 60 + 600 * (math.log(prevalence) - first) / (last - first)


def _down(share: float) -> float:
    return 10 + _CURVE_HEIGHT * (1 - share)
