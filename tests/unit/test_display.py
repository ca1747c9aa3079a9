"""What people look at: the values of a file at full depth, and the window to begin with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import ExplicitVRLittleEndian

from pneumoserve.imaging import DisplayImage, ImageError, LargeFilm
from pneumoserve.imaging.prepare import decode_gray, display
from pneumoserve.imaging.worker import sound_films
from tests.support.films import CHEST_DICOM, jpeg_with_texts, written
from tests.unit.test_image_hostile import film_with_lut

CODES = np.arange(64 * 40, dtype=np.uint16).reshape(40, 64)


def dicom_with(**attributes: Any) -> bytes:
    """An X-ray of 12 bits in MONOCHROME2, whose values are `CODES` before rescale."""
    dataset = pydicom.dcmread(CHEST_DICOM, stop_before_pixels=True)
    for keyword in ("WindowCenter", "WindowWidth"):
        del dataset[keyword]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = CODES.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = CODES.tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return written(dataset)


def pixels_of(film: DisplayImage) -> npt.NDArray[Any]:
    return np.frombuffer(film.pixels, f"<u{film.bits // 8}").reshape(film.height, film.width)


def test_values_are_those_after_rescale_and_the_window_is_among_them() -> None:
    data = dicom_with(RescaleSlope=2, RescaleIntercept=10, WindowCenter=[2000, 1], WindowWidth=[1001, 2])
    dataset = pydicom.dcmread(io.BytesIO(data))
    film = display(data)
    assert np.array_equal(pixels_of(film), apply_modality_lut(dataset.pixel_array, dataset))
    assert (film.bits, film.low, film.high) == (16, 1499.5, 2499.5)


@pytest.mark.parametrize(
    ("attributes", "expected", "window"),
    [
        ({}, CODES, (0, 2559)),
        ({"PhotometricInterpretation": "MONOCHROME1"}, 2559 - CODES, (0, 2559)),
        ({"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 59.5, "WindowWidth": 101},
         2559 - CODES, (2450, 2550)),
        ({"RescaleSlope": 1, "RescaleIntercept": -1000}, CODES, (0, 2559)),
        ({"RescaleSlope": 1, "RescaleIntercept": -1000, "WindowCenter": 0.5, "WindowWidth": 201}, CODES, (900, 1100)),
        ({"RescaleSlope": 0.5, "RescaleIntercept": 0, "WindowCenter": 640.25, "WindowWidth": 1279.5},
         np.rint(CODES * (65535 / 2559)), (0.5 * 65535 / 1279.5, 1279 * 65535 / 1279.5)),
        ({"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "LINEAR_EXACT"}, CODES, (75, 125)),
    ],
)  # fmt: skip
def test_what_is_black_and_white_at_first(
    attributes: dict[str, Any], expected: npt.NDArray[Any], window: tuple[float, float]
) -> None:
    film = display(dicom_with(**attributes))
    assert np.array_equal(pixels_of(film), expected)
    assert (film.low, film.high) == pytest.approx(window)


def test_a_voi_lut_is_applied_since_it_is_no_window() -> None:
    film = display(film_with_lut(0, 256, [value * value for value in range(256)]))
    assert pixels_of(film).max() == 255 * 255


def test_every_form_is_shown_as_the_models_get_it() -> None:
    """With its first window, 8 bits of what is shown are the gray pixels that are resized for the models."""
    for data in [*sound_films(), CHEST_DICOM.read_bytes(), jpeg_with_texts(orientation=6)]:
        film, gray = display(data), np.asarray(decode_gray(data)).astype(float)
        part = np.clip((pixels_of(film) - film.low) / max(film.high - film.low, 1), 0, 1)
        assert part.shape == gray.shape
        # The models' pixels are spread over what occurs within the window.
        spread = (part - part.min()) / (part.max() - part.min()) if film.bits == 16 else part
        assert np.abs(255 * spread - gray).max() < 4


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        display(data)


def test_numbers_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(ImageError, match="no finite values"):
        display(dicom_with(RescaleSlope="1e-300", RescaleIntercept=0, WindowCenter="1e300", WindowWidth="1e300"))


def test_a_large_one_is_named_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.imaging.dicom.LARGE_JPEG2000_PIXELS", 1000)
    with pytest.raises(LargeFilm):
        display(CHEST_DICOM.read_bytes(), refuse_large=True)
