"""DICOM CR and DX objects: one frame to gray pixels, facts without a person, and the copy that may be kept."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import struct
import warnings
from collections.abc import Callable
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from pneumoserve._imagefile import Facts, ImageError, jpeg_frame_size, spread

# pydicom logs and warns with the values of the attributes it dislikes, and those may name a patient.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
logging.getLogger("pydicom").propagate = False

_FILM_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
}
_CLOSED_LISTS: Final[dict[str, frozenset[str]]] = {
    "Modality": frozenset({"CR", "DX"}),
    "ViewPosition": frozenset({"PA", "AP", "LL", "RL", "LATERAL", "LAT", "RLD", "LLD", "RLO", "LLO"}),
    "PatientSex": frozenset({"M", "F", "O"}),
    "BodyPartExamined": frozenset((
        "ABDOMEN", "ANKLE", "ARM", "CHEST", "CLAVICLE", "COCCYX", "CSPINE", "ELBOW", "EXTREMITY", "FEMUR", "FINGER",
        "FOOT", "FOREARM", "HAND", "HEAD", "HEART", "HIP", "HUMERUS", "JAW", "KNEE", "LEG", "LSPINE", "LUNG",
        "MANDIBLE", "NECK", "PELVIS", "RIB", "RIBS", "SHOULDER", "SKULL", "SPINE", "STERNUM", "THIGH", "THORAX",
        "THUMB", "TIBIA", "TOE", "TSPINE", "WHOLEBODY", "WRIST",
    )),
}  # fmt: skip
# What the archive keeps: the pixels, what is needed to show them as they were shown to the model, and
# facts that name no person. Everything else, private groups included, is left out.
_KEPT: Final = ("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "PatientAge", "PatientSex",
                "PhotometricInterpretation")  # fmt: skip
# Kept where they are numbers: a file may hold any text in them.
_NUMBERS: Final = (
    "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue",
    "RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth",
)  # fmt: skip
_SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing")
# Kept where they say what the standard lets them say (PS3.3 C.7.6.3, C.8.11.3, C.11.2, C.11.6).
_CODES: Final[dict[str, frozenset[str]]] = {
    "VOILUTFunction": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "BurnedInAnnotation": frozenset({"YES", "NO"}),
    "LossyImageCompression": frozenset({"00", "01"}),
}
_LUT_SEQUENCES: Final = ("ModalityLUTSequence", "VOILUTSequence")
_LUT_KEPT: Final = ("LUTDescriptor", "LUTData")

SizeCheck = Callable[[int, int], None]


def decode(data: bytes, check_size: SizeCheck) -> tuple[Image.Image, bytes, Facts]:
    """The frame as an 8-bit gray image, the reduced object, and the facts.

    Modality LUT or rescale, then VOI LUT or window, as PS3.3 C.11.1 and C.11.2 order them; MONOCHROME1 inverted.

    Raises:
        ImageError: 400 damaged or without pixels, 413 too large, 415 not one CR/DX film.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _refuse_deflated(data)
            dataset = pydicom.dcmread(io.BytesIO(data))
            _check(dataset, check_size)
            _check_encoded_size(dataset, check_size)
            facts = _facts(dataset)
            kept = _reduced(dataset, facts)
            # The pixels are read through the copy that is kept: what is archived decodes to what was judged.
            return _pixels(kept), _written(kept), facts
        except ImageError:
            raise
        except Exception as error:
            # Damaged objects fail in many ways inside pydicom and the codecs; none of their texts is safe to show.
            raise ImageError(400, "The DICOM object is damaged or cut short; send the complete file.") from error


def _refuse_deflated(data: bytes) -> None:
    """A deflated data set would be inflated whole, to any size, before a limit could be checked."""
    file = io.BytesIO(data)
    read_preamble(file, force=False)
    if _read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ImageError(415, "Deflated DICOM objects are not accepted; send another transfer syntax.")


def _check(dataset: Dataset, check_size: SizeCheck) -> None:
    if "PixelData" not in dataset or not dataset.get("Rows") or not dataset.get("Columns"):
        raise ImageError(400, "The DICOM object holds no pixel data; send the image object of the study.")
    if str(dataset.get("SOPClassUID", "")) not in _FILM_CLASSES:
        raise ImageError(415, "The DICOM object is no CR or DX film; send the radiograph of the study.")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError(415, "The DICOM object holds several frames; send one film an object.")
    if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(415, "The DICOM object is not in gray (MONOCHROME1 or MONOCHROME2).")
    check_size(int(dataset.Columns), int(dataset.Rows))


def _check_encoded_size(dataset: Dataset, check_size: SizeCheck) -> None:
    """Hold the compressed stream to the limit too: its own header decides how much a codec allocates."""
    if not UID(dataset.file_meta.TransferSyntaxUID).is_compressed:
        return
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    size = jpeg_frame_size(frame) if frame.startswith(b"\xff\xd8") else None
    if frame.startswith(b"\xff\x4f\xff\x51"):
        # JPEG 2000 SIZ (ITU-T T.800 A.5.1): Lsiz, Rsiz, then the grid's width and height.
        size = struct.unpack_from(">II", frame, 8)
    if size is not None:
        check_size(*size)


def _pixels(dataset: Dataset) -> Image.Image:
    values = _decoded(dataset)
    if values.shape != (dataset.Rows, dataset.Columns):
        raise ImageError(400, "The DICOM object's pixels do not have the size its header says.")
    values = apply_modality_lut(values, dataset)
    if dataset.get("VOILUTSequence") or dataset.get("WindowWidth"):
        values = apply_voi_lut(values, dataset)
    scaled = spread(values)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        scaled = 255 - scaled
    return Image.fromarray(scaled)


def _decoded(dataset: Dataset) -> npt.NDArray[Any]:
    """Decode with a codec fixed for each transfer syntax, so that an extra package changes no pixel."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if not syntax.is_compressed:
        return np.asarray(dataset.pixel_array)
    decoder = get_decoder(syntax)
    plugin = {"pylibjpeg", "pydicom", "gdcm"} & set(decoder.available_plugins)
    chosen = next((name for name in ("pydicom", "pylibjpeg", "gdcm") if name in plugin), None)
    if chosen is None:
        raise ImageError(415, f"DICOM objects compressed as {syntax.name} are not accepted; send another syntax.")
    values, _ = decoder.as_array(dataset, decoding_plugin=chosen)
    return np.asarray(values)


def _facts(dataset: Dataset) -> Facts:
    return Facts(
        modality=_listed(dataset, "Modality"),
        body_part=_listed(dataset, "BodyPartExamined"),
        view_position=_listed(dataset, "ViewPosition"),
        age_years=_age_years(dataset),
        sex=_listed(dataset, "PatientSex"),
    )


def _listed(dataset: Dataset, keyword: str) -> str | None:
    """The attribute's value if its closed list has it, OTHER if not, None where there is none."""
    value = re.sub(r"[^A-Z]", "", str(dataset.get(keyword) or "").upper())
    if not value:
        return None
    return value if value in _CLOSED_LISTS[keyword] else "OTHER"


def _age_years(dataset: Dataset) -> float | None:
    """The age at the study in years, by PatientAge (PS3.5 AS) or else by birth and study date; capped at 90.

    Ages over 89 identify people (45 CFR 164.514(b)(2)), and no policy of ours tells them apart.
    """
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY])\s*", str(dataset.get("PatientAge") or ""))
    if match:
        years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
        return round(min(years, 90.0), 2)
    born = _date(dataset.get("PatientBirthDate"))
    taken = _date(dataset.get("StudyDate") or dataset.get("ContentDate"))
    if born is None or taken is None or taken < born:
        return None
    return round(min((taken - born).days / 365.25, 90.0), 2)


def _date(value: Any) -> date | None:
    match = re.fullmatch(r"\s*(\d{4})(\d\d)(\d\d)\s*", str(value or ""))
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def _reduced(dataset: Dataset, facts: Facts) -> Dataset:
    kept = Dataset()
    for keyword in (*_KEPT, *_NUMBERS, *_CODES, *_SPACINGS):
        if keyword in dataset:
            kept[keyword] = dataset[keyword]
    _clear_text(kept)
    for keyword in _LUT_SEQUENCES:
        if dataset.get(keyword):
            setattr(kept, keyword, [_reduced_lut(item) for item in dataset[keyword].value])
    kept.PatientAge = _age_string(facts.age_years)
    kept.PatientIdentityRemoved = "YES"
    kept.DeidentificationMethod = "pneumoserve attribute allow-list 1"
    kept.PixelData = dataset.PixelData
    kept["PixelData"].VR = dataset["PixelData"].VR
    kept["PixelData"].is_undefined_length = dataset["PixelData"].is_undefined_length
    kept.SOPInstanceUID = _uid_of(bytes(dataset.PixelData))
    kept.file_meta = _file_meta(kept, UID(dataset.file_meta.TransferSyntaxUID))
    return kept


def _clear_text(kept: Dataset) -> None:
    """Leave no free text in attributes that a careless hand may have typed it into.

    Raises:
        ImageError: 400 where there is text for a number that the pixels need; without it they would change in silence.
    """
    for keyword in _CLOSED_LISTS:
        if keyword in kept:
            setattr(kept, keyword, _listed(kept, keyword) or "")
    for keyword, codes in _CODES.items():
        if kept.get(keyword) and str(kept[keyword].value) not in codes:
            kept[keyword].value = "OTHER"
    for keyword in _NUMBERS:
        if not _is_number(kept.get(keyword)):
            raise ImageError(400, f"The DICOM object's {keyword} is no number; correct it.")
    for keyword in _SPACINGS:
        if not _is_number(kept.get(keyword)):
            del kept[keyword]


def _is_number(value: Any) -> bool:
    """Whether a value, or each of several, is a number or empty."""
    try:
        for each in value if isinstance(value, (list, MultiValue)) else [value]:
            float(each or 0)
    except (TypeError, ValueError):
        return False
    return True


def _reduced_lut(item: Dataset) -> Dataset:
    kept = Dataset()
    for keyword in _LUT_KEPT:
        if keyword in item:
            kept[keyword] = item[keyword]
    return kept


def _age_string(years: float | None) -> str:
    if years is None:
        return ""
    return f"{int(years):03d}Y" if years >= 2 else f"{round(years * 12):03d}M"


def _uid_of(pixels: bytes) -> UID:
    """An instance UID made of the pixels alone (PS3.5 B.2: 2.25 and a 128-bit integer)."""
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(pixels).digest()[:16], 'big')}")


def _file_meta(dataset: Dataset, syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID("2.25.199424713577209306846127205412163212893")
    return meta


def _written(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()
