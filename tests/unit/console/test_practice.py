"""Practitioners: what a link shows, taking note by name or by nobody, what was ordered."""

from __future__ import annotations

import re

import pytest

from pneumoserve.records import Label, View
from pneumoserve.review import study_number
from pneumoserve.review.following import clear
from tests.support.consoles import Clinic


async def test_opening_a_link_changes_nothing_at_the_alert(clinic: Clinic) -> None:
    """Mail gateways open links."""
    case_id = clinic.study("a", "uncertain")
    link = clinic.alert()
    before = clinic.services.cases.find_alert(clinic.alert_id(link))
    entries = len(list(clinic.ward.store.list("records/")))
    page = (await clinic.someone().get(f"/alerts/{link}")).text
    assert "An alert waits for you" in page
    for word in ("cannot tell", "Confidence", case_id[:12], "urgent"):
        assert word not in page
    assert len(list(clinic.ward.store.list("records/"))) == entries
    doctor = clinic.someone("d.1", "practitioner")
    assert "The model cannot tell whether there is a pneumonia" in (await doctor.get(f"/alerts/{link}")).text
    assert clinic.services.cases.find_alert(clinic.alert_id(link)) == before
    assert [(view.by, view.page) for view in clinic.services.cases.load(case_id).of(View)] == [("d.1", "alert")]


async def test_a_link_may_be_quicker_than_the_console(clinic: Clinic) -> None:
    """The sender follows the archive too, and may have a database of its own."""
    clinic.study("a", "uncertain")
    link = clinic.alert()
    with clinic.ward.database.write() as connection:
        clear(connection)
    page = await clinic.someone("d.1", "practitioner").get(f"/alerts/{link}")
    assert (page.status_code, "The model cannot tell" in page.text) == (200, True)


async def test_a_practitioner_takes_note_and_orders_a_blood_test(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    link = clinic.alert()
    doctor = clinic.someone("d.1", "practitioner")
    page = f"/alerts/{link}"
    assert (await doctor.submit(f"{page}/acknowledge", page)).headers["location"] == page
    assert (await doctor.submit(f"{page}/order", page, ordered="blood_test")).status_code == 303
    alert = clinic.services.cases.find_alert(clinic.alert_id(link))
    assert (alert.acknowledged_by, alert.ordered, alert.answered) == ("d.1", "blood_test", True)
    shown = (await doctor.get(page)).text
    assert "d.1 takes care of it" in shown
    assert "was acted on by d.1: a blood test" in shown
    # Their decision is no label: nobody knows by it what the child had.
    assert clinic.services.cases.load(case_id).of(Label) == []


async def test_somebody_without_a_name_does_not_end_the_escalation(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    link = clinic.alert()
    anybody = clinic.someone()
    page = await anybody.submit(f"/alerts/{link}/acknowledge", f"/alerts/{link}")
    assert (page.status_code, "and not who" in page.text) == (200, True)
    entries = len(list(clinic.ward.store.list("records/")))
    assert (await anybody.submit(f"/alerts/{link}/acknowledge", f"/alerts/{link}")).status_code == 200
    assert len(list(clinic.ward.store.list("records/"))) == entries
    alert = clinic.services.cases.find_alert(clinic.alert_id(link))
    assert (alert.acknowledged is not None, alert.acknowledged_by, alert.answered) == (True, None, False)
    assert (await anybody.submit(f"/alerts/{link}/order", f"/alerts/{link}", ordered="nothing")).status_code == 401


async def test_a_practitioner_finds_the_alerts_that_they_answered(clinic: Clinic) -> None:
    """The link in the message ends after two weeks; what was ordered may be known later."""
    case_id = clinic.study("a", "uncertain")
    link = clinic.alert()
    first, second, other = (clinic.someone(name, "practitioner") for name in ("d.1", "d.2", "d.3"))
    await first.submit(f"/alerts/{link}/acknowledge", f"/alerts/{link}")
    await second.submit(f"/alerts/{link}/order", f"/alerts/{link}", ordered="expert")
    await other.get(f"/alerts/{link}")
    clinic.ward.later(days=20)
    assert (await first.get(f"/alerts/{link}")).status_code == 404
    for person, theirs in ((first, True), (second, True), (other, False)):
        page = (await person.get("/alerts")).text
        assert (study_number(case_id) in page, "an expert" in page) == (theirs, theirs)
    found = re.search(r'href="(/alerts/[^"]+)"><span', (await first.get("/alerts")).text)
    assert found is not None
    assert "The model cannot tell whether there is a pneumonia" in (await first.get(found[1])).text
    clinic.ward.desk.close(clinic.services.desk.list_answered_by("d.1")[0].alert_id, None)
    assert "You have answered none" in (await first.get("/alerts")).text


async def test_a_visitors_form_is_theirs_alone(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    link = clinic.alert()
    token = await clinic.someone().token(f"/alerts/{link}")
    refused = await clinic.someone().post(f"/alerts/{link}/acknowledge", data={"token": token})
    assert refused.status_code == 403


@pytest.mark.parametrize(
    "link", ["x", "0" * 36, "01a22dc7-310c-777d-b3b8-6ca3b5dabf75", "..%2f..%2fetc", "%00", "a" * 5000]
)
async def test_an_altered_link_is_refused(link: str, clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    clinic.alert()
    for person in (clinic.someone("d.1", "practitioner"), clinic.someone()):
        answer = await person.get(f"/alerts/{link}")
        assert answer.status_code == 404
        assert re.search("not whole|no such page", answer.text)


async def test_what_was_ordered_is_one_of_three(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    link = clinic.alert()
    doctor = clinic.someone("d.1", "practitioner")
    answer = await doctor.submit(f"/alerts/{link}/order", ordered="surgery")
    assert (answer.status_code, "Choose what you ordered" in answer.text) == (422, True)


async def test_a_closed_alert_says_so(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    link = clinic.alert()
    clinic.ward.desk.close(clinic.alert_id(link), "d.1")
    doctor = clinic.someone("d.2", "practitioner")
    assert "This alert is closed" in (await doctor.get(f"/alerts/{link}")).text
    refused = await doctor.submit(f"/alerts/{link}/acknowledge", f"/alerts/{link}")
    assert (refused.status_code, "This alert is closed" in refused.text) == (404, True)


async def test_nothing_is_half_saved_while_the_archive_is_down(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    link = clinic.alert()
    doctor = clinic.someone("d.1", "practitioner")
    token = await doctor.token(f"/alerts/{link}")
    clinic.ward.fails = True
    # Nobody is shown an answer while the view cannot be put on record.
    assert (await doctor.get(f"/alerts/{link}")).status_code == 503
    refused = await doctor.post(f"/alerts/{link}/order", data={"token": token, "ordered": "expert"})
    assert (refused.status_code, "The archive did not answer" in refused.text) == (503, True)
    clinic.ward.fails = False
    assert clinic.services.cases.find_alert(clinic.alert_id(link)).ordered is None


async def test_a_practitioner_sees_images_for_a_stated_reason_on_record(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    doctor = clinic.someone("d.1", "practitioner")
    case, image = f"/studies/{case_id}", f"/studies/{case_id}/images/1"
    assert (await doctor.get(case)).status_code == (await doctor.get(image)).status_code == 409
    form = f"{case}/break-glass"
    for why in ("", "x" * 201, "two\nlines"):
        assert (await doctor.submit(form, form, why=why)).status_code == 422
    assert (await doctor.get(image)).status_code == 409
    assert (await doctor.submit(form, form, why="The child worsens, PACS is down.")).status_code == 303
    assert (await doctor.get(image)).status_code == 200
    assert "Who looked" not in (await doctor.get(case)).text
    page = (await clinic.someone("a.1", "auditor").get(case)).text
    assert "d.1 opened the case page, without the right to, because: The child worsens" in page
    assert (await clinic.someone("d.2", "practitioner").get(image)).status_code == 409
