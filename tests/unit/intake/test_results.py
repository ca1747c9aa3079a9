"""A result is read back by highdicom as it was meant, is the same on a second try, and claims nothing."""

from __future__ import annotations

import io

import pydicom
from highdicom.sr import MeasurementsAndQualitativeEvaluations, srread

from pneumoserve.decision import Decision
from pneumoserve.intake.header import read_header
from pneumoserve.intake.results import make_report
from pneumoserve.intake.spool import Batch, LeftOut, ReadImage, StudyAnswer
from pneumoserve.store import MemoryStore
from tests.support.intake import PNEUMONIA, STUDY, groups_of, make_object, make_spool

UNSURE = Decision(
    finding=None, pneumonia_type=None, confidence=0.6, referred=True,
    reasons=("uncertain_finding", "outside_population"), leaning="normal",
)  # fmt: skip
ANSWER = StudyAnswer(
    time="2026-12-01T10:20:30.123Z",
    release="0123456789ab",
    intended_use="Research only, not for clinical use.",
    assumed_prevalence=0.5,
    notice="A pattern, no microbiology.",
    read=(
        ReadImage(instance="1", prediction_id="01890a5d-ac96-774b-bcce-b302099a8057", decision=PNEUMONIA),
        ReadImage(instance="2", prediction_id="01890a5d-ac96-774b-bcce-b302099a8058", decision=UNSURE),
    ),
    unreadable=(LeftOut(instance="3", why="The DICOM object is damaged."),),
    unread=(),
    study=PNEUMONIA,
)
HEADERS = {str(number): read_header(make_object(number)) for number in (1, 2, 3)}


def report(number: int = 1, answer: StudyAnswer = ANSWER, **attributes: str) -> bytes:
    headers = HEADERS | ({"1": read_header(make_object(1, **attributes))} if attributes else {})
    before = Batch("a" * 64, 1) if number > 1 else None
    return make_report(Batch("a" * 64, number), answer, headers, make_spool(MemoryStore()).uid, before)


def texts_of(group: MeasurementsAndQualitativeEvaluations) -> list[str]:
    return [item.TextValue for item in group[0].ContentSequence if "TextValue" in item]


def test_a_result_reads_back_as_it_was_meant() -> None:
    document = srread(io.BytesIO(report()))
    assert (document.PatientID, str(document.PatientName), document.StudyInstanceUID) == (
        "MRN-4711", "Beispiel^Änne", STUDY,
    )  # fmt: skip
    assert (document.VerificationFlag, document.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    evidence = {str(instance) for _, _, instance, _ in document.get_evidence()}
    assert evidence == {f"{STUDY}.1.{number}" for number in (1, 2, 3)}
    whole, first, second, unreadable = groups_of(document)
    assert [group.finding_type.meaning for group in (whole, first, second, unreadable)] == [
        "Pneumonia", "Pneumonia", "Undetermined", "Undetermined",
    ]  # fmt: skip
    assert [each.value for each in first.get_measurements()] == [98.7, 50.0]
    assert first.tracking_identifier == "01890a5d-ac96-774b-bcce-b302099a8057"
    reasons = [each.value.value for each in second.get_qualitative_evaluations() if each.name.value == "reason"]
    assert reasons == ["uncertain_finding", "outside_population"]
    assert {ANSWER.intended_use, ANSWER.notice, ANSWER.release} <= set(texts_of(whole))
    assert "The DICOM object is damaged." in texts_of(unreadable)


def test_a_second_try_has_the_same_bytes_and_a_later_result_names_the_first() -> None:
    assert report() == report()
    first, second = (pydicom.dcmread(io.BytesIO(report(number))) for number in (1, 2))
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    (study,) = second.PredecessorDocumentsSequence
    (named,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first


def test_a_result_without_an_answer_says_what_it_is_not_for_too() -> None:
    nothing = ANSWER.model_copy(update={"read": (), "study": None, "intended_use": "", "release": ""})
    (unreadable,) = groups_of(srread(io.BytesIO(report(answer=nothing))))
    assert any("not cleared for clinical use" in text for text in texts_of(unreadable))


def test_attributes_that_break_the_standard_break_no_result() -> None:
    odd = pydicom.dcmread(io.BytesIO(report(PatientSex="X", StudyID="", StudyTime="", StudyDate="")))
    assert (odd.PatientSex, odd.StudyTime) == ("", "")
