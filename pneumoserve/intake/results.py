"""A study's result as a DICOM structured report: TID 1500, as IHE's profile AI Results uses it.

It is for people to check: unverified, preliminary, and it says what it is not for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from highdicom.sr import (
    AlgorithmIdentification,
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
from pneumoserve.decision import Decision
from pneumoserve.imaging.dicom import write_file
from pneumoserve.intake.concepts import (
    CHEST_XRAY,
    COMMENT,
    DISREGARD,
    FINDINGS,
    MANUFACTURER,
    PERCENT,
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
from pneumoserve.records import RejectionReason
from pneumoserve.release.schema import INTENDED_USE

_SERIES_NUMBER: Final = 9001
SERIES_DESCRIPTION: Final = "pneumoserve: research only, not for clinical use"
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
    images = {instance: copy_evidence(header) for instance, header in headers.items()}
    shown = [images[instance] for instance in answer.shown]
    groups = list(_groups(batch, answer, images, uid))
    # Also where the service read none of the images, and so said nothing.
    _comment(groups[0], *(line for line in (answer.intended_use or INTENDED_USE, answer.notice) if line))
    report = Comprehensive3DSR(
        evidence=shown,
        content=MeasurementReport(
            observation_context=ObservationContext(observer_device_context=_device(uid)),
            procedure_reported=CHEST_XRAY,
            imaging_measurements=groups,
        )[0],
        series_instance_uid=uid(f"series {batch.study}"),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid(f"result {batch.folder}"),
        instance_number=batch.number,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=None if before is None else [_predecessor(before, shown[0], uid)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=SERIES_DESCRIPTION,
    )
    set_times(report, datetime.fromisoformat(answer.time).astimezone())
    report.CodingSchemeIdentificationSequence = [_describe_scheme()]
    return write_file(report)


def set_times(report: Dataset, moment: datetime) -> None:
    """State when it was answered, in local time as the study's; highdicom states when it was written."""
    for prefix in ("Content", "InstanceCreation"):
        setattr(report, f"{prefix}Date", moment.strftime("%Y%m%d"))
        setattr(report, f"{prefix}Time", moment.strftime("%H%M%S.%f"))
    for equipment in report.get("ContributingEquipmentSequence", []):
        equipment["ContributionDateTime"].value = moment.strftime("%Y%m%d%H%M%S.%f")


def _describe_scheme() -> Dataset:
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "Codes of pneumoserve"
    return scheme


def copy_evidence(header: Dataset) -> Dataset:
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

    algorithm = AlgorithmIdentification(MANUFACTURER, answer.release or "none", manufacturer=MANUFACTURER)
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
    tracking: TrackingIdentifier,
    algorithm: AlgorithmIdentification,
    decision: Decision,
    images: Sequence[Dataset],
    prevalence: float | None,
) -> MeasurementsAndQualitativeEvaluations:
    measurements = [Measurement(name, percent, PERCENT) for name, percent in measure(decision, prevalence)]
    evaluations = [QualitativeEvaluation(name, value) for name, value in evaluate(decision)]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        finding_type=FINDINGS[decision.finding],
        algorithm_id=algorithm,
        measurements=measurements or None,
        qualitative_evaluations=evaluations,
        source_images=[SourceImageForMeasurementGroup.from_source_image(image) for image in images],
    )


def _withdrawn(
    name: TrackingIdentifier, image: Dataset, why: RejectionReason | None
) -> MeasurementsAndQualitativeEvaluations:
    evaluations = [] if why is None else [QualitativeEvaluation(WITHDRAWN, REJECTIONS[why])]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=name,
        finding_type=FINDINGS[None],
        qualitative_evaluations=[*evaluations, QualitativeEvaluation(REFERRED, YES)],
        # highdicom would look at its pixels' description, which a rejection note does not have.
        source_images=[SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )
    _comment(group, DISREGARD)
    return group


def _unreadable(name: TrackingIdentifier, image: Dataset, why: str) -> MeasurementsAndQualitativeEvaluations:
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=name,
        finding_type=FINDINGS[None],
        qualitative_evaluations=[QualitativeEvaluation(UNREADABLE, YES), QualitativeEvaluation(REFERRED, YES)],
        source_images=[SourceImageForMeasurementGroup.from_source_image(image)],
    )
    _comment(group, why)
    return group


def _comment(group: MeasurementsAndQualitativeEvaluations, *comments: str) -> None:
    for comment in comments:
        group[0].ContentSequence.append(TextContentItem(COMMENT, comment, RelationshipTypeValues.CONTAINS))


def _device(uid: Callable[[str], str]) -> ObserverContext:
    device = DeviceObserverIdentifyingAttributes(uid=uid("device"), name=MANUFACTURER, manufacturer_name=MANUFACTURER)
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def _predecessor(batch: Batch, image: Dataset, uid: Callable[[str], str]) -> Dataset:
    """The report of an earlier batch, as far as it is referred to."""
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = Comprehensive3DSRStorage, uid(f"result {batch.folder}")
    report.StudyInstanceUID, report.SeriesInstanceUID = image.StudyInstanceUID, uid(f"series {batch.study}")
    return report
