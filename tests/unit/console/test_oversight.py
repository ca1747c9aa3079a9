"""Leads and auditors: decisions between readers, counts and what is down, incidents."""

from __future__ import annotations

import re

import pytest

from pneumoserve.ids import uuid7
from pneumoserve.records import Adjudication, Incident, ReleaseResume, ReleaseStop
from pneumoserve.review import ReviewError, find_incidents, study_number
from tests.support.consoles import Clinic
from tests.support.entries import RELEASE
from tests.support.reviews import NORMAL, PNEUMONIA, UNSURE


def differing(clinic: Clinic, name: str = "a") -> str:
    """A study that three readers have read, who differ."""
    case_id = clinic.study(name, "uncertain")
    for reader, verdict in (("r.1", PNEUMONIA), ("r.2", NORMAL), ("r.3", UNSURE)):
        clinic.ward.room.claim(case_id, reader)
        clinic.ward.room.save_reading(case_id, reader, verdict)
        clinic.ward.later(seconds=1)
    return case_id


async def test_a_lead_decides_without_names_and_without_the_models_answer(clinic: Clinic) -> None:
    case_id = differing(clinic)
    lead = clinic.someone("l.1", "lead")
    assert case_id in (await lead.get("/adjudications")).text
    place = f"/adjudications/{case_id}"
    page = (await lead.get(place)).text
    assert re.findall(r"<td>(Pneumonia|Normal|Cannot tell)</td>", page) == ["Pneumonia", "Normal", "Cannot tell"]
    for word in ("r.1", "r.2", "Confidence", "cannot tell whether"):
        assert word not in page
    assert (await lead.get(f"/studies/{case_id}")).status_code == 409
    assert (await lead.get(f"/studies/{case_id}/images/1")).status_code == 200
    saved = await lead.submit(place, place, finding="pneumonia", type="viral", comment="both bases")
    assert saved.headers["location"] == f"/studies/{case_id}"
    (made,) = clinic.services.cases.load(case_id).of(Adjudication)
    assert (made.by, made.finding, made.pneumonia_type, made.comment) == ("l.1", "pneumonia", "viral", "both bases")
    assert "Decided" in (await lead.get(f"/studies/{case_id}")).text
    assert (await lead.submit(place, "/", finding="normal")).status_code == 409


async def test_nobody_can_tell_is_a_decision(clinic: Clinic) -> None:
    case_id = differing(clinic)
    place = f"/adjudications/{case_id}"
    await clinic.someone("l.1", "lead").submit(place, place, finding="cannot_tell")
    (made,) = clinic.services.cases.load(case_id).of(Adjudication)
    assert made.finding is None


async def test_a_reader_of_the_study_does_not_decide_it(clinic: Clinic) -> None:
    case_id = differing(clinic)
    both = clinic.someone("r.2", "lead", "reader")
    assert (await both.get(f"/adjudications/{case_id}")).status_code == 409
    assert (await both.submit(f"/adjudications/{case_id}", finding="normal")).status_code == 409


@pytest.mark.parametrize("typed", [{"finding": ""}, {"finding": "x"}, {"finding": "normal", "comment": "<b>"}])
async def test_a_decision_that_cannot_be_one_comes_back(typed: dict[str, str], clinic: Clinic) -> None:
    case_id = differing(clinic)
    place = f"/adjudications/{case_id}"
    lead = clinic.someone("l.1", "lead")
    answer = await lead.submit(place, place, **{"comment": "what I typed", **typed})
    assert answer.status_code == 422
    assert typed.get("comment", "what I typed").replace("<", "&lt;").replace(">", "&gt;") in answer.text
    assert clinic.services.cases.load(case_id).to_adjudicate


async def test_the_overview_counts(clinic: Clinic) -> None:
    for name in ("a", "b", "c"):
        clinic.study(name, "uncertain", "normal")
    clinic.study("d", "normal", "normal", "normal", "normal")
    link = clinic.alert()
    clinic.ward.desk.order(clinic.alert_id(link), "d.1", "expert")
    await clinic.someone("r.1", "reader").next_study()
    clinic.ward.later(hours=5)
    for role in ("lead", "auditor"):
        page = (await clinic.someone("x.1", role).get("/overview")).text
        shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
        assert shown["Studies that wait to be read"] == shown["Of these, overdue"] == "3"
        assert shown["Alerts per 100 images"] == "30.0"
        assert shown["Alerts that led to a blood test or an expert"] == "1 of 3"
        assert shown["Alerts that nobody answered yet"] == "2"
        assert shown["Kappa"] == "not estimable"
    part = await clinic.someone("x.1", "lead").get("/overview/numbers")
    assert "<html" not in part.text


async def test_the_overview_says_how_far_readers_agree(clinic: Clinic) -> None:
    for number in range(2):
        case_id = clinic.study(f"two {number}", "uncertain")
        for reader, verdict in (("r.1", PNEUMONIA), ("r.2", NORMAL if number else PNEUMONIA)):
            clinic.ward.room.claim(case_id, reader)
            clinic.ward.room.save_reading(case_id, reader, verdict)
    page = (await clinic.someone("l.1", "lead").get("/overview")).text
    assert re.search(r"<dt>On pneumonia</dt><dd>0\.67 \(95 % interval", page)
    assert "2 studies count" in page


async def test_a_banner_says_that_a_release_is_stopped_until_it_is_resumed(clinic: Clinic) -> None:
    ward, auditor, stop_id = clinic.ward, clinic.someone("a.1", "auditor"), uuid7()
    of = {"time": "2026-11-30T08:00:00.000Z", "release": RELEASE, "why": "pale images"}
    ward.put(ReleaseStop(**of, stop_id=stop_id, by="lead-2"), role="review")
    for page in ("/", "/overview", "/overview/numbers"):
        shown = (await auditor.get(page)).text
        assert f"Release {RELEASE} is stopped since 2026-11-30 08:00 UTC by lead-2 (pale images)" in shown
    ward.put(ReleaseResume(**of, resume_id=uuid7(), by="lead-2", stop_ids=(stop_id,)), role="review")
    assert "is stopped" not in (await auditor.get("/overview")).text


async def test_a_banner_says_what_is_down(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    assert "Down." not in (await reader.get("/")).text
    clinic.ward.later(minutes=3)
    assert "Alerts are not being sent" in (await reader.get("/")).text
    clinic.alert()
    for message in clinic.ward.desk.take_from_outbox(clinic.ward.time - clinic.ward.time):
        clinic.ward.desk.record_sent(message, "mail")
    assert "Down." not in (await reader.get("/")).text
    clinic.services.followed.append(clinic.ward.time)
    clinic.ward.later(minutes=3)
    assert "does not hear of new answers" in (await reader.get("/")).text


async def test_an_incident_is_on_record_and_listed(clinic: Clinic) -> None:
    case_id = clinic.study("a", "normal")
    doctor = clinic.someone("d.1", "practitioner")
    prediction_id = clinic.services.cases.load(case_id).images[0].prediction_id
    typed = {"study": prediction_id, "kind": "missed_pneumonia", "comment": "Seen on day 3."}
    saved = await doctor.submit("/incidents", "/incidents/new", **typed)
    assert "is on record" in (await doctor.get(saved.headers["location"])).text
    (made,) = clinic.services.cases.load(case_id).of(Incident)
    assert (made.by, made.kind, made.comment) == ("d.1", "missed_pneumonia", "Seen on day 3.")
    page = (await clinic.someone("a.1", "auditor").get("/incidents")).text
    assert "A pneumonia was missed" in page
    assert "Seen on day 3." in page
    assert clinic.ward.database.rebuild(clinic.ward.reader) > 1
    assert len(find_incidents(clinic.services.database)) == 1


async def test_an_incident_is_reported_by_the_number_that_was_said(clinic: Clinic) -> None:
    case_id = clinic.study("a", "normal")
    clinic.study("b", "normal")
    assert clinic.services.cases.find(study_number(case_id).lower().replace("-", " ")) == case_id
    with pytest.raises(ReviewError, match="no such study"):
        clinic.services.cases.find("0000-0000")


@pytest.mark.parametrize("role", ["lead", "auditor"])
async def test_a_study_is_found_by_the_number_that_was_said(role: str, clinic: Clinic) -> None:
    case_id = clinic.study("a", "normal")
    person = clinic.someone("x.1", role)
    found = await person.submit("/studies/find", study=study_number(case_id))
    assert (found.status_code, found.headers["location"]) == (303, f"/studies/{case_id}")
    unknown = await person.submit("/studies/find", study="0000-0000")
    assert (unknown.status_code, "There is no such study" in unknown.text) == (404, True)


async def test_a_number_of_two_studies_is_refused(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        clinic.study(name, "normal")
    monkeypatch.setattr("pneumoserve.review.cases.study_number", lambda _: "8BCD-9AEB")
    with pytest.raises(ReviewError, match="Several studies have this number"):
        clinic.services.cases.find("8BCD-9AEB")


@pytest.mark.parametrize(
    ("typed", "status"),
    [({"study": "nowhere"}, 404), ({"kind": ""}, 422), ({"kind": "x"}, 422), ({"comment": "<img src=x>"}, 422)],
)
async def test_an_incident_that_cannot_be_one_comes_back(typed: dict[str, str], status: int, clinic: Clinic) -> None:
    case_id = clinic.study("a", "normal")
    doctor = clinic.someone("d.1", "practitioner")
    full = {"study": case_id, "kind": "other", "comment": "what I typed", **typed}
    answer = await doctor.submit("/incidents", "/incidents/new", **full)
    assert answer.status_code == status
    assert full["comment"].replace("<", "&lt;").replace(">", "&gt;") in answer.text
    assert find_incidents(clinic.services.database) == []


async def test_a_lineage_is_a_picture(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    answer = await clinic.someone("a.1", "auditor").get(f"/studies/{case_id}/lineage/1")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "<svg" in answer.text
    assert (await clinic.someone("a.1", "auditor").get(f"/studies/{case_id}/lineage/2")).status_code == 404


async def test_a_record_that_no_trusted_key_signed_is_not_shown(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    for item in list(clinic.ward.store.list("records/")):
        clinic.ward.memory.hide(item.key)
    auditor = clinic.someone("a.1", "auditor")
    assert "no record of it that a trusted key signed" in (await auditor.get(f"/studies/{case_id}/records/1")).text
    assert (await auditor.get(f"/studies/{case_id}")).status_code == 200
