"""Leads and auditors: the windows of each source beside its baseline, as pictures and as numbers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request, Response

from pneumoserve.console.pages import show
from pneumoserve.console.services import Services
from pneumoserve.monitoring.drift import FALSE_ALARMS, WINDOW_STUDIES, alarm_level
from pneumoserve.records import DriftWindow
from pneumoserve.review import WatchedSource, list_watched

router = APIRouter()
_TESTS: Final = {"scores": "scores_p", "images": "images_p", "referrals": "referrals_p"}
# The newest windows of a source are shown, with p-values from 1 down to one in a million.
_SHOWN: Final = 40
_LEAST: Final = 6
_LEFT: Final = 60
_WIDTH: Final = 600
_ROW: Final = 25


class Mark(NamedTuple):
    """The p-value of a test in a plot, in the picture's units."""

    test: str
    x: float
    y: float


@router.get("/overview/drift")
def show_drift(request: Request) -> Response:
    """Every source that has a baseline."""
    services: Services = request.app.state.services
    watched = list_watched(services.database)
    groups = Counter(each.baseline.release for each in watched)
    common: dict[str, Any] = {"size": WINDOW_STUDIES, "rate": f"{100 * FALSE_ALARMS:g} %", "tests": tuple(_TESTS)}
    return show(
        request, "drift.html", parts=[_part(each, groups[each.baseline.release]) for each in watched], **common
    )  # fmt: skip


def _part(each: WatchedSource, groups: int) -> dict[str, Any]:
    """What the page shows of a source, of which `groups` are watched of this release."""
    shown = each.windows[-_SHOWN:]
    level = alarm_level(groups)
    return {
        "baseline": each.baseline,
        "name": f"{each.baseline.site or 'callers without a name'}, {each.baseline.source}",
        "count": len(each.windows),
        "alarms": sum(window.cause is not None for window in each.windows),
        "windows": shown[::-1],
        "level": level,
        "line": _down(level),
        "ticks": [(_down(10.0**-power), f"1e-{power}" if power else "1") for power in range(0, _LEAST + 1, 2)],
        "marks": [mark for place, window in enumerate(shown) for mark in _marks(place, len(shown), window)],
    }


def _marks(place: int, count: int, window: DriftWindow) -> list[Mark]:
    x = round(_LEFT + _WIDTH * (place + 0.5) / count, 1)
    return [Mark(test, x, _down(getattr(window, name))) for test, name in _TESTS.items()]


def _down(p: float) -> float:
    return round(15 + _ROW * min(_LEAST, -math.log10(max(p, 10.0**-_LEAST))), 1)
