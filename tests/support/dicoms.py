"""DICOM films in every transfer syntax that is accepted, made in code from a synthetic picture."""

from __future__ import annotations

import io
from typing import Any, Final

import imagecodecs
import jpeg_ls
import numpy as np
import numpy.typing as npt
import openjpeg.utils
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import UID

SYNTAXES: Final = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg 12 bit": "1.2.840.10008.1.2.4.51",
    "jpeg lossless": "1.2.840.10008.1.2.4.57",
    "jpeg lossless sv1": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg-ls near": "1.2.840.10008.1.2.4.81",
    "jpeg 2000": "1.2.840.10008.1.2.4.90",
    "jpeg 2000 lossy": "1.2.840.10008.1.2.4.91",
}
NATIVE: Final = ("implicit", "explicit", "big endian")
LOSSLESS: Final = ("rle", "jpeg lossless", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000")

Values = npt.NDArray[np.int32]


def scene(bits: int, signed: bool = False, rows: int = 67, columns: int = 91) -> Values:
    """A smooth picture with some noise that uses all its bits."""
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(bits).normal(0, 0.02, (rows, columns))
    picture = np.clip((np.sin(x / 17) + np.cos(y / 23) + 2) / 4 + noise, 0, 1)
    return (picture * ((1 << bits) - 1)).astype(np.int32) - (1 << (bits - 1) if signed else 0)


def film(kind: str, values: Values, bits: int, signed: bool = False, **attributes: Any) -> bytes:
    """A CR film of these values in one of SYNTAXES."""
    allocated = 8 if bits <= 8 else 16
    return wrapped(kind, frame(kind, values, bits, signed), values.shape, bits, allocated, signed, **attributes)


def wrapped(
    kind: str, coded: bytes, shape: tuple[int, ...], bits: int, allocated: int, signed: bool = False, **attributes: Any
) -> bytes:
    """A CR film around a frame."""
    native = kind in NATIVE
    dataset = make_dataset(SYNTAXES[kind], coded, shape, bits, allocated, native=native, signed=signed, **attributes)
    return write(dataset)


def make_dataset(
    syntax: str,
    coded: bytes,
    shape: tuple[int, ...],
    bits: int,
    allocated: int,
    *,
    native: bool,
    signed: bool,
    **attributes: Any,
) -> Dataset:
    """A CR object around a frame, which is `native` or else encapsulated; `attributes` come on top, by keyword."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.BodyPartExamined, dataset.PatientAge = "CR", "CHEST", "004Y"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = coded + b"\0" * (len(coded) % 2) if native else encapsulate([coded + b"\0" * (len(coded) % 2)])
    dataset["PixelData"].VR = "OW" if native else "OB"
    dataset["PixelData"].is_undefined_length = not native
    return dataset


def write(dataset: Dataset) -> bytes:
    """A data set as a file."""
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def frame(kind: str, values: Values, bits: int, signed: bool = False) -> bytes:
    """Values as coded in one of SYNTAXES."""
    container = "u1" if bits <= 8 else "u2"
    whole = values.astype("i4").astype(container if not signed else container.replace("u", "i"))
    codes = (values & ((1 << bits) - 1)).astype(container)
    if kind in NATIVE:
        return _native(kind, whole)
    if kind == "rle":
        return _rle(whole, bits, signed)
    if kind.startswith("jpeg-ls"):
        return bytes(jpeg_ls.encode_array(codes, lossy_error=2 if kind.endswith("near") else 0))
    if kind.startswith("jpeg 2000"):
        ratios = {"compression_ratios": [8.0]} if kind.endswith("lossy") else {}
        return openjpeg.utils.encode_array(whole, bits_stored=bits, **ratios)  # type: ignore[arg-type]
    return _jpeg(kind, codes, bits)


def _native(kind: str, whole: npt.NDArray[Any]) -> bytes:
    data = whole.tobytes()
    if kind != "big endian":
        return data
    return np.frombuffer(data + b"\0" * (len(data) % 2), "u2").byteswap().tobytes()


def _jpeg(kind: str, codes: npt.NDArray[Any], bits: int) -> bytes:
    if kind == "jpeg":
        out = io.BytesIO()
        Image.fromarray(codes).save(out, "JPEG", quality=90)
        return out.getvalue()
    if kind == "jpeg 12 bit":
        return bytes(imagecodecs.jpeg_encode(codes, level=90, bitspersample=bits))
    predictor = 1 if kind.endswith("sv1") else 6
    return bytes(imagecodecs.jpeg_encode(codes, lossless=True, predictor=predictor, bitspersample=bits))


def _rle(whole: npt.NDArray[Any], bits: int, signed: bool) -> bytes:
    return RLELosslessEncoder.encode(
        whole,
        rows=whole.shape[0],
        columns=whole.shape[1],
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=whole.itemsize * 8,
        bits_stored=bits,
        pixel_representation=int(signed),
        number_of_frames=1,
        encoding_plugin="pydicom",
    )


def empty_element(tag: int, vr: bytes = b"UN", length: int = 0xFFFFFFFF) -> bytes:
    """The header of an element of explicit VR little endian with a long length, undefined by default."""
    return tag.to_bytes(4, "little")[2:] + tag.to_bytes(4, "little")[:2] + vr + b"\0\0" + length.to_bytes(4, "little")


def with_element(data: bytes, element: bytes) -> bytes:
    """A film of `film` with more bytes before its first element of group 0028."""
    at = data.index(b"\x28\x00\x02\x00US")
    return data[:at] + element + data[at:]
