"""Objects of studies as a PACS sends them, and stand-ins for the service and for a destination."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pydicom
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodedConcept
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from pneumoserve.decision import Decision
from pneumoserve.intake.calls import Answers
from pneumoserve.intake.errors import ServiceRefusalError
from pneumoserve.intake.rules import IntakeRules
from pneumoserve.intake.selections import Selection, read_selection
from pneumoserve.intake.spool import Batch, Form, Incoming, Spool
from pneumoserve.records import Pseudonyms
from pneumoserve.store import MemoryStore, Store
from tests.support import dicoms, films

HASHES = Pseudonyms(b"k" * 32)
STUDY = "1.2.826.0.1.3680043.10.1"
PNEUMONIA = Decision(
    finding="pneumonia", pneumonia_type="bacterial", confidence=0.987, referred=False, reasons=(), leaning="pneumonia",
    type_probability=0.9,
)  # fmt: skip
# What a key object selection leaves in the spool by its title, where these rules choose studies by one.
SELECTING = IntakeRules(flag_titles=("113000^DCM",))
SELECTIONS: Mapping[str, list[str]] = {
    "113000^DCM": ["flagged", "notes"],
    "113001^DCM": ["instances", "notes", "rejected"],
    "113003^DCM": [],
}
NORMAL = Decision(
    finding="normal", pneumonia_type=None, confidence=0.99, referred=False, reasons=(), leaning="normal",
)  # fmt: skip


def make_object(number: int = 1, study: str = STUDY, side: int = 64, **attributes: Any) -> bytes:
    """A CR of a child as a file, of so many pixels a side; `attributes` come on top, by keyword."""
    return dicoms.film("explicit", dicoms.scene(12, rows=side, columns=side), 12, **(_name(number, study) | attributes))


def child_xray(number: int, study: str = STUDY, **attributes: Any) -> bytes:
    """The same with a child's X-ray of the sample."""
    with Image.open(films.SAMPLE / "originals" / "virus" / "person1121_virus_1846.jpeg") as image:
        values = np.asarray(image.convert("L")).astype(np.int32)
    return dicoms.film("explicit", values, 8, **(_name(number, study) | attributes))


def _name(number: int, study: str) -> dict[str, Any]:
    """Whose it is, and which object of which study, by keyword."""
    return {
        "SOPInstanceUID": f"{study}.1.{number}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "PatientName": "Beispiel^Änne",
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientID": "MRN-4711",
        "PatientBirthDate": "20220101",
        "PatientSex": "F",
        "StudyID": "17",
        "StudyDate": "20261130",
        "StudyTime": "101500",
        "AccessionNumber": "ACC-4711",
        "ReferringPhysicianName": "Meier^Anna",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "ViewPosition": "AP",
    }


def make_incoming(number: int = 1, study: str = STUDY, **attributes: Any) -> Incoming:
    """The same as it came."""
    return Incoming(study, f"{study}.1.{number}", make_object(number, study, **attributes))


def make_note(title: str, *numbers: int, **attributes: Any) -> tuple[Incoming, Selection]:
    """A key object selection of these objects of a study, as it came."""
    file = make_selection(title, *(make_object(number, **attributes) for number in numbers))
    selection = read_selection(file)
    return Incoming(STUDY, str(selection.header.SOPInstanceUID), file), selection


def make_spool(store: Store) -> Spool:
    """A spool in a store."""
    return Spool(store, HASHES)


class Receiving:
    """What a receiver puts objects into: a bucket in memory."""

    def __init__(self) -> None:
        self.bucket = MemoryStore()
        self.spool = make_spool(self.bucket)

    @property
    def objects(self) -> int:
        return sum(len(self.spool.objects(study)) for study in self.spool.studies())


def groups_of(report: Any) -> list[Any]:
    """A report's groups, as highdicom reads them."""
    return list(report.content.get_image_measurement_groups())


@dataclass
class FakeService:
    """Answers each image with `decision`, and a repeated key with its first answer; `bad` are images it cannot read."""

    decision: Decision = PNEUMONIA
    bad: set[bytes] = field(default_factory=set)
    failing: list[Exception] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    first: dict[str, Answers] = field(default_factory=dict)
    images: dict[str, list[bytes]] = field(default_factory=dict)

    def ask(self, images: Sequence[bytes], named: Mapping[str, str], key: str) -> Answers:
        self.asked.append(dict(named))
        if self.failing:
            raise self.failing.pop(0)
        for index, image in enumerate(images):
            if image in self.bad:
                raise ServiceRefusalError("The DICOM object is damaged.", index)
        assert self.images.setdefault(key, list(images)) == list(images)
        number = len(self.first)
        predictions = [
            (f"01890a5d-ac96-774b-bcce-{number:06d}{index:06d}", self.decision) for index in range(len(images))
        ]
        made = Answers(
            predictions, "0" * 12, "Research only, not for clinical use.", 0.5, "A pattern, no microbiology."
        )
        return self.first.setdefault(key, made)


@dataclass
class FakeDestination:
    """Takes each report at once, as a PACS does that replaces an object by a later one of the same UID."""

    spool: Spool
    id: str = "d" * 12
    open: bool = True
    forms: tuple[str, ...] = get_args(Form)
    taken: dict[Batch, list[bytes]] = field(default_factory=dict)

    def offer(self, batch: Batch) -> None:
        if self.open and not self.spool.is_sent(batch, self.id):
            forms = self.spool.forms_of(batch, self.forms)
            self.taken.setdefault(batch, []).append(b"".join(self.spool.report_of(batch, form) for form in forms))
            self.spool.note_sent(batch, self.id)


# It states when it was made, and is the same when it is sent again.
@functools.cache
def make_selection(title: str, *images: bytes, number: int = 900) -> bytes:
    """A key object selection of a title, such as 113001^DCM, that points at these objects, as a file."""
    code, scheme = title.split("^")
    evidence = [pydicom.dcmread(io.BytesIO(image)) for image in images]
    document = KeyObjectSelectionDocument(
        evidence=evidence,
        content=KeyObjectSelection(CodedConcept(code, scheme, "Title"), referenced_objects=evidence),
        series_instance_uid=f"{evidence[0].StudyInstanceUID}.{number}",
        series_number=number,
        sop_instance_uid=f"{evidence[0].StudyInstanceUID}.{number}.1",
        instance_number=1,
        manufacturer="PACS",
        institution_name="Hospital",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    out = io.BytesIO()
    pydicom.dcmwrite(out, document, enforce_file_format=True)
    return out.getvalue()
