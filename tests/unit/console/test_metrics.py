"""What the console counts: requests by page and status, and what waits to be read."""

from __future__ import annotations

from datetime import datetime

import pytest
from prometheus_client import REGISTRY, generate_latest

from pneumoserve.console.metrics import show_counts
from pneumoserve.console.services import Follower
from tests.conftest import wait_for
from tests.support.consoles import Clinic


def counted(page: str, status: int) -> float:
    return REGISTRY.get_sample_value("pneumoserve_console_requests_total", {"page": page, "status": str(status)}) or 0.0


def value(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"pneumoserve_console_{name}")


@pytest.mark.parametrize(
    ("place", "page", "status"),
    [
        ("/", "show_home", 200),
        ("/studies/Zq-unknown", "show_case", 404),
        ("/overview", "show_overview", 403),
        ("/static/console.css", "other", 200),
        ("/Zq-nowhere", "other", 404),
    ],
)
async def test_requests_are_counted_by_page_and_never_by_their_words(
    place: str, page: str, status: int, clinic: Clinic
) -> None:
    before = counted(page, status)
    assert (
        await clinic.someone("l.1", "practitioner", "lead" if status == 404 else "reader").get(place)
    ).status_code == status
    assert counted(page, status) == before + 1
    assert b"Zq-" not in generate_latest()


async def test_a_fault_of_ours_is_counted(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clinic.services.cases, "count", lambda: 1 / 0)
    before = counted("show_home", 500)
    await clinic.someone("r.1", "reader").get("/")
    assert counted("show_home", 500) == before + 1


def test_what_waits_is_shown(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    clinic.ward.later(hours=5)
    clinic.study("b", "uncertain")
    opened = datetime.fromisoformat(clinic.services.cases.load(case_id).opened).timestamp()
    with Follower(clinic.services):
        wait_for(lambda: value("studies_waiting") == 2)
    assert (value("studies_overdue"), value("oldest_study_seconds")) == (1, opened)
    assert value("followed_seconds") == clinic.ward.time.timestamp()


def test_nothing_waits(clinic: Clinic) -> None:
    show_counts(clinic.services.cases.count())
    assert (value("studies_waiting"), value("studies_overdue"), value("oldest_study_seconds")) == (0, 0, 0)
