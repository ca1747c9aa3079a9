"""A study's result as FHIR R4: a transaction that creates each resource once, however often it is sent.

The report is preliminary, and it and its observations say what they are not for. What is withdrawn is
`entered-in-error`, in resources of its own: those that were sent before stay as they are.
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
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)")


def make_bundle(
    batch: Batch,
    answer: StudyAnswer,
    headers: Mapping[Sha256, Dataset],
    uid: Callable[[str], str],
    before: Batch | None = None,
) -> bytes:
    """A Bundle as JSON of the result of a batch; arguments are those of `make_report`."""
    about = _describe_study(headers[answer.shown[0]])
    entries = [_create(uid(f"device {answer.release}"), _make_device(answer))]
    device = {"reference": entries[0]["fullUrl"]}
    for what, observation in _make_observations(answer):
        shared = {"status": "preliminary", "issued": answer.time, "device": device, **about}
        # An observation is of images that a study has; a report names the study itself.
        shared["derivedFrom"] = shared.pop("imagingStudy")
        shared.pop("basedOn", None)
        entries.append(_create(uid(f"observation {batch.folder} {what}"), {**shared, **observation}))
    observations = [{"reference": each["fullUrl"]} for each in entries[1:]]
    report = _make_report(answer) | about | {"result": observations}
    entries.append(_create(uid(f"result {batch.folder}"), report))
    targets = [{"reference": entries[-1]["fullUrl"]}, *observations]
    provenance = _make_provenance(answer, device, about["imagingStudy"][0], targets)
    if before is not None:
        previous = {"type": "DiagnosticReport", "identifier": _identify(uid(f"result {before.folder}"))}
        provenance["entity"].append({"role": "revision", "what": previous})
    entries.append(_create(uid(f"provenance {batch.folder}"), provenance))
    return canonical_json({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _create(uid: str, resource: Resource) -> Resource:
    """An entry that creates a resource where none has its identifier."""
    identifier = _identify(uid)
    if resource["resourceType"] == "Provenance":
        # It has no identifier in R4, and servers search for tags in all resources.
        resource = resource | {"meta": {"tag": [{"system": identifier["system"], "code": identifier["value"]}]}}
        known = "_tag"
    else:
        resource = resource | {"identifier": [identifier]}
        known = "identifier"
    return {
        "fullUrl": uuid.UUID(int=int(uid.removeprefix("2.25."))).urn,
        "resource": resource,
        "request": {
            "method": "POST",
            "url": resource["resourceType"],
            "ifNoneExist": f"{known}={identifier['system']}|{identifier['value']}",
        },
    }


def _identify(uid: str) -> Resource:
    return {"system": _URI, "value": f"urn:oid:{uid}"}


def _describe_study(header: Dataset) -> Resource:
    """Whose study it is: by the identifiers that DICOM has, which the server may know."""
    study = {"system": "urn:dicom:uid", "value": f"urn:oid:{header.StudyInstanceUID}"}
    about: Resource = {"imagingStudy": [{"type": "ImagingStudy", "identifier": study}]}
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


def _make_device(answer: StudyAnswer) -> Resource:
    return {
        "resourceType": "Device",
        "status": "active",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": MANUFACTURER, "type": "model-name"}],
        "version": [{"value": answer.release or "none"}],
        "note": [{"text": answer.intended_use or INTENDED_USE}],
    }


def _make_observations(answer: StudyAnswer) -> Iterator[tuple[str, Resource]]:
    """Of the study and of each image, each by what tells it from the others of its result."""
    if answer.study is not None:
        yield "study", _make_observation(answer, answer.study, "The study as a whole.")
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
