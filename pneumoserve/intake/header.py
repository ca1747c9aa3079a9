"""The attributes of a DICOM object that intake needs, read without its pixels and within bounds."""

from __future__ import annotations

import io
from typing import Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import UID

from pneumoserve.imaging import ImageError
from pneumoserve.imaging.elements import PIXEL_DATA, read_file, read_fragments

# What makes an object an instance of a study.
_IDENTITY: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# What a report copies, and what the rules ask.
_OTHERS: Final = (
    "SpecificCharacterSet", "ImageType", "Modality", "ViewPosition", "BodyPartExamined", "PatientAge", "StudyDate",
    "StudyTime", "ContentDate", "StudyID", "AccessionNumber", "ReferringPhysicianName", "RequestingPhysician",
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "Rows", "Columns", "BitsAllocated", "NumberOfFrames",
)  # fmt: skip
_TAGS: Final = {int(tag_for_keyword(name) or 0): name for name in (*_IDENTITY, *_OTHERS)}
IMPLEMENTATION: Final = UID("2.25.199424713577209306846127205412163212893")
_DAMAGED: Final = "The DICOM object is damaged or cut short; send the complete file."


def make_file(data_set: bytes, sop_class: str, instance: str, syntax: str) -> bytes:
    """A DICOM file (PS3.10) of a data set as it was sent; the same data set gives the same bytes."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = IMPLEMENTATION
    out = io.BytesIO()
    out.write(b"\x00" * 128 + b"DICM")
    write_file_meta_info(DicomIO(out), meta, enforce_standard=True)
    return out.getvalue() + data_set


def read_complete(file: bytes) -> Dataset:
    """The attributes of an image, as `read_header` has them.

    Raises:
        ImageError: as of `read_header`; or it has fewer pixels than it announces.
    """
    header, length = _read(file)
    try:
        # At least: an image in color has more.
        samples = (
            int(header.get("Rows") or 0) * int(header.get("Columns") or 0) * int(header.get("NumberOfFrames") or 1)
        )
        announced = samples * int(header.get("BitsAllocated") or 0) // 8
    except (TypeError, ValueError) as error:
        raise ImageError(400, _DAMAGED) from error
    if length is not None and length < announced:
        raise ImageError(400, _DAMAGED)
    return header


def read_header(file: bytes) -> Dataset:
    """The attributes of a file, as far as it has them.

    Raises:
        ImageError: it is damaged, has no pixel data, or lacks what makes it an instance of a study.
    """
    return _read(file)[0]


def _read(file: bytes) -> tuple[Dataset, int | None]:
    """The attributes of a file, and how many bytes its pixel data has; None where that is in fragments."""
    found = read_file(file, {*_TAGS, PIXEL_DATA})
    pixels = found.elements.get(PIXEL_DATA)
    if pixels is None:
        raise ImageError(400, "The DICOM object holds no pixel data; send the image object of the study.")
    if pixels.length is None:
        read_fragments(found, pixels)
    elif pixels.start + pixels.length > len(file):
        raise ImageError(400, _DAMAGED)
    header = Dataset()
    for tag, element in found.elements.items():
        if tag != PIXEL_DATA:
            value, encoding = found.value(element), found.encoding
            header[tag] = RawDataElement(
                Tag(tag), element.vr, len(value), value, 0, element.vr is None, encoding.little_endian
            )
    try:
        header.decode()
        missing = [name for name in _IDENTITY if not header.get(name)]
    except Exception as error:
        # Damaged values fail in many ways inside pydicom; none of its texts is safe to show.
        raise ImageError(400, _DAMAGED) from error
    if missing:
        raise ImageError(400, f"The DICOM object has no {missing[0]}; send it as the standard has it.")
    return header, pixels.length
