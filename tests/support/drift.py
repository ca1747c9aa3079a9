"""Answers of one source, and windows of drift on record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pneumoserve.decision import Band, Policy, Population
from pneumoserve.ids import time_text, uuid7
from pneumoserve.names import DETECTOR
from pneumoserve.records import Baseline, CallDetail, DriftWindow, Incident, Record
from tests.support.entries import RELEASE, id_made, prediction, use
from tests.support.reviews import Ward

START = datetime(2026, 5, 1, tzinfo=UTC)
POLICY = Policy(
    detector_threshold=0.3, detector_band=Band(low=0.1, high=0.8), typer_threshold=0.5,
    typer_band=Band(low=0.4, high=0.6), assumed_prevalence=0.5, why="",
    population=Population(min_age_years=1, below_age_years=6, unknown_dicom_age="refer"),
)  # fmt: skip


def record(
    minute: int, probability: float, patient: int | None = None, subject: str = "pacs", **changes: object
) -> Record:
    """An answer of so many minutes after the start."""
    made = prediction(id_made(START + timedelta(minutes=minute)), typed=False)
    call: CallDetail = made.call.model_copy(
        update={"subject": subject, "patient": None if patient is None else f"{patient:064x}"}
    )
    gate = use(DETECTOR, probability).model_copy(update={"chest_probability": 0.98})
    return made.model_copy(update={"call": call, "models": (gate,), **changes})


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
