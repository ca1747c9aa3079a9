"""A result as FHIR is what FHIR R4 has, is the same on a second try, and claims nothing.

`fhir.resources` has R4B, which changed none of the resources that are used here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from fhir.resources.R4B.bundle import Bundle
from highdicom.sr import srread

from pneumoserve.intake.fhir import make_bundle
from pneumoserve.intake.header import read_header
from pneumoserve.intake.spool import Batch, StudyAnswer
from pneumoserve.store import MemoryStore
from tests.support.intake import STUDY, groups_of, make_object, make_spool
from tests.unit.intake.test_results import ANSWER, HEADERS, report

_STUDY = f"urn:oid:{STUDY}"


def bundle(
    number: int = 1, answer: StudyAnswer = ANSWER, earlier: Mapping[Batch, StudyAnswer] | None = None, **attributes: str
) -> bytes:
    headers = HEADERS | ({"1": read_header(make_object(1, **attributes))} if attributes else {})
    before = Batch("a" * 64, 1) if number > 1 else None
    return make_bundle(Batch("a" * 64, number), answer, headers, make_spool(MemoryStore()).uid, before, earlier)


def resources_of(document: bytes) -> dict[str, list[Any]]:
    """The resources of a bundle by their types, as fhir.resources reads them."""
    found: dict[str, list[Any]] = {}
    for entry in Bundle.model_validate_json(document).entry:
        found.setdefault(entry.resource.get_resource_type(), []).append(entry.resource)
    return found


def test_a_result_is_preliminary_and_says_what_it_is_not_for() -> None:
    found = resources_of(bundle())
    assert {kind: len(each) for kind, each in found.items()} == {
        "Device": 1, "ImagingStudy": 1, "Observation": 4, "DiagnosticReport": 1, "Provenance": 1,
    }  # fmt: skip
    (report,), observations = found["DiagnosticReport"], found["Observation"]
    assert {each.status for each in (report, *observations)} == {"preliminary"}
    assert ANSWER.intended_use in report.conclusion
    assert all(ANSWER.intended_use in {note.text for note in each.note} for each in observations)
    assert report.imagingStudy[0].identifier.value == observations[0].derivedFrom[0].identifier.value == _STUDY
    assert (report.subject.identifier.value, report.basedOn[0].identifier.value) == ("MRN-4711", "ACC-4711")
    assert report.effectiveDateTime.isoformat() == "2026-11-30"


def test_it_has_the_codes_of_the_structured_report() -> None:
    groups = groups_of(srread(io.BytesIO(report())))
    for group, observation in zip(groups, resources_of(bundle())["Observation"], strict=True):
        assert observation.valueCodeableConcept.coding[0].code == group.finding_type.value
        said, measured = set(), set()
        for each in observation.component:
            name = each.code.coding[0].code
            if each.valueQuantity is not None:
                measured.add((name, float(each.valueQuantity.value)))
            else:
                said.add((name, each.valueCodeableConcept.coding[0].code))
        assert said == {(each.name.value, each.value.value) for each in group.get_qualitative_evaluations()}
        assert measured == {(each.name.value, float(each.value)) for each in group.get_measurements()}


def test_each_resource_is_created_once_and_the_same_on_a_second_try() -> None:
    assert bundle() == bundle()
    entries = Bundle.model_validate_json(bundle()).entry
    conditions = [entry.request.ifNoneExist for entry in entries]
    assert len(set(conditions)) == len({entry.fullUrl for entry in entries}) == len(entries)
    for entry in entries:
        if entry.request.url == "Provenance":
            (tag,) = entry.resource.meta.tag
            assert entry.request.ifNoneExist == f"_tag={tag.system}|{tag.code}"
        else:
            (identifier,) = entry.resource.identifier
            assert entry.request.ifNoneExist == f"identifier={identifier.system}|{identifier.value}"
    # The device is the release's, for all results of it, and the study that of all its results.
    again = {each.request.ifNoneExist for each in Bundle.model_validate_json(bundle(2)).entry}
    assert again & set(conditions) == set(conditions[:2])


def test_a_study_that_the_server_does_not_know_is_created_and_named_by_all() -> None:
    device, study, *others = Bundle.model_validate_json(bundle()).entry
    assert study.request.ifNoneExist == f"identifier=urn:dicom:uid|{_STUDY}"
    assert (study.resource.status, study.resource.started.isoformat()) == ("available", "2026-11-30")
    assert (study.resource.subject.identifier.value, study.resource.basedOn[0].identifier.value) == (
        "MRN-4711", "ACC-4711",
    )  # fmt: skip
    *observations, report, provenance = (each.resource for each in others)
    named = [each.derivedFrom[0] for each in observations] + [report.imagingStudy[0], provenance.entity[0].what]
    assert {each.reference for each in named} == {study.fullUrl}
    assert device.resource.get_resource_type() == "Device"


def test_provenance_names_who_made_it_of_what_and_what_it_follows() -> None:
    ((first,), (second,)) = (resources_of(bundle(number))["Provenance"] for number in (1, 2))
    assert [each.role for each in first.entity] == ["source"]
    (source, revision) = second.entity
    assert source.what.identifier.value == _STUDY
    assert revision.what.identifier.value == resources_of(bundle(1))["DiagnosticReport"][0].identifier[0].value
    device = Bundle.model_validate_json(bundle()).entry[0]
    assert (first.agent[0].who.reference, device.resource.version[0].value) == (device.fullUrl, ANSWER.release)
    assert len(first.target) == 5


def test_what_dicom_does_not_say_is_left_out() -> None:
    found = resources_of(bundle(PatientID="", AccessionNumber="", StudyDate=""))
    (report,) = found["DiagnosticReport"]
    assert (report.subject, report.basedOn, report.effectiveDateTime) == (None, None, None)
    # R4 wants to know whose study it is.
    assert ("ImagingStudy" in found, report.imagingStudy[0].reference) == (False, None)


def test_a_result_without_an_answer_says_what_it_is_not_for_too() -> None:
    nothing = ANSWER.model_copy(update={"read": (), "study": None, "intended_use": "", "release": ""})
    found = resources_of(bundle(answer=nothing))
    assert [len(found[kind]) for kind in ("Observation", "DiagnosticReport")] == [1, 1]
    assert "not cleared for clinical use" in found["DiagnosticReport"][0].conclusion


def test_what_is_withdrawn_is_entered_in_error_and_the_report_so_is_the_report_where_nothing_is_left() -> None:
    withdrawal = ANSWER.model_copy(
        update={"read": (), "unreadable": (), "withdrawn": ANSWER.read[:1], "why": "patient_safety"}
    )
    for study, status, count in ((ANSWER.study, "preliminary", 2), (None, "entered-in-error", 1)):
        found = resources_of(bundle(2, withdrawal.model_copy(update={"study": study})))
        (written,), observations, (provenance,) = (
            found[kind] for kind in ("DiagnosticReport", "Observation", "Provenance")
        )
        assert (written.status, "disregard earlier reports" in written.conclusion) == (status, True)
        assert [each.status for each in observations] == ["preliminary", "entered-in-error"][-count:]
        assert "113037" in {each.valueCodeableConcept.coding[0].code for each in observations[-1].component}
        assert [entity.role for entity in provenance.entity] == ["source", "revision"]


def test_what_was_sent_before_of_a_rejected_image_and_all_that_counted_it_is_made_an_error() -> None:
    first = ANSWER.model_copy(update={"read": ANSWER.read[1:]})
    second = ANSWER.model_copy(update={"read": ANSWER.read[:1], "unreadable": ()})
    earlier = {Batch("a" * 64, 1): first, Batch("a" * 64, 2): second}
    withdrawal = second.model_copy(update={"read": (), "withdrawn": second.read, "why": "quality"})
    sent = {
        entry.request.ifNoneExist.partition("=")[2]: entry.resource
        for number, answer in ((1, first), (2, second))
        for entry in Bundle.model_validate_json(bundle(number, answer)).entry
    }
    marked = [
        entry
        for entry in Bundle.model_validate_json(bundle(3, withdrawal, earlier)).entry
        if entry.request.method == "PUT"
    ]
    # The first result knew nothing of the image.
    assert [entry.request.url.partition("?")[0] for entry in marked] == ["Observation"] * 2 + ["DiagnosticReport"]
    assert {entry.resource.status for entry in marked} == {"entered-in-error"}
    for entry in marked:
        before = sent[entry.request.url.partition("=")[2]]
        assert before.get_resource_type() == entry.resource.get_resource_type()
        assert before.identifier[0].value == entry.resource.identifier[0].value
        assert before.subject.identifier.value == entry.resource.subject.identifier.value
    image = sent[marked[0].request.url.partition("=")[2]]
    assert f"Image {second.read[0].prediction_id}." in {note.text for note in image.note}
