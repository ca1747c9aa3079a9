"""Films in the archive: where they stand, and what a record says of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pneumoserve.archive.record import ImageDetail
from pneumoserve.release.schema import Sha256

if TYPE_CHECKING:
    from pneumoserve.image import PreparedImage

IMAGES: Final = "images/"
_KEY: Final = re.compile(r"images/sha256/[0-9a-f]{2}/([0-9a-f]{64})")


def image_key(stored_sha256: Sha256) -> str:
    """Where the archive keeps a film, by the digest of its stored bytes."""
    return f"{IMAGES}sha256/{stored_sha256[:2]}/{stored_sha256}"


def image_digest(key: str) -> bytes | None:
    """The digest that a film's key names, None where it is no film's."""
    match = _KEY.fullmatch(key)
    return bytes.fromhex(match[1]) if match and key == image_key(match[1]) else None


def image_detail(film: PreparedImage) -> ImageDetail:
    """What a record says of a film."""
    return ImageDetail(
        input_sha256=film.input_sha256,
        input_bytes=film.input_bytes,
        pixels_sha256=film.pixels_sha256,
        stored_sha256=film.stored_sha256,
        stored_key=image_key(film.stored_sha256),
        format=film.format,
        width=film.width,
        height=film.height,
        modality=film.facts.modality,
        body_part=film.facts.body_part,
        view_position=film.facts.view_position,
        age_years=film.facts.age_years,
        sex=film.facts.sex,
    )
