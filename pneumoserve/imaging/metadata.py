"""What is known of a film without decoding it: its limits, its form once prepared, its facts and its errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from pneumoserve.errors import PneumoserveError

PREPROCESSING_VERSION: Final = "1"
SIZE: Final = 224
MAX_BYTES: Final = 32 * 1024 * 1024
MAX_PIXELS: Final = 40_000_000
# A film of more pixels takes seconds and hundreds of MB to decode; JPEG 2000 takes several times as long as the others.
LARGE_PIXELS: Final = 12_000_000
LARGE_JPEG2000_PIXELS: Final = 8_000_000

Format = Literal["jpeg", "png", "dicom"]

_MAGIC: Final[tuple[tuple[int, bytes], ...]] = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (128, b"DICM"),
    (0, b"GIF8"),
    (0, b"BM"),
    (0, b"II*\x00"),
    (0, b"MM\x00*"),
    (0, b"RIFF"),
)

TEXT: Final = "text"
# What is sent in place of a film, by how it begins.
_OTHERS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"%PDF-", "a PDF"),
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\x00", "a TIFF"),
    (0, b"MM\x00*", "a TIFF"),
    (8, b"WEBP", "a WebP"),
    (4, b"ftyphei", "a HEIC photograph"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"jP  ", "a JPEG 2000 file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
)
_LOOKED_AT: Final = 512


class ImageError(PneumoserveError, ValueError):
    """A film that cannot be read; `status` is the HTTP status that fits, the text is safe to show."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LargeFilm(PneumoserveError):  # noqa: N818 - a sound film, no error of the caller
    """A sound film so large that it takes long to decode; `pixels` is the number that its header promises."""

    def __init__(self, pixels: int) -> None:
        super().__init__(f"The film has {pixels / 1e6:.1f} megapixels.")
        self.pixels = pixels


@dataclass(frozen=True)
class Facts:
    """What a file says of the film, free of anything that names a person.

    `age_years` is the patient's age at the study in years; `None` where the file does not say. Attributes of
    free text are reduced to closed lists, so that a name typed into the wrong field goes nowhere.
    """

    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    age_years: float | None = None
    sex: str | None = None


@dataclass(frozen=True)
class PreparedImage:
    """One film, ready for the models.

    `pixels` is uint8 of shape [224, 224], 0 = black; `width` and `height` are the original's, in pixels.
    `stored` is the file as the archive may keep it: the same pixels, no text about a person.
    """

    pixels: npt.NDArray[np.uint8]
    format: Format
    width: int
    height: int
    input_bytes: int
    input_sha256: str
    pixels_sha256: str
    stored: bytes = field(repr=False)
    stored_sha256: str
    facts: Facts


@dataclass(frozen=True)
class DisplayImage:
    """One film for people to look at, at its full depth.

    `pixels` holds the rows from the top, each pixel an unsigned number of `bits` (8, or 16 little-endian); the lowest
    is the darkest. Pixels of `low` and below are to be black at first, those of `high` and above white.
    """

    pixels: bytes = field(repr=False)
    bits: int
    width: int
    height: int
    low: float
    high: float


def looks_like_image(data: bytes) -> bool:
    """Whether `data` begins as some image file does (also of kinds that `prepare` refuses)."""
    return any(data[offset : offset + len(magic)] == magic for offset, magic in _MAGIC)


def name_form(data: bytes) -> str | None:
    """What `data` looks like that is no JPEG, PNG or DICOM file, with its article; None where nothing tells."""
    for offset, magic, name in _OTHERS:
        if data[offset : offset + len(magic)] == magic:
            return name
    head = data[:_LOOKED_AT]
    printable = bytes(range(0x20, 0x7F)) + b"\t\r\n"
    return TEXT if head and not head.translate(None, printable) else None


def check_size(width: int, height: int, large_above: int | None = None) -> None:
    """Refuse a film by the size its header claims.

    Raises:
        ImageError: 413 above 40 megapixels, 400 below 32 pixels a side.
        LargeFilm: above `large_above` pixels, where that is given.
    """
    if width * height > MAX_PIXELS:
        raise ImageError(
            413,
            f"The image has {width}x{height} pixels ({width * height / 1e6:.1f} megapixels); at most "
            f"{MAX_PIXELS // 1_000_000} megapixels are accepted, send a smaller copy.",
        )
    if min(width, height) < 32:
        raise ImageError(400, f"The image has {width}x{height} pixels; a film has at least 32 on each side.")
    if large_above is not None and width * height > large_above:
        raise LargeFilm(width * height)
