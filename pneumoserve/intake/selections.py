"""Key object selections: documents by which people point at objects, to flag their studies or to reject them.

A rejection note is one whose title says so (IHE RAD, Imaging Object Change Management).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pydicom
from pydicom.dataset import Dataset

from pneumoserve.imaging import ImageError
from pneumoserve.imaging.elements import read_file
from pneumoserve.intake import concepts
from pneumoserve.intake.rules import KEY_OBJECTS
from pneumoserve.records import RejectionReason

# The titles of rejection notes.
REJECTIONS: Final[Mapping[str, RejectionReason]] = {
    f"{concept.value}^{concept.scheme_designator}": why for why, concept in concepts.REJECTIONS.items()
}
# Of a study of 5,000 objects and more.
_MAX_BYTES: Final = 4 * 1024 * 1024
_OF_PATIENT: Final = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """A document: its title as CODE^SCHEME, and the objects that it points at, by study and instance UID.

    Each object is given with what a report copies of an image, as far as the document knows it.
    """

    header: Dataset
    title: str
    studies: Mapping[str, Mapping[str, Dataset]]

    @property
    def images(self) -> dict[str, Dataset]:
        """All objects by instance UID."""
        return {uid: image for images in self.studies.values() for uid, image in images.items()}


def read_selection(file: bytes) -> Selection:
    """A key object selection.

    Raises:
        ImageError: it is damaged, too large, or points at nothing.
    """
    if len(file) > _MAX_BYTES:
        raise ImageError(413, f"The document is larger than {_MAX_BYTES >> 20} MiB; send several.")
    # pydicom reads what is cut short as if it were shorter.
    read_file(file, ())
    try:
        document = pydicom.dcmread(io.BytesIO(file))
        (concept,) = document.ConceptNameCodeSequence
        title = f"{concept.CodeValue}^{concept.CodingSchemeDesignator}"
        studies = {
            str(study.StudyInstanceUID): dict(_objects_of(document, study))
            for study in document.CurrentRequestedProcedureEvidenceSequence
        }
    except Exception as error:
        # Damaged values fail in many ways inside pydicom; none of its texts is safe to show.
        raise ImageError(400, "The document is damaged or cut short; send it complete.") from error
    if not all(studies.values()) or not studies or document.SOPClassUID != KEY_OBJECTS:
        raise ImageError(400, "The document points at no object; send it as the standard has it.")
    return Selection(document, title, studies)


def _objects_of(document: Dataset, study: Dataset) -> list[tuple[str, Dataset]]:
    found = []
    for series in study.ReferencedSeriesSequence:
        for each in series.ReferencedSOPSequence:
            image = Dataset()
            for name in _OF_PATIENT:
                if name in document:
                    image[name] = document[name]
            image.SOPClassUID, image.SOPInstanceUID = each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID
            image.StudyInstanceUID, image.SeriesInstanceUID = study.StudyInstanceUID, series.SeriesInstanceUID
            found.append((str(image.SOPInstanceUID), image))
    return found
