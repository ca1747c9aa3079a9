"""Whose X-ray it is: who sees it, on which page, and what stands there where nobody can read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pneumoserve.canonical import canonical_json
from pneumoserve.review import study_number
from pneumoserve.store import MemoryStore, StoreError
from tests.support.consoles import NAMES, Clinic

PRACTITIONER, REFERENCE = "Zq-&lt;practitioner&gt;", str(NAMES.reference)


def shows(page: str) -> bool:
    """Whether both names stand there, or neither; and never as mark-up."""
    assert str(NAMES.practitioner) not in page
    assert (PRACTITIONER in page) == (REFERENCE in page)
    return REFERENCE in page


async def test_the_practitioner_sees_whose_xray_an_alert_is_about(
    clinic: Clinic, caplog: pytest.LogCaptureFixture
) -> None:
    case_id = clinic.study("a", "normal", "uncertain")
    clinic.name(case_id, 2)
    link = clinic.alert()
    page = (await clinic.someone("d.1", "practitioner").get(f"/alerts/{link}")).text
    assert shows(page)
    assert f">{study_number(case_id)}<" in page
    assert not shows((await clinic.someone().get(f"/alerts/{link}")).text)
    assert "Zq-" not in caplog.text
    assert all(b"Zq-" not in canonical_json(fact) for fact in clinic.services.cases.load(case_id).facts)


async def test_readers_see_it_once_their_reading_is_saved(clinic: Clinic) -> None:
    """Whoever knows the reference before could look the result up."""
    case_id = clinic.study("a", "uncertain")
    clinic.name(case_id)
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    page = (await reader.get(place)).text
    assert (shows(page), f">{study_number(case_id)}<" in page) == (False, True)
    await reader.read()
    assert shows((await reader.get(f"/studies/{case_id}")).text)


@pytest.mark.parametrize(("role", "sees"), [("lead", True), ("auditor", False)])
async def test_of_those_who_look_after_it_the_lead_sees_it(clinic: Clinic, role: str, sees: bool) -> None:
    case_id = clinic.study("a", "uncertain")
    clinic.name(case_id)
    page = (await clinic.someone("x.1", role).get(f"/studies/{case_id}")).text
    assert (shows(page), "Whose X-ray it is" in page) == (sees, sees)
    for number in ("records", "lineage"):
        assert not shows((await clinic.someone("x.1", role).get(f"/studies/{case_id}/{number}/1")).text)


async def test_a_practitioner_sees_it_for_a_stated_reason(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    clinic.name(case_id)
    doctor = clinic.someone("d.1", "practitioner")
    place = f"/studies/{case_id}/break-glass"
    assert not shows((await doctor.get(place)).text)
    await doctor.submit(place, place, why="The child worsens, PACS is down.")
    assert shows((await doctor.get(f"/studies/{case_id}")).text)


async def test_a_lead_sees_it_before_they_decide(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    clinic.name(case_id)
    for name, finding in (("r.1", "pneumonia"), ("r.2", "normal"), ("r.3", "pneumonia")):
        await clinic.someone(name, "reader").read(finding=finding, type="")
    assert shows((await clinic.someone("l.1", "lead").get(f"/adjudications/{case_id}")).text)


# --- where nobody can read it


async def test_a_page_says_that_names_were_erased_or_never_given(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    clinic.ward.store.erase(clinic.name(case_id))
    await says(clinic, "the caller named nobody, or the names were erased")


async def test_a_page_says_that_the_key_is_another_one(clinic: Clinic) -> None:
    clinic.name(clinic.study("a", "uncertain"))
    clinic.app.state.services = replace(clinic.services, opening=X25519PrivateKey.generate())
    await says(clinic, "they were sealed to another key")


async def test_a_page_says_that_there_is_no_key(clinic: Clinic) -> None:
    clinic.name(clinic.study("a", "uncertain"))
    clinic.app.state.services = replace(clinic.services, opening=None)
    await says(clinic, "has no key for names")


async def test_an_alert_is_shown_while_names_cannot_be_read(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic.name(clinic.study("a", "uncertain"))
    link, get = clinic.alert(), MemoryStore.get

    def fail(store: MemoryStore, key: str, *more: Any) -> bytes:
        if key.startswith("envelopes/"):
            raise StoreError("The store could not be reached; check its address, and that it runs.")
        return get(store, key, *more)

    monkeypatch.setattr(MemoryStore, "get", fail)
    await says(clinic, "so names are missing here", link)


async def says(clinic: Clinic, sentence: str, link: str | None = None) -> None:
    """The alert's page says this of names, and all else that it says else."""
    page = await clinic.someone("d.1", "practitioner").get(f"/alerts/{link or clinic.alert()}")
    assert (page.status_code, sentence in page.text, shows(page.text)) == (200, True, False)
    assert "The model cannot tell whether there is a pneumonia" in page.text
