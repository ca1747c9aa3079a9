"""DICOM CR and DX objects: one frame to gray pixels, facts without a person, and the copy that may be kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.tag import Tag
from pydicom.uid import UID

from pneumoserve.imaging.codecs import (
    ACCEPTED_SYNTAXES,
    JPEG2000_SYNTAXES,
    NATIVE_SYNTAXES,
    Shape,
    copy_frame,
    decode_frame,
)
from pneumoserve.imaging.elements import PIXEL_DATA, Element, Encoding, File, read_file, read_first_item, read_fragments
from pneumoserve.imaging.metadata import (
    LARGE_JPEG2000_PIXELS,
    LARGE_PIXELS,
    MAX_BYTES,
    DisplayImage,
    Facts,
    ImageError,
    LargeFilm,
    check_size,
)
from pneumoserve.imaging.raster import Codes, find_codes, map_codes, map_to_gray, to_levels

# pydicom logs and warns with the values of the attributes it dislikes, and those may name a patient.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
logging.getLogger("pydicom").propagate = False

_FILM_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
}
# Manufacturer, Manufacturer's Model Name.
_DEVICE: Final = (0x00080070, 0x00081090)
_LONGEST_DEVICE: Final = 64
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
# A film may offer several windows; of anything else there is one. Numbers of two bytes could be a name.
_WINDOW: Final = {"WindowCenter", "WindowWidth"}
_MAX_WINDOWS: Final = 32
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
_MAX_LUT_BYTES: Final = 2 << 16
_METHOD: Final = "pneumoserve attribute allow-list 1"
# Read for the age alone.
_DATES: Final = ("PatientBirthDate", "StudyDate", "ContentDate")
_MAX_BYTE: Final = 255
# In months. A date of birth is not to be had from a record's age and time.
_WHOLE_YEARS_FROM: Final = 36
_MAX_AGE_MONTHS: Final = 90 * 12
_DAMAGED: Final = "The DICOM object is damaged or cut short; send the complete file."


def _tags(*keywords: str) -> dict[int, str]:
    return {tag: keyword for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None}


_VALUES: Final = _tags(*_KEPT, *_NUMBERS, *_CODES, *_SPACINGS, *_DATES, "DeidentificationMethod")
_SEQUENCES: Final = _tags(*_LUT_SEQUENCES)
_LUT_TAGS: Final = _tags(*_LUT_KEPT)
_READ: Final = frozenset({*_VALUES, *_SEQUENCES, PIXEL_DATA})


def decode(data: bytes, refuse_large: bool) -> tuple[Image.Image, bytes, Facts]:
    """The frame as an 8-bit gray image, the reduced object, and the facts; all are read from the reduced object.

    Modality LUT or rescale, then VOI LUT or window, as PS3.3 C.11.1 and C.11.2 order them; MONOCHROME1 inverted.

    Raises:
        ImageError: 400 damaged or without pixels, 413 too large, 415 not one CR/DX film.
        LargeFilm: large, and `refuse_large` is set.
    """
    with _refuse_damage():
        stored = _reduce(data, refuse_large)
        image, facts = _open(stored)
    return image, stored, facts


def display(data: bytes, refuse_large: bool) -> DisplayImage:
    """The frame for people to look at: the values after modality LUT or rescale at their full depth.

    The first window is the one to begin with; a VOI LUT is no window, so it is applied. MONOCHROME1 is inverted.
    Values that are no whole numbers from 0 to 65535 are moved, or spread, to such.

    Raises:
        ImageError, LargeFilm: as `decode` does.
    """
    with _refuse_damage():
        return _display(_reduce(data, refuse_large))


@contextlib.contextmanager
def _refuse_damage() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ImageError, LargeFilm, MemoryError):
            raise
        except Exception as error:
            # Damaged objects fail in many ways inside pydicom and the codecs; none of their texts is safe to show.
            raise ImageError(400, _DAMAGED) from error


def _reduce(data: bytes, refuse_large: bool) -> bytes:
    """The object as the archive may keep it."""
    file = read_file(data, _READ)
    dataset = _dataset(file)
    _check(file, dataset, refuse_large)
    kept = _reduce_attributes(dataset, file.encoding)
    _set_pixels(kept, file, copy_frame(_frame(file), file.syntax, _shape(file, dataset)))
    stored = write_file(kept)
    if len(stored) > MAX_BYTES:
        raise ImageError(413, "The DICOM object would be kept with more than 32 MiB; send it compressed.")
    return stored


def _open(stored: bytes) -> tuple[Image.Image, Facts]:
    """The film in a reduced object."""
    file = read_file(stored, _READ)
    dataset = _dataset(file)
    shape = _shape(file, dataset)
    codes, bits = decode_frame(_frame(file), file.syntax, shape)
    pixels = map_to_gray(
        lambda top, bottom: codes[top:bottom],
        shape.columns,
        shape.rows,
        lambda present: _values(present, bits, dataset),
    )
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        np.subtract(255, pixels, out=pixels)
    return Image.fromarray(pixels), read_facts(dataset)


def _display(stored: bytes) -> DisplayImage:
    """The film in a reduced object, at its full depth."""
    file = read_file(stored, _READ)
    dataset = _dataset(file)
    shape = _shape(file, dataset)
    read, bits = decode_frame(_frame(file), file.syntax, shape)

    def read_rows(top: int, bottom: int) -> Codes:
        return read[top:bottom]

    codes = find_codes(read_rows, shape.columns, shape.rows)
    values = _rescale(codes, bits, dataset)
    if dataset.get("VOILUTSequence"):
        values = apply_voi_lut(values, dataset)
        window = None
    else:
        window = _window(dataset)
    _check_finite(values)
    levels, base, step = to_levels(values)
    low, high = ((edge - base) / step for edge in window or (float(values.min()), float(values.max())))
    _check_finite(np.array((low, high, step)))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        top = levels.max()
        levels = top - levels
        low, high = float(top) - high, float(top) - low
    shown = levels.astype(np.uint8) if levels.max() <= _MAX_BYTE else levels.astype("<u2")
    pixels = map_codes(read_rows, shape.columns, shape.rows, codes, shown)
    return DisplayImage(pixels.tobytes(), 8 * shown.itemsize, shape.columns, shape.rows, low, high)


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """The values that the first window shows as black and as white (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    center, width = (_first(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        return None
    if dataset.get("VOILUTFunction", "LINEAR") in ("", "LINEAR"):
        center, width = center - 0.5, width - 1
    return center - max(width, 0.0) / 2, center + max(width, 0.0) / 2


def _first(value: Any) -> float | None:
    first = value[0] if isinstance(value, MultiValue) and value else value
    return None if first is None or first == "" else float(first)


def _dataset(file: File) -> Dataset:
    """What was read of a file but its pixels, for pydicom to interpret."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(file.syntax)
    for tag in _VALUES.keys() & file.elements.keys():
        element = file.elements[tag]
        if element.vr not in (None, "UN", *dictionary_VR(tag).split(" or ")):
            # A number under a VR of text, or the other way round, could be a name.
            raise ImageError(400, f"The DICOM object's {_VALUES[tag]} has another VR than the standard's; correct it.")
        # Free text of any length, of which one short sentence is of interest.
        if _VALUES[tag] != "DeidentificationMethod" or element.length == len(_METHOD):
            dataset[tag] = _raw(file, element, file.value(element))
    for tag, keyword in _SEQUENCES.items():
        if tag in file.elements:
            found = read_first_item(file, file.elements[tag], _LUT_TAGS)
            if found:
                setattr(dataset, keyword, [_lut_item(file, found)])
    return dataset


def _lut_item(file: File, found: Mapping[int, Element]) -> Dataset:
    item = Dataset()
    for tag, element in found.items():
        item[tag] = _raw(file, element, file.value(element, _MAX_LUT_BYTES))
    return item


def _raw(file: File, element: Element, value: bytes) -> RawDataElement:
    encoding = file.encoding
    return RawDataElement(
        Tag(element.tag), element.vr, len(value), value, 0, element.vr is None, encoding.little_endian
    )


def _check(file: File, dataset: Dataset, refuse_large: bool) -> None:
    if PIXEL_DATA not in file.elements or not dataset.get("Rows") or not dataset.get("Columns"):
        raise ImageError(400, "The DICOM object holds no pixel data; send the image object of the study.")
    if str(dataset.get("SOPClassUID", "")) not in _FILM_CLASSES:
        raise ImageError(415, "The DICOM object is no CR or DX film; send the radiograph of the study.")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError(415, "The DICOM object holds several frames; send one film an object.")
    if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(415, "The DICOM object is not in gray (MONOCHROME1 or MONOCHROME2).")
    if file.syntax not in ACCEPTED_SYNTAXES:
        raise ImageError(415, "The DICOM object's transfer syntax is not accepted; send it uncompressed.")
    if _has_burnt_in_text(dataset):
        # The film would be kept with the name in it for years.
        raise ImageError(
            415,
            "The DICOM object says that text is burnt into its pixels (BurnedInAnnotation YES); "
            "send a copy with the text masked and the attribute set to NO.",
        )
    above = LARGE_JPEG2000_PIXELS if file.syntax in JPEG2000_SYNTAXES else LARGE_PIXELS
    check_size(int(dataset.Columns), int(dataset.Rows), above if refuse_large else None)
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16) or not 1 <= bits <= allocated or int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise ImageError(415, "The DICOM object's pixels are not one sample of 8 or 16 allocated bits.")
    if dataset.PixelRepresentation not in (0, 1):
        raise ImageError(400, "The DICOM object's PixelRepresentation is neither 0 nor 1; correct it.")


def _has_burnt_in_text(dataset: Dataset) -> bool:
    """Whether the object says so. A copy of the archive's may: such films were once taken and must be replayed."""
    stated = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    return stated == "YES" and dataset.get("DeidentificationMethod") != _METHOD


def _shape(file: File, dataset: Dataset) -> Shape:
    return Shape(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_allocated=int(dataset.BitsAllocated),
        bits_stored=int(dataset.BitsStored),
        vr="OW" if file.elements[PIXEL_DATA].vr == "OW" else "OB",
    )


def _frame(file: File) -> bytes:
    """The bytes of the one frame; fragments are joined."""
    pixels = file.elements[PIXEL_DATA]
    if (pixels.length is None) == (file.syntax in NATIVE_SYNTAXES):
        raise ImageError(400, "The DICOM object's pixel data is not encoded as its transfer syntax says.")
    if pixels.length is None:
        return b"".join(read_fragments(file, pixels))
    return file.data[pixels.start : pixels.start + pixels.length]


def _values(codes: Codes, bits: int, dataset: Dataset) -> npt.NDArray[Any]:
    """What codes stand for, as it is to be shown.

    Raises:
        ImageError: 400 where that is no number.
    """
    values = _rescale(codes, bits, dataset)
    if dataset.get("VOILUTSequence") or dataset.get("WindowWidth"):
        values = apply_voi_lut(values, dataset)
    _check_finite(values)
    return values


def _rescale(codes: Codes, bits: int, dataset: Dataset) -> npt.NDArray[Any]:
    """What codes stand for after modality LUT or rescale."""
    signed = int(dataset.PixelRepresentation)
    numbers = codes.astype(np.int32) & ((1 << bits) - 1)
    if signed:
        numbers -= (numbers >> (bits - 1)) << bits
    return apply_modality_lut(numbers.astype(f"{'ui'[signed]}{dataset.BitsAllocated // 8}"), dataset)


def _check_finite(values: npt.NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise ImageError(400, "The DICOM object's rescale or window leads to no finite values; correct it.")


def read_facts(dataset: Dataset) -> Facts:
    """What a data set says of the film, free of anything that names a person."""
    return Facts(
        modality=_allowed_value(dataset, "Modality"),
        body_part=_allowed_value(dataset, "BodyPartExamined"),
        view_position=_allowed_value(dataset, "ViewPosition"),
        age_years=_age_years(dataset),
        sex=_allowed_value(dataset, "PatientSex"),
    )


def read_device(data: bytes) -> str | None:
    """Manufacturer and model of the device that made a DICOM file; None where it does not say.

    For reports of labelled films alone: it is free text, which no record keeps.

    Raises:
        ImageError: the file is damaged.
    """
    found = read_file(data, _DEVICE)
    named = (found.value(found.elements[tag]) for tag in _DEVICE if tag in found.elements)
    words = (re.sub(rb"[^ -~]", b"?", name.strip(b" \0")).decode() for name in named)
    return " ".join(word for word in words if word)[:_LONGEST_DEVICE] or None


def _allowed_value(dataset: Dataset, keyword: str) -> str | None:
    """The attribute's value if its closed list has it, OTHER if not, None where there is none."""
    value = re.sub(r"[^A-Z]", "", str(dataset.get(keyword) or "").upper())
    if not value:
        return None
    return value if value in _CLOSED_LISTS[keyword] else "OTHER"


def _age_years(dataset: Dataset) -> float | None:
    """The age that PatientAge states, in years: whole ones from 3 on, whole months below."""
    months = _age_months(dataset)
    if months is None:
        return None
    return float(months // 12) if months >= _WHOLE_YEARS_FROM else round(months / 12, 2)


def _age_months(dataset: Dataset) -> int | None:
    """The age at the study in completed months, by PatientAge (PS3.5 AS) or else by the dates; at most 90 years.

    Ages over 89 identify people (45 CFR 164.514(b)(2)), and no policy of ours tells them apart.
    """
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY])\s*", str(dataset.get("PatientAge") or ""))
    if match:
        months = int(match[1]) * {"D": 12, "W": 7 * 12, "M": 365, "Y": 365 * 12}[match[2]] // 365
        return min(months, _MAX_AGE_MONTHS)
    born = _date(dataset.get("PatientBirthDate"))
    taken = _date(dataset.get("StudyDate") or dataset.get("ContentDate"))
    if born is None or taken is None or taken < born:
        return None
    months = (taken.year - born.year) * 12 + taken.month - born.month - (taken.day < born.day)
    return min(months, _MAX_AGE_MONTHS)


def _date(value: Any) -> date | None:
    match = re.fullmatch(r"\s*(\d{4})(\d\d)(\d\d)\s*", str(value or ""))
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def _reduce_attributes(dataset: Dataset, encoding: Encoding) -> Dataset:
    """The attributes that may be kept, without the pixels."""
    kept = Dataset()
    for keyword in (*_KEPT, *_NUMBERS, *_CODES, *_SPACINGS):
        if keyword in dataset:
            kept[keyword] = dataset[keyword]
    _clear_text(kept)
    for keyword in _LUT_SEQUENCES:
        if dataset.get(keyword):
            item = dataset[keyword].value[0]
            _check_lut(item, encoding)
            setattr(kept, keyword, [item])
    kept.PatientAge = _age_string(_age_months(dataset))
    kept.PatientIdentityRemoved = "YES"
    kept.DeidentificationMethod = _METHOD
    return kept


def _set_pixels(kept: Dataset, file: File, frame: bytes) -> None:
    native = file.syntax in NATIVE_SYNTAXES
    kept.PixelData = frame if native else encapsulate([frame + b"\0" * (len(frame) % 2)], has_bot=False)
    kept["PixelData"].VR = "OW" if native and (file.elements[PIXEL_DATA].vr != "OB" or kept.BitsAllocated > 8) else "OB"
    kept["PixelData"].is_undefined_length = not native
    kept.SOPInstanceUID = _uid_of(frame)
    kept.file_meta = _file_meta(kept, UID(file.syntax))


def _clear_text(kept: Dataset) -> None:
    """Leave no free text in attributes that a careless hand may have typed it into.

    Raises:
        ImageError: 400 where there is text for a number that the pixels need; without it they would change in silence.
    """
    for keyword in _CLOSED_LISTS:
        if keyword in kept:
            setattr(kept, keyword, _allowed_value(kept, keyword) or "")
    for keyword, codes in _CODES.items():
        if kept.get(keyword) and str(kept[keyword].value) not in codes:
            kept[keyword].value = "OTHER"
    for keyword in _NUMBERS:
        values = kept[keyword].VM if keyword in kept else 0
        if values > (_MAX_WINDOWS if keyword in _WINDOW else 1):
            raise ImageError(400, f"The DICOM object's {keyword} has too many values; correct it.")
        if not _is_number(kept.get(keyword)):
            raise ImageError(400, f"The DICOM object's {keyword} is no number; correct it.")
    for keyword in _SPACINGS:
        if not _is_number(kept.get(keyword)):
            del kept[keyword]


def _is_number(value: Any) -> bool:
    """Whether a value, or each of several, is a finite number or empty."""
    try:
        return all(
            math.isfinite(float(each or 0)) for each in (value if isinstance(value, (list, MultiValue)) else [value])
        )
    except (TypeError, ValueError):
        return False


def _check_lut(item: Dataset, encoding: Encoding) -> None:
    """Hold a lookup table to its descriptor (PS3.3 C.11.1.1); it rises or falls throughout, which text does not.

    Raises:
        ImageError: 400.
    """
    entries, _, bits = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if encoding.little_endian else ">u2")
    values = np.atleast_1d(np.asarray(data, dtype=np.int32))
    steps = np.diff(values)
    monotonic = bool((steps >= 0).all() or (steps <= 0).all())
    if len(values) != (entries or 1 << 16) or int(values.max()) >> bits or not monotonic:
        raise ImageError(400, "A lookup table of the DICOM object does not fit its descriptor, or rises and falls.")


def _age_string(months: int | None) -> str:
    if months is None:
        return ""
    return f"{months // 12:03d}Y" if months >= _WHOLE_YEARS_FROM else f"{months:03d}M"


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


def write_file(dataset: Dataset) -> bytes:
    """A file of PS3.10 of a data set with its file meta information."""
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()
