"""Which prevalence a confidence assumes, and what it is at the site's: on every page that shows one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pneumoserve.console import services
from tests.support.consoles import Clinic, new_clinic
from tests.support.metrics import POLICY, read_ward

ASSUMED = "Confidence assumes a prevalence of 50 %."


@pytest.fixture
def sited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    """A clinic at a site where two of a hundred are sick."""
    monkeypatch.setattr(services, "find_policy", lambda *_: POLICY)
    made = new_clinic(tmp_path, "--prevalence=0.02")
    yield made
    made.ward.database.close()


async def pages(clinic: Clinic) -> list[str]:
    """The page of a pneumonia of .99, and of its alert."""
    case_id = clinic.study("sick", "pneumonia")
    link = clinic.alert()
    lead, doctor = clinic.someone("l.1", "lead"), clinic.someone("d.1", "practitioner")
    return [(await lead.get(f"/studies/{case_id}")).text, (await doctor.get(f"/alerts/{link}")).text]


async def test_a_study_and_its_alert_say_what_it_is_at_the_site(sited: Clinic) -> None:
    for page in await pages(sited):
        # Odds of 99, and 49 healthy patients to each sick one: 99 to 49.
        assert f"{ASSUMED} At this site&#39;s 2 % it is 0.668 pneumonia." in page


async def test_a_normal_answer_is_surer_where_few_are_sick(sited: Clinic) -> None:
    page = (await sited.someone("l.1", "lead").get(f"/studies/{sited.study('well', 'normal')}")).text
    assert f"{ASSUMED} At this site&#39;s 2 % it is 0.999 normal." in page


async def test_without_a_site_the_assumed_one_stands_alone(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_policy", lambda *_: POLICY)
    for page in await pages(clinic):
        assert f"<p>{ASSUMED}</p>" in page


async def test_of_a_release_that_nobody_has_it_is_not_known(clinic: Clinic) -> None:
    for page in await pages(clinic):
        assert "The prevalence that this confidence assumes is not known" in page


async def test_no_chest_has_no_confidence_and_no_prevalence(sited: Clinic) -> None:
    page = (await sited.someone("l.1", "lead").get(f"/studies/{sited.study('leg', 'leg')}")).text
    assert "prevalence" not in page


async def test_metrics_begin_with_the_site_s(sited: Clinic) -> None:
    read_ward(sited.ward, capacity=500)
    sited.ward.later(days=30)
    page = (await sited.someone("l.1", "lead").get("/overview/metrics")).text
    assert "<h3>At a prevalence of 2 %</h3>" in page
