"""A study's result as a picture, a DICOM secondary capture: the report's words, for a PACS that shows no TID 1500."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pneumoserve.canonical import Sha256
from pneumoserve.decision import Decision
from pneumoserve.imaging.dicom import write_file
from pneumoserve.intake.concepts import DISREGARD, FINDINGS, MANUFACTURER, REJECTIONS, WITHDRAWN, evaluate, measure
from pneumoserve.intake.header import IMPLEMENTATION
from pneumoserve.intake.results import SERIES_DESCRIPTION, copy_evidence, set_times
from pneumoserve.intake.spool import Batch, StudyAnswer
from pneumoserve.release.schema import INTENDED_USE

_SERIES_NUMBER: Final = 9002
_BANNER: Final = "NOT FOR CLINICAL USE"
# A picture is read at a glance: what is more, the report has.
_MOST_IMAGES: Final = 12
_WIDTH, _MARGIN, _FONT, _LINE = 960, 24, 20, 30
_INDENT: Final = "    "
_PAPER, _INK = 0, 255


def make_capture(
    batch: Batch, answer: StudyAnswer, headers: Mapping[Sha256, Dataset], uid: Callable[[str], str]
) -> bytes:
    """A DICOM file of a picture of the result of a batch; arguments are those of `make_report`."""
    picture = _draw(_say_all(answer))
    # Its elements are the header's own, which others read after this.
    capture = copy.deepcopy(copy_evidence(headers[answer.shown[0]]))
    for name in ("Modality", "Rows", "Columns"):
        capture.pop(name, None)
    capture.SOPClassUID, capture.Modality = SecondaryCaptureImageStorage, "OT"
    capture.SOPInstanceUID, capture.SeriesInstanceUID = uid(f"capture {batch.folder}"), uid(f"captures {batch.study}")
    capture.SeriesNumber, capture.InstanceNumber = _SERIES_NUMBER, batch.number
    capture.SeriesDescription, capture.Manufacturer = SERIES_DESCRIPTION, MANUFACTURER
    capture.ConversionType, capture.ImageType = "SYN", ["DERIVED", "SECONDARY"]
    # It names nobody: a name stands in the attributes alone.
    capture.BurnedInAnnotation, capture.RecognizableVisualFeatures = "NO", "NO"
    capture.PatientOrientation = capture.Laterality = None
    set_times(capture, datetime.fromisoformat(answer.time).astimezone())
    _set_pixels(capture, picture)
    capture.file_meta = FileMetaDataset()
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    capture.file_meta.ImplementationClassUID = IMPLEMENTATION
    return write_file(capture)


def _draw(paragraphs: Iterable[str]) -> Image.Image:
    """Text as a grayscale picture, between two banners that say what it is not for."""
    font = ImageFont.load_default(_FONT)
    lines = [line for paragraph in paragraphs for line in _wrap(paragraph, font.getlength)]
    picture = Image.new("L", (_WIDTH, (len(lines) + 4) * _LINE), _PAPER)
    pen = ImageDraw.Draw(picture)
    for top in (0, picture.height - _LINE):
        pen.rectangle((0, top, _WIDTH, top + _LINE - 1), fill=_INK)
        pen.text((_WIDTH / 2, top + _LINE / 2), _BANNER, fill=_PAPER, font=font, anchor="mm")
    for number, line in enumerate(lines, start=2):
        pen.text((_MARGIN, number * _LINE), line, fill=_INK, font=font)
    return picture


def _wrap(paragraph: str, measure: Callable[[str], float]) -> list[str]:
    """A paragraph as lines that fit the picture; the later ones are indented."""
    lines = [""]
    for word in paragraph.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if measure(longer) <= _WIDTH - 2 * _MARGIN:
            lines[-1] = longer
        else:
            lines.append(_INDENT + word)
    return lines


def _say_all(answer: StudyAnswer) -> Iterator[str]:
    yield f"{MANUFACTURER}, release {answer.release or 'none'}, {answer.time[:19]} UTC: preliminary, unverified"
    yield ""
    if answer.study is not None:
        yield f"Study: {_say(answer.study)}"
        yield from _say_more(answer.study, answer.assumed_prevalence)
    for image in answer.read[:_MOST_IMAGES]:
        yield f"Image {image.prediction_id}: {_say(image.decision)}"
    for image in answer.withdrawn[:_MOST_IMAGES]:
        why = "" if answer.why is None else f" {WITHDRAWN.meaning}: {REJECTIONS[answer.why].meaning}."
        yield f"Image {image.prediction_id}: {DISREGARD}{why}"
    for left in answer.unreadable[:_MOST_IMAGES]:
        yield f"Image that could not be read: {left.why}"
    if max(len(answer.read), len(answer.withdrawn), len(answer.unreadable)) > _MOST_IMAGES:
        yield "More images are in the structured report."
    yield ""
    if answer.notice is not None:
        yield answer.notice
    yield answer.intended_use or INTENDED_USE


def _say(decision: Decision) -> str:
    referred = ", a human must look" if decision.referred else ""
    return f"{FINDINGS[decision.finding].meaning}{referred}"


def _say_more(decision: Decision, prevalence: float | None) -> Iterator[str]:
    for name, percent in measure(decision, prevalence):
        yield f"- {name.meaning}: {percent} %"
    for name, value in evaluate(decision):
        yield f"- {name.meaning}: {value.meaning}"
    yield ""


def _set_pixels(capture: Dataset, picture: Image.Image) -> None:
    capture.Rows, capture.Columns = picture.height, picture.width
    capture.SamplesPerPixel, capture.PhotometricInterpretation = 1, "MONOCHROME2"
    capture.BitsAllocated = capture.BitsStored = 8
    capture.HighBit, capture.PixelRepresentation = 7, 0
    capture.PixelData = picture.tobytes()
    capture["PixelData"].VR = "OB"
