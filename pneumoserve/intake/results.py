"""A study's result as a DICOM structured report: TID 1500, as IHE's profile AI Results uses it.

It is for people to check: unverified, preliminary, and it says what it is not for.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import pydicom
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from pneumoserve.canonical import Sha256
from pneumoserve.decision import Decision, Finding, Reason
from pneumoserve.intake.spool import Batch, StudyAnswer
from pneumoserve.records import RejectionReason
from pneumoserve.release.schema import INTENDED_USE

_SERIES_NUMBER: Final = 9001
_MANUFACTURER: Final = "pneumoserve"
_SCHEME: Final = "99PNEUMO"
# What evidence must have for highdicom; attributes of type 2 may be empty.
_EMPTY: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_COPIED: Final = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet", "Modality",
    "Rows", "Columns",
)  # fmt: skip
_SEXES: Final = {"M", "F", "O"}
_FINDINGS: Final[dict[Finding | None, CodedConcept]] = {
    "normal": CodedConcept("17621005", "SCT", "Normal"),
    "pneumonia": CodedConcept("233604007", "SCT", "Pneumonia"),
    None: CodedConcept("373068000", "SCT", "Undetermined"),
}
_CERTAINTY: Final = CodedConcept("111012", "DCM", "Certainty of Finding")
_COMMENT: Final = CodedConcept("121106", "DCM", "Comment")
_YES: Final = CodedConcept("373066001", "SCT", "Yes")
_NO: Final = CodedConcept("373067005", "SCT", "No")
_PERCENT: Final = CodedConcept("%", "UCUM", "Percent")
# No standard code says these; a pattern that graders saw is no microbiology, so SNOMED's pneumonias would be wrong.
_PREVALENCE: Final = CodedConcept("prevalence", _SCHEME, "Prevalence that the certainty assumes")
_LEANING: Final = CodedConcept("leaning", _SCHEME, "Finding that the certainty is of")
_REFERRED: Final = CodedConcept("referred", _SCHEME, "A human must look")
_REASON: Final = CodedConcept("reason", _SCHEME, "Reason why a human must look")
_PATTERN: Final = CodedConcept("pattern", _SCHEME, "Pattern of pneumonia on the image")
_REASONS: Final[dict[Reason, str]] = {
    "uncertain_finding": "The finding is uncertain",
    "uncertain_type": "The pattern of pneumonia is uncertain",
    "not_a_chest_film": "The image shows no upright chest",
    "outside_population": "The age is unknown, or none that the models learned from",
    "lateral_view": "The view is lateral",
    "release_stopped": "The release is stopped, so that it judges no image",
}
_REJECTIONS: Final[dict[RejectionReason, CodedConcept]] = {
    "quality": CodedConcept("113001", "DCM", "Rejected for Quality Reasons"),
    "patient_safety": CodedConcept("113037", "DCM", "Rejected for Patient Safety Reasons"),
    "worklist_entry": CodedConcept("113038", "DCM", "Incorrect Modality Worklist Entry"),
    "retention": CodedConcept("113039", "DCM", "Data Retention Policy Expired"),
}
_WITHDRAWN: Final = CodedConcept("withdrawn", _SCHEME, "Why the answer is withdrawn")
_UNREADABLE: Final = CodedConcept("unreadable", _SCHEME, "The image could not be read")


def make_report(
    batch: Batch,
    answer: StudyAnswer,
    headers: Mapping[Sha256, Dataset],
    uid: Callable[[str], str],
    before: Batch | None = None,
) -> bytes:
    """A DICOM file of the result of a batch; equal arguments give equal bytes.

    `headers` are those of the objects, by instance; `uid` is a UID for what is named; `before` is the study's last
    batch that has a report.
    """
    images = {instance: _evidence(header) for instance, header in headers.items()}
    instances = [each.instance for each in (*answer.read, *answer.withdrawn)]
    instances += [each.instance for each in answer.unreadable]
    shown = [images[instance] for instance in instances]
    groups = list(_groups(batch, answer, images, uid))
    # Also where the service read none of the images, and so said nothing.
    _comment(groups[0], *(line for line in (answer.intended_use or INTENDED_USE, answer.notice) if line))
    report = Comprehensive3DSR(
        evidence=shown,
        content=MeasurementReport(
            observation_context=ObservationContext(observer_device_context=_device(uid)),
            procedure_reported=CodedConcept("399208008", "SCT", "Plain X-ray of chest"),
            imaging_measurements=groups,
        )[0],
        series_instance_uid=uid(f"series {batch.study}"),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid(f"result {batch.folder}"),
        instance_number=batch.number,
        manufacturer=_MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=None if before is None else [_predecessor(before, shown[0], uid)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description="pneumoserve: research only, not for clinical use",
    )
    _set_times(report, datetime.fromisoformat(answer.time).astimezone())
    report.CodingSchemeIdentificationSequence = [_describe_scheme()]
    out = io.BytesIO()
    pydicom.dcmwrite(out, report, enforce_file_format=True)
    return out.getvalue()


def _set_times(report: Comprehensive3DSR, moment: datetime) -> None:
    """State when it was answered, in local time as the study's; highdicom states when it was written."""
    for prefix in ("Content", "InstanceCreation"):
        setattr(report, f"{prefix}Date", moment.strftime("%Y%m%d"))
        setattr(report, f"{prefix}Time", moment.strftime("%H%M%S.%f"))
    for equipment in report.ContributingEquipmentSequence:
        equipment["ContributionDateTime"].value = moment.strftime("%Y%m%d%H%M%S.%f")


def _describe_scheme() -> Dataset:
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = _SCHEME, "Codes of pneumoserve"
    return scheme


def _evidence(header: Dataset) -> Dataset:
    """What a report copies of an image, with all that the standard wants there."""
    evidence = Dataset()
    for name in _COPIED:
        if name in header:
            evidence[name] = header[name]
    for name in _EMPTY:
        setattr(evidence, name, header.get(name) or None)
    if evidence.PatientSex not in _SEXES:
        evidence.PatientSex = None
    return evidence


def _groups(
    batch: Batch, answer: StudyAnswer, images: Mapping[Sha256, Dataset], uid: Callable[[str], str]
) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    """The study as a whole, then each image."""
    prevalence = answer.assumed_prevalence

    def track(what: str, name: str) -> TrackingIdentifier:
        return TrackingIdentifier(uid=uid(f"tracking {batch.folder} {what}"), identifier=name)

    algorithm = AlgorithmIdentification(_MANUFACTURER, answer.release or "none", manufacturer=_MANUFACTURER)
    if answer.study is not None:
        # After a withdrawal it is of images that nobody sends any more.
        shown = [images[each.instance] for each in answer.read]
        yield _group(track("study", "study"), algorithm, answer.study, shown, prevalence)
    for each in answer.read:
        name = track(each.instance, each.prediction_id)
        yield _group(name, algorithm, each.decision, [images[each.instance]], prevalence)
    for each in answer.withdrawn:
        yield _withdrawn(track(each.instance, each.prediction_id), images[each.instance], answer.why)
    for left in answer.unreadable:
        yield _unreadable(track(left.instance, "unreadable"), images[left.instance], left.why)


def _group(
    name: TrackingIdentifier,
    algorithm: AlgorithmIdentification,
    decision: Decision,
    images: Sequence[Dataset],
    prevalence: float | None,
) -> MeasurementsAndQualitativeEvaluations:
    measurements = []
    evaluations = [QualitativeEvaluation(_REFERRED, _YES if decision.referred else _NO)]
    evaluations += [QualitativeEvaluation(_REASON, _own(reason, _REASONS[reason])) for reason in decision.reasons]
    if decision.pneumonia_type is not None:
        pattern = _own(decision.pneumonia_type, f"{decision.pneumonia_type.capitalize()} pattern, no microbiology")
        evaluations.append(QualitativeEvaluation(_PATTERN, pattern))
    if decision.confidence is not None:
        measurements.append(Measurement(_CERTAINTY, round(decision.confidence * 100, 1), _PERCENT))
        if decision.leaning is not None:
            evaluations.append(QualitativeEvaluation(_LEANING, _FINDINGS[decision.leaning]))
        if prevalence is not None:
            measurements.append(Measurement(_PREVALENCE, round(prevalence * 100, 1), _PERCENT))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=name,
        finding_type=_FINDINGS[decision.finding],
        algorithm_id=algorithm,
        measurements=measurements or None,
        qualitative_evaluations=evaluations,
        source_images=[SourceImageForMeasurementGroup.from_source_image(image) for image in images],
    )


def _withdrawn(
    name: TrackingIdentifier, image: Dataset, why: RejectionReason | None
) -> MeasurementsAndQualitativeEvaluations:
    evaluations = [] if why is None else [QualitativeEvaluation(_WITHDRAWN, _REJECTIONS[why])]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=name,
        finding_type=_FINDINGS[None],
        qualitative_evaluations=[*evaluations, QualitativeEvaluation(_REFERRED, _YES)],
        # highdicom would look at its pixels' description, which a rejection note does not have.
        source_images=[SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )
    _comment(group, "The answer for this image is withdrawn, since the image was rejected; disregard earlier reports.")
    return group


def _unreadable(name: TrackingIdentifier, image: Dataset, why: str) -> MeasurementsAndQualitativeEvaluations:
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=name,
        finding_type=_FINDINGS[None],
        qualitative_evaluations=[QualitativeEvaluation(_UNREADABLE, _YES), QualitativeEvaluation(_REFERRED, _YES)],
        source_images=[SourceImageForMeasurementGroup.from_source_image(image)],
    )
    _comment(group, why)
    return group


def _comment(group: MeasurementsAndQualitativeEvaluations, *comments: str) -> None:
    for comment in comments:
        group[0].ContentSequence.append(TextContentItem(_COMMENT, comment, RelationshipTypeValues.CONTAINS))


def _own(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, _SCHEME, meaning)


def _device(uid: Callable[[str], str]) -> ObserverContext:
    device = DeviceObserverIdentifyingAttributes(uid=uid("device"), name=_MANUFACTURER, manufacturer_name=_MANUFACTURER)
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def _predecessor(batch: Batch, image: Dataset, uid: Callable[[str], str]) -> Dataset:
    """The report of an earlier batch, as far as it is referred to."""
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = Comprehensive3DSRStorage, uid(f"result {batch.folder}")
    report.StudyInstanceUID, report.SeriesInstanceUID = image.StudyInstanceUID, uid(f"series {batch.study}")
    return report
