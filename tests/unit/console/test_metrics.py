"""What the console counts: requests by page and status, and what waits to be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY, generate_latest

from pneumoserve.console import services as services_module
from pneumoserve.console.metrics import show_counts
from pneumoserve.console.services import Estimator, Follower
from pneumoserve.monitoring import measure
from tests.conftest import wait_for
from tests.support.consoles import Clinic
from tests.support.metrics import DAY, POLICY, RELEASE, read_ward


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


def estimate(figure: str, bound: str, release: str = RELEASE) -> float | None:
    labels = {"release": release, "figure": figure, "bound": bound}
    return REGISTRY.get_sample_value("pneumoserve_estimate", labels)


def test_estimates_are_shown_with_their_limits(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page and the command have them; once readings no longer count, the series end."""
    monkeypatch.setattr(services_module, "find_policy", lambda *_: POLICY)
    read_ward(clinic.ward, capacity=500)
    clinic.ward.time = datetime.now(UTC)
    with Estimator(clinic.services):
        wait_for(lambda: estimate("product_sensitivity", "estimate") is not None)
    (counted,) = clinic.services.count_studies()
    found = measure(counted.tally).observed["product_sensitivity"].interval
    assert found is not None
    shown = [estimate("product_sensitivity", bound) for bound in ("low", "estimate", "high")]
    assert shown == [found.low, found.value, found.high]
    assert REGISTRY.get_sample_value("pneumoserve_estimate_readings", {"release": RELEASE}) == 173
    assert REGISTRY.get_sample_value("pneumoserve_assumed_prevalence", {"release": RELEASE}) == 0.5
    assert REGISTRY.get_sample_value("pneumoserve_estimated_seconds") == clinic.ward.time.timestamp()
    clinic.ward.time = DAY + timedelta(days=1)
    clinic.services.estimate()
    assert estimate("product_sensitivity", "estimate") is None
    assert REGISTRY.get_sample_value("pneumoserve_estimate_readings", {"release": RELEASE}) == 0


def test_where_nothing_was_answered_there_is_no_estimate(clinic: Clinic) -> None:
    clinic.services.estimate()
    assert b"pneumoserve_estimate{" not in generate_latest()


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
