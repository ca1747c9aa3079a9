"""What must hold for any bytes whatever: the judge of one film."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pydicom
from pydicom.encaps import get_frame

from pneumoserve.imaging import ImageError, PreparedImage
from tests.integration.fuzz.mutate_raster import split_segments
from tests.integration.fuzz.seeds import PATIENT_WORD

STATUSES: Final = (400, 413, 415)
_LONGEST_TEXT: Final = 300


@dataclass(frozen=True)
class Verdict:
    """How a film ended: `outcome` is accepted, a status or an exception's name; `fault` what must not be, if anything.

    `reason` tells ends of one outcome apart: the error's text without numbers, and where it came from.
    """

    outcome: str
    reason: str = ""
    fault: str | None = None


def judge(data: bytes, prepare: Callable[[bytes], PreparedImage]) -> Verdict:
    """Prepare a film, and its stored copy once more if it was accepted."""
    try:
        film = prepare(data)
    except ImageError as error:
        return _judge_refusal(error)
    except Exception as error:  # noqa: BLE001 - which exceptions come is what is tested
        return Verdict(type(error).__name__, _origin(error), f"exception {type(error).__name__}: {_origin(error)}")
    return Verdict(
        "accepted", f"{film.format} {film.facts.age_years} {film.facts.view_position}", _fault_of(film, prepare)
    )


def judge_answer(status: int, body: bytes) -> Verdict:
    """A service's answer to a film that was sent alone."""
    if PATIENT_WORD in body:
        return Verdict(str(status), "", "payload in the answer")
    if status == 200:
        return Verdict("accepted")
    text = json.loads(body)["error"] if body.startswith(b"{") else body.decode("latin-1")
    return Verdict(str(status), _without_numbers(text), None if status in STATUSES else f"status {status}")


def _judge_refusal(error: ImageError) -> Verdict:
    text = str(error)
    fault = None
    if error.status not in STATUSES:
        fault = f"status {error.status}"
    elif PATIENT_WORD.decode() in text or not text.isascii() or not text.isprintable() or len(text) > _LONGEST_TEXT:
        fault = "payload in the error's text"
    return Verdict(str(error.status), f"{_without_numbers(text)} {_origin(error.__cause__)}", fault)


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9.]+", "#", text)


def _origin(error: BaseException | None) -> str:
    """The type of an exception and the function that raised it."""
    if error is None:
        return ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__} in {trace.tb_frame.f_code.co_name if trace else '?'}"


def _fault_of(film: PreparedImage, prepare: Callable[[bytes], PreparedImage]) -> str | None:
    """What is wrong with an accepted film: words that stay, or a copy that is not the film that was judged."""
    if PATIENT_WORD in film.stored and PATIENT_WORD in _without_samples(film):
        return "patient in the stored copy"
    try:
        again = prepare(film.stored)
    except Exception as error:  # noqa: BLE001 - any is a fault
        return f"stored copy not accepted: {type(error).__name__}"
    if again.pixels_sha256 != film.pixels_sha256:
        return "other pixels from the stored copy"
    if again.stored_sha256 != film.stored_sha256:
        return "another stored copy from the stored copy"
    if (again.facts, again.width, again.height) != (film.facts, film.width, film.height):
        return "other facts from the stored copy"
    return None


def _without_samples(film: PreparedImage) -> bytes:
    """The stored copy without samples and coded samples: a damaged file may have a text where its pixels are."""
    if film.format == "png":
        return film.stored
    if film.format == "jpeg":
        return _headers(film.stored)
    dataset = pydicom.dcmread(io.BytesIO(film.stored))
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        return film.stored.replace(frame, _headers(frame))
    at = film.stored.rindex(dataset.PixelData)
    return film.stored[:at] + film.stored[at + dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8 :]


def _headers(stream: bytes) -> bytes:
    """A codestream's marker segments, without what is coded behind SOS or SOD."""
    segments = split_segments(stream)
    return b"".join(bytes(replace(each, data=b"") if each.marker in (0xDA, 0x93) else each) for each in segments)
