"""Objects of studies as a PACS sends them, and stand-ins for the service and for a destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pneumoserve.decision import Decision
from pneumoserve.intake.calls import Answers
from pneumoserve.intake.errors import ServiceRefusalError
from pneumoserve.intake.spool import Batch, Incoming, Spool
from pneumoserve.records import Pseudonyms
from pneumoserve.store import Store
from tests.support import dicoms

HASHES = Pseudonyms(b"k" * 32)
STUDY = "1.2.826.0.1.3680043.10.1"
PNEUMONIA = Decision(
    finding="pneumonia", pneumonia_type="bacterial", confidence=0.987, referred=False, reasons=(), leaning="pneumonia",
    type_probability=0.9,
)  # fmt: skip
NORMAL = Decision(
    finding="normal", pneumonia_type=None, confidence=0.99, referred=False, reasons=(), leaning="normal",
)  # fmt: skip


def make_object(number: int = 1, study: str = STUDY, side: int = 64, **attributes: Any) -> bytes:
    """A CR of a child as a file, of so many pixels a side; `attributes` come on top, by keyword."""
    named = {
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
    return dicoms.film("explicit", dicoms.scene(12, rows=side, columns=side), 12, **(named | attributes))


def make_incoming(number: int = 1, study: str = STUDY, **attributes: Any) -> Incoming:
    """The same as it came."""
    return Incoming(study, f"{study}.1.{number}", make_object(number, study, **attributes))


def make_spool(store: Store) -> Spool:
    """A spool in a store."""
    return Spool(store, HASHES)


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
    taken: dict[Batch, list[bytes]] = field(default_factory=dict)

    def offer(self, batch: Batch) -> None:
        if self.open and not self.spool.is_sent(batch, self.id):
            self.taken.setdefault(batch, []).append(self.spool.report_of(batch))
            self.spool.note_sent(batch, self.id)
