"""The decode worker: a process that has nothing but two pipes and the film it decodes; `imaging.pool` starts it."""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
import pydicom
from openjpeg.utils import encode_array as encode_jpeg2000
from PIL import Image
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pneumoserve.imaging import confinement
from pneumoserve.imaging.exchange import ANSWER, REQUEST
from pneumoserve.imaging.metadata import DisplayImage, ImageError, LargeFilm, PreparedImage
from pneumoserve.imaging.prepare import display, prepare

_SIDE: Final = 64


def main(memory: int) -> None:
    """Answer requests on standard input until it ends; `memory` is the growth, in bytes, that films may cause."""
    confinement.die_with_parent()
    confinement.forbid_tracing()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal sends these to the whole group; the pool decides when a worker ends.
        signal.signal(number, signal.SIG_IGN)
    logging.disable()
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a codec prints goes where standard error goes, nowhere
    requests = os.fdopen(0, "rb", buffering=0, closefd=False)
    warm_up()
    base = confinement.address_space()
    filtered = confinement.confine(memory)
    _send(answers, {"base": base, "filtered": filtered})
    while (head := _read(requests, REQUEST.size)) is not None:
        length, refuse_large, shown = REQUEST.unpack(head)
        film = _read(requests, length)
        if film is None:
            return
        _answer(answers, film, refuse_large, shown)


def warm_up() -> None:
    """Decode one film of each format and codec, so that all they load later is loaded."""
    Image.init()
    for name in {*python_encoding.values(), "latin-1", "utf-8", "ascii"}:
        codecs.lookup(name)
    # The broken ones, and what is not accepted, go the ways of errors.
    for film in (*sound_films(), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM" + bytes(64), b"no film"):
        with contextlib.suppress(ImageError):
            prepare(film)
    gc.collect()
    gc.freeze()


def _answer(answers: BinaryIO, film: bytes, refuse_large: bool, shown: bool) -> None:
    decode = display if shown else prepare
    try:
        decoded = decode(film, refuse_large=refuse_large)
    except LargeFilm as large:
        _send(answers, {"large": large.pixels})
    except ImageError as error:
        outcome = {"memory": True} if _lacks_memory(error) else {"status": error.status, "message": str(error)}
        _send(answers, outcome)
    except MemoryError:
        _send(answers, {"memory": True})
    else:
        if isinstance(decoded, DisplayImage):
            _send(answers, _display_header(decoded), last=decoded.pixels)
        else:
            _send(answers, _header(decoded), decoded.pixels.tobytes(), decoded.stored)


def _lacks_memory(error: BaseException) -> bool:
    """Whether a refusal has its reason in the memory limit: some codecs say so in their text only."""
    reason = error.__cause__ or error.__context__
    while reason is not None:
        if isinstance(reason, MemoryError) or "memory" in str(reason).lower():
            return True
        reason = reason.__cause__ or reason.__context__
    return False


def _header(film: PreparedImage) -> dict[str, Any]:
    return {"format": film.format, "width": film.width, "height": film.height, "facts": asdict(film.facts)}


def _display_header(film: DisplayImage) -> dict[str, Any]:
    return {"bits": film.bits, "width": film.width, "height": film.height, "low": film.low, "high": film.high}


def _send(answers: BinaryIO, header: dict[str, Any], pixels: bytes = b"", last: bytes = b"") -> None:
    text = orjson.dumps(header)
    for part in (ANSWER.pack(len(text), len(last)) + text + pixels, last):
        view = memoryview(part)
        while view:
            view = view[answers.write(view) :]


def _read(requests: BinaryIO, length: int) -> bytes | None:
    """Exactly `length` bytes, None where the pipe ends before."""
    parts: list[bytes] = []
    while length:
        part = requests.read(length)
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def sound_films() -> Iterator[bytes]:
    """One small film of each format, and of each transfer syntax that is accepted."""
    gray = np.arange(_SIDE * _SIDE, dtype=np.uint8).reshape(_SIDE, _SIDE)
    for mode in ("L", "RGB", "I;16", "LA", "P"):
        image = Image.fromarray(gray.astype(np.uint16) * 16) if mode == "I;16" else Image.fromarray(gray).convert(mode)
        yield _encode(image, "PNG")
        if mode in ("L", "RGB"):
            yield _encode(image, "JPEG")
            yield _encode(image, "JPEG", progressive=True)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        yield _dicom(gray, syntax)
        yield _dicom(gray.astype(np.uint16) * 16, syntax)
    yield _dicom(gray, JPEGBaseline8Bit, _encode(Image.fromarray(gray), "JPEG"))
    yield from _compressed_dicoms(gray)


def _compressed_dicoms(gray: np.ndarray[Any, np.dtype[np.uint8]]) -> Iterator[bytes]:
    import imagecodecs  # noqa: PLC0415 - only what has been used is loaded

    deep = gray.astype(np.uint16) * 16
    yield _dicom(deep, JPEGExtended12Bit, bytes(imagecodecs.jpeg8_encode(deep, bitspersample=12)))
    for values in (gray, deep):
        frame = imagecodecs.ljpeg_encode(values, bitspersample=12 if values is deep else 8)
        yield _dicom(values, JPEGLosslessSV1, bytes(frame))
        yield _dicom(values, JPEG2000Lossless, bytes(encode_jpeg2000(values)))
        for syntax in (RLELossless, JPEGLSLossless):
            yield _dicom(values, syntax)


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _dicom(values: np.ndarray[Any, Any], syntax: UID, frame: bytes | None = None) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_compressed and frame is None else syntax
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = UID("1.2.3")
    dataset.Modality, dataset.SpecificCharacterSet, dataset.PatientAge = "CR", "ISO_IR 100", "003Y"
    dataset.PatientName = "A^B"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * values.itemsize
    dataset.BitsStored = 8 if values.itemsize == 1 else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.WindowCenter, dataset.WindowWidth = 100, 200
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = values.tobytes() if frame is None else encapsulate([frame])
    dataset["PixelData"].VR = "OW" if values.itemsize == 2 or frame is not None else "OB"
    if syntax.is_compressed and frame is None:
        dataset.compress(syntax, generate_instance_uid=False)
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()
