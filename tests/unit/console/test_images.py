"""What the viewer gets of an image: its pixels at full depth, or why there are none."""

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image

from pneumoserve.imaging.pool import NotDecodedError
from tests.support.consoles import VERDICT, Clinic
from tests.support.films import CHEST_DICOM, encoded, film_image

DEEP = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20


async def shown(clinic: Clinic) -> tuple[httpx.Response, str]:
    """What the reader of the one study gets as its image, and the place of its page."""
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    answer = await reader.get(place.replace("read", "images/1"), headers={"hx-request": "true"})
    return answer, place


def pixels_of(answer: httpx.Response) -> np.ndarray:
    detail = json.loads(answer.headers["image-detail"])
    values = np.frombuffer(answer.content, "<u2" if detail["bits"] == 16 else "u1")
    return values.reshape(detail["height"], detail["width"])


def window_of(answer: httpx.Response) -> tuple[float, float]:
    detail = json.loads(answer.headers["image-detail"])
    return detail["low"], detail["high"]


async def test_a_dicom_has_its_own_values_and_its_window(clinic: Clinic) -> None:
    """It has 15 bits, and MONOCHROME1: its highest value is black."""
    clinic.study_of(CHEST_DICOM.read_bytes(), "application/dicom")
    answer, _ = await shown(clinic)
    values = pydicom.dcmread(CHEST_DICOM).pixel_array
    assert np.array_equal(pixels_of(answer), values.max() - values)
    assert window_of(answer) == (int(values.max()) - 29_999, int(values.max()))
    assert (answer.headers["cache-control"], answer.headers["content-type"]) == ("no-store", "application/octet-stream")


async def test_a_png_of_16_bits_has_all_of_them(clinic: Clinic) -> None:
    clinic.study_of(encoded(Image.fromarray(DEEP), "PNG"), "image/png")
    answer, _ = await shown(clinic)
    assert np.array_equal(pixels_of(answer), DEEP)
    assert window_of(answer) == (0, DEEP.max())


async def test_a_jpeg_has_8_bits(clinic: Clinic) -> None:
    film = encoded(film_image(), "JPEG")
    clinic.study_of(film, "image/jpeg")
    answer, _ = await shown(clinic)
    assert np.array_equal(pixels_of(answer), np.asarray(film_image_of(film)))
    assert window_of(answer) == (0, 255)


def film_image_of(film: bytes) -> Image.Image:
    return Image.open(io.BytesIO(film)).convert("L")


@pytest.mark.parametrize(
    ("becomes", "status", "sentence"),
    [
        (None, 404, "The store no longer has this image"),
        (encoded(film_image(), "PNG"), 500, "copy of this image was altered"),
    ],
)
async def test_an_image_that_was_lost_or_altered_is_said_so_and_can_still_be_read(
    clinic: Clinic, becomes: bytes | None, status: int, sentence: str
) -> None:
    key = clinic.study_of(encoded(film_image(), "JPEG"), "image/jpeg")
    if becomes is None:
        clinic.ward.memory.hide(key)
    else:
        clinic.ward.store.put(key, becomes, "image/jpeg")
    answer, place = await shown(clinic)
    assert (answer.status_code, sentence in answer.text, "<html" in answer.text) == (status, True, False)
    saved = await clinic.someone("r.1", "reader").submit(place, place, **VERDICT)
    assert saved.status_code == 303


@pytest.mark.parametrize("status", [429, 503])
async def test_busy_decoders_are_told_as_such(clinic: Clinic, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Nothing is wrong with the image: who loads it again sees it."""

    def refuse(*_: object) -> None:
        raise NotDecodedError(status, "Too many films wait to be decoded; try again after a moment.")

    clinic.study("a", "uncertain")
    with monkeypatch.context() as patched:
        patched.setattr(clinic.services.decoders, "display", refuse)
        answer, place = await shown(clinic)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "busy with other images; try again" in answer.text
    again = await clinic.someone("r.1", "reader").get(place.replace("read", "images/1"))
    assert (again.status_code, "retry-after" in again.headers) == (200, False)


async def test_an_image_that_cannot_be_decoded_is_said_so(clinic: Clinic) -> None:
    clinic.study_of(encoded(film_image(), "PNG")[:500], "image/png")
    answer, _ = await shown(clinic)
    assert (answer.status_code, "damaged or cut short" in answer.text) == (500, True)
