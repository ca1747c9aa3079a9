"""A study's result as FHIR R4: a transaction that creates each resource once, however often it is sent.

The report is preliminary, and it and its observations say what they are not for. A rejection makes what was sent before
of the rejected images `entered-in-error`, and so each report and finding of the study that counted them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from pneumoserve.canonical import Sha256, canonical_json
from pneumoserve.decision import Decision
from pneumoserve.intake.concepts import (
    CHEST_XRAY,
    DISREGARD,
    FINDING,
    FINDINGS,
    MANUFACTURER,
    REFERRED,
    REJECTIONS,
    SCHEME,
    UNREADABLE,
    WITHDRAWN,
    YES,
    evaluate,
    measure,
)
from pneumoserve.intake.spool import Batch, StudyAnswer
from pneumoserve.release.schema import INTENDED_USE

Resource = dict[str, Any]

_URI: Final = "urn:ietf:rfc:3986"
_UCUM: Final = "http://unitsofmeasure.org"
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
_SYSTEMS: Final = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    # 99PNEUMO has no address on the web.
    SCHEME: "urn:oid:2.25.199424713577209306846127205412163212894",
}
# Of what should not have been said; R4's `cancelled` is of what was never completed.
_WITHDRAWN: Final = "entered-in-error"
# The observation of the study, where those of images have the image's hash.
_WHOLE: Final = "study"
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)")


def make_bundle(
    batch: Batch,
    answer: StudyAnswer,
    headers: Mapping[Sha256, Dataset],
    uid: Callable[[str], str],
    before: Batch | None = None,
    earlier: Mapping[Batch, StudyAnswer] | None = None,
) -> bytes:
    """A Bundle as JSON of the result of a batch; arguments are those of `make_report`.

    `earlier` are the study's earlier answers, by batch.
    """
    about = _describe_study(headers[answer.shown[0]])
    study = _make_study(about)
    entries = [_create(uid(f"device {answer.release}"), _make_device(answer))]
    device = {"reference": entries[0]["fullUrl"]}
    if study is not None:
        entries.append(_create(uid(f"study {batch.study}"), study))
        about["imagingStudy"][0]["reference"] = entries[1]["fullUrl"]
    observations = [
        _create(uid(_observation(batch, what)), observation)
        for what, observation in _make_observations(answer, device, about)
    ]
    results = [{"reference": each["fullUrl"]} for each in observations]
    report = _create(uid(f"result {batch.folder}"), _make_report(answer) | about | {"result": results})
    targets = [{"reference": report["fullUrl"]}, *results]
    provenance = _make_provenance(answer, device, about["imagingStudy"][0], targets)
    if before is not None:
        previous = {"type": "DiagnosticReport", "identifier": _identify(uid(f"result {before.folder}"))}
        provenance["entity"].append({"role": "revision", "what": previous})
    entries += [*observations, report, _create(uid(f"provenance {batch.folder}"), provenance)]
    entries += [_mark(uid(name), resource, about) for name, resource in _find_erroneous(answer, earlier or {})]
    return canonical_json({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _observation(batch: Batch, what: str) -> str:
    """The name of an observation, of which its identifier is made."""
    return f"observation {batch.folder} {what}"


def _find_erroneous(answer: StudyAnswer, earlier: Mapping[Batch, StudyAnswer]) -> Iterator[tuple[str, Resource]]:
    """What was sent before and does not hold after a withdrawal: what its identifier is made of, and its kind."""
    withdrawn, counted = {each.instance for each in answer.withdrawn}, False
    finding = {"resourceType": "Observation", "code": _concept(FINDING), "note": [{"text": DISREGARD}]}
    for batch, one in sorted(earlier.items()):
        wrong = [each.instance for each in one.read if each.instance in withdrawn]
        for instance in wrong:
            yield _observation(batch, instance), finding
        # A study's finding counts the images of all results before it.
        counted = counted or bool(wrong)
        if counted and one.is_reported:
            if one.study is not None:
                yield _observation(batch, _WHOLE), finding
            report = {"resourceType": "DiagnosticReport", "code": _concept(CHEST_XRAY), "conclusion": DISREGARD}
            yield f"result {batch.folder}", report


def _mark(uid: str, resource: Resource, about: Resource) -> Resource:
    """An entry that leaves nothing of a resource but that it was an error; it is so too where it comes before it."""
    identifier = _identify(uid)
    subject = {"subject": about["subject"]} if "subject" in about else {}
    return {
        "fullUrl": _url(uid),
        "resource": {**resource, **subject, "status": _WITHDRAWN, "identifier": [identifier]},
        "request": {
            "method": "PUT",
            "url": f"{resource['resourceType']}?identifier={identifier['system']}|{identifier['value']}",
        },
    }


def _create(uid: str, resource: Resource) -> Resource:
    """An entry that creates a resource where none has its identifier, which is made of the UID unless it has one."""
    (identifier,) = resource.get("identifier", [_identify(uid)])
    if resource["resourceType"] == "Provenance":
        # It has no identifier in R4, and servers search for tags in all resources.
        resource = resource | {"meta": {"tag": [{"system": identifier["system"], "code": identifier["value"]}]}}
        known = "_tag"
    else:
        resource = resource | {"identifier": [identifier]}
        known = "identifier"
    return {
        "fullUrl": _url(uid),
        "resource": resource,
        "request": {
            "method": "POST",
            "url": resource["resourceType"],
            "ifNoneExist": f"{known}={identifier['system']}|{identifier['value']}",
        },
    }


def _url(uid: str) -> str:
    return uuid.UUID(int=int(uid.removeprefix("2.25."))).urn


def _identify(uid: str) -> Resource:
    return {"system": _URI, "value": f"urn:oid:{uid}"}


def _describe_study(header: Dataset) -> Resource:
    """Whose study it is: by the identifiers that DICOM has, which the server may know."""
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{header.StudyInstanceUID}"}
    about: Resource = {"imagingStudy": [{"type": "ImagingStudy", "identifier": identifier}]}
    if header.get("PatientID"):
        number = {"type": _code(f"{_TERMINOLOGY}/v2-0203", "MR"), "value": str(header.PatientID)}
        about["subject"] = {"type": "Patient", "identifier": number}
    if header.get("AccessionNumber"):
        number = {"type": _code(f"{_TERMINOLOGY}/v2-0203", "ACSN"), "value": str(header.AccessionNumber)}
        about["basedOn"] = [{"type": "ServiceRequest", "identifier": number}]
    date = _DATE.fullmatch(str(header.get("StudyDate") or ""))
    if date is not None:
        about["effectiveDateTime"] = "-".join(date.groups())
    return about


def _make_study(about: Resource) -> Resource | None:
    """The study, for a server that does not know it; None where it is of nobody, whom R4 wants to know."""
    if "subject" not in about:
        return None
    study: Resource = {
        "resourceType": "ImagingStudy",
        "identifier": [about["imagingStudy"][0]["identifier"]],
        "status": "available",
        "subject": about["subject"],
    }
    if "basedOn" in about:
        study["basedOn"] = about["basedOn"]
    if "effectiveDateTime" in about:
        study["started"] = about["effectiveDateTime"]
    return study


def _make_device(answer: StudyAnswer) -> Resource:
    return {
        "resourceType": "Device",
        "status": "active",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": MANUFACTURER, "type": "model-name"}],
        "version": [{"value": answer.release or "none"}],
        "note": [{"text": answer.intended_use or INTENDED_USE}],
    }


def _make_observations(answer: StudyAnswer, device: Resource, about: Resource) -> Iterator[tuple[str, Resource]]:
    """Of the study and of each image, each by what tells it from the others of its result."""
    shared = {"status": "preliminary", "issued": answer.time, "device": device, **about}
    # An observation is of images that a study has; a report names the study itself.
    shared["derivedFrom"] = shared.pop("imagingStudy")
    shared.pop("basedOn", None)
    for what, observation in _describe_observations(answer):
        yield what, {**shared, **observation}


def _describe_observations(answer: StudyAnswer) -> Iterator[tuple[str, Resource]]:
    if answer.study is not None:
        yield _WHOLE, _make_observation(answer, answer.study, "The study as a whole.")
    for image in answer.read:
        yield image.instance, _make_observation(answer, image.decision, f"Image {image.prediction_id}.")
    for image in answer.withdrawn:
        components = [] if answer.why is None else [_say(WITHDRAWN, REJECTIONS[answer.why])]
        observation = _observe(answer, FINDINGS[None], [*components, _say(REFERRED, YES)], DISREGARD)
        yield image.instance, {**observation, "status": _WITHDRAWN}
    for left in answer.unreadable:
        components = [_say(UNREADABLE, YES), _say(REFERRED, YES)]
        yield left.instance, _observe(answer, FINDINGS[None], components, left.why)


def _make_observation(answer: StudyAnswer, decision: Decision, what: str) -> Resource:
    components = [
        {"code": _concept(name), "valueQuantity": {"value": percent, "unit": "%", "system": _UCUM, "code": "%"}}
        for name, percent in measure(decision, answer.assumed_prevalence)
    ]
    components += [_say(name, value) for name, value in evaluate(decision)]
    return _observe(answer, FINDINGS[decision.finding], components, what)


def _observe(answer: StudyAnswer, finding: CodedConcept, components: list[Resource], what: str) -> Resource:
    notes = (what, answer.intended_use or INTENDED_USE, answer.notice)
    return {
        "resourceType": "Observation",
        "category": [_code(f"{_TERMINOLOGY}/observation-category", "imaging")],
        "code": _concept(FINDING),
        "valueCodeableConcept": _concept(finding),
        "component": components,
        "note": [{"text": note} for note in notes if note],
    }


def _say(name: CodedConcept, value: CodedConcept) -> Resource:
    return {"code": _concept(name), "valueCodeableConcept": _concept(value)}


def _make_report(answer: StudyAnswer) -> Resource:
    finding = FINDINGS[answer.study.finding if answer.study is not None else None]
    withdrawn = [DISREGARD] if answer.withdrawn else []
    return {
        "resourceType": "DiagnosticReport",
        "status": _WITHDRAWN if answer.withdrawn and answer.study is None else "preliminary",
        "category": [_code(f"{_TERMINOLOGY}/v2-0074", "RAD")],
        "code": _concept(CHEST_XRAY),
        "issued": answer.time,
        "conclusion": " ".join([f"{finding.meaning}.", *withdrawn, answer.intended_use or INTENDED_USE]),
        "conclusionCode": [_concept(finding)],
    }


def _make_provenance(answer: StudyAnswer, device: Resource, study: Resource, targets: list[Resource]) -> Resource:
    author = _code(f"{_TERMINOLOGY}/provenance-participant-type", "author")
    return {
        "resourceType": "Provenance",
        "target": targets,
        "recorded": answer.time,
        "agent": [{"type": author, "who": device}],
        "entity": [{"role": "source", "what": study}],
    }


def _concept(concept: CodedConcept) -> Resource:
    coding = {"system": _SYSTEMS[concept.scheme_designator], "code": concept.value, "display": concept.meaning}
    return {"coding": [coding], "text": concept.meaning}


def _code(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}
