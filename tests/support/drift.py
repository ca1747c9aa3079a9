"""Windows of drift on record, for pages that show them."""

from __future__ import annotations

from datetime import timedelta

from pneumoserve.ids import time_text, uuid7
from pneumoserve.records import Baseline, DriftWindow, Incident
from tests.support.entries import RELEASE
from tests.support.reviews import Ward


def put_drift(ward: Ward, windows: int = 12) -> DriftWindow:
    """A source of so many windows, whose last two alarm, and one that has none yet; returns the last alarm."""
    start = ward.time
    entries: list[Baseline | DriftWindow | Incident] = []
    for source in ("DX", "jpeg"):
        made = {"release": RELEASE, "time": time_text(start), "site": "pacs", "source": source, "studies": 1000}
        first, last = (time_text(start - timedelta(days=days)) for days in (60, 31))
        entries.append(
            Baseline(**made, baseline_id=uuid7(), first=first, last=last, by="lead-2", why="four quiet weeks")
        )
    found = [_window(entries[0].baseline_id, ward, number, windows - number) for number in range(windows)]
    if not found:
        found = [_window(uuid7(), ward, 0, 1)]
    incident = Incident(
        release=RELEASE, time=time_text(start), incident_id=uuid7(), drift_id=found[-1].drift_id,
        by="pneumoserve drift", kind="drift", comment="pacs, DX",
    )  # fmt: skip
    ward.put(*entries, *found, incident, role="review")
    ward.later(minutes=1)
    return found[-1]


def _window(baseline_id: str, ward: Ward, number: int, left: int) -> DriftWindow:
    """One of a day; of the last two, one is of another case mix and one of other images."""
    first = ward.time - timedelta(days=30 - number)
    return DriftWindow(
        release=RELEASE, time=time_text(ward.time), drift_id=uuid7(), baseline_id=baseline_id, site="pacs", source="DX",
        first=time_text(first), last=time_text(first + timedelta(hours=20)), studies=200,
        scores_p=1e-9 if left <= 2 else 0.03 + number / 20, images_p=1e-4 if left == 1 else 0.5, referrals_p=0.2,
        cause={1: "images", 2: "case_mix"}.get(left), baseline_share=0.11, sick_share=0.34 if left <= 2 else 0.12,
    )  # fmt: skip
