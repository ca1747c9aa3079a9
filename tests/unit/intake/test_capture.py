"""A picture of a result has the report's words, names nobody, and says what it is not for."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom.uid import SecondaryCaptureImageStorage

from pneumoserve.intake.capture import _say_all, make_capture
from pneumoserve.intake.spool import Batch, StudyAnswer
from pneumoserve.store import MemoryStore
from tests.support.intake import make_spool
from tests.unit.intake.test_results import ANSWER, HEADERS, report

_BATCH = Batch("a" * 64, 1)
_LINE = 30


def capture(answer: StudyAnswer = ANSWER) -> bytes:
    return make_capture(_BATCH, answer, HEADERS, make_spool(MemoryStore()).uid)


def test_a_picture_is_the_same_on_a_second_try_and_belongs_to_its_study() -> None:
    assert capture() == capture()
    picture, written = (pydicom.dcmread(io.BytesIO(each)) for each in (capture(), report()))
    assert (picture.SOPClassUID, picture.Modality, picture.BurnedInAnnotation) == (
        SecondaryCaptureImageStorage, "OT", "NO",
    )  # fmt: skip
    for name in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "ContentTime", "SeriesDescription"):
        assert picture[name].value == written[name].value
    assert len({picture.SOPInstanceUID, written.SOPInstanceUID, HEADERS["1"].SOPInstanceUID}) == 3
    assert picture.SeriesInstanceUID not in {written.SeriesInstanceUID, HEADERS["1"].SeriesInstanceUID}


def test_its_text_is_whole_between_two_banners() -> None:
    long = ANSWER.model_copy(update={"read": ANSWER.read * 10, "notice": "No microbiology. " * 30})
    for answer in (ANSWER, long):
        pixels = pydicom.dcmread(io.BytesIO(capture(answer))).pixel_array
        top, text, bottom = pixels[:_LINE], pixels[_LINE:-_LINE], pixels[-_LINE:]
        for banner in (top, bottom):
            assert banner.mean() > 200
            assert (banner < 50).any()
        # Nothing reaches the edges, where it would be cut off.
        assert not text[:, :20].any()
        assert not text[:, -20:].any()
        assert text[-_LINE:].max() < 50
        assert np.count_nonzero(text.max(axis=1)) > 100


def test_a_result_without_an_answer_has_a_picture_too() -> None:
    nothing = ANSWER.model_copy(update={"read": (), "study": None, "intended_use": "", "release": ""})
    assert pydicom.dcmread(io.BytesIO(capture(nothing))).pixel_array.any()


def test_a_withdrawal_has_a_picture_that_says_so() -> None:
    changed = {"read": (), "unreadable": (), "study": None, "withdrawn": ANSWER.read[:1], "why": "quality"}
    withdrawal = ANSWER.model_copy(update=changed)
    assert pydicom.dcmread(io.BytesIO(capture(withdrawal))).pixel_array.any()
    said = list(_say_all(withdrawal))
    assert any("is withdrawn" in line and "Rejected for Quality Reasons" in line for line in said)
