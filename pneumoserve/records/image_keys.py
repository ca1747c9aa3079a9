"""Films in the archive: where they stand, and what a record says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from pneumoserve.canonical import Sha256
from pneumoserve.ledger import Attachments, Ledger
from pneumoserve.records.record import ImageDetail
from pneumoserve.signing import Trust
from pneumoserve.store import Store

if TYPE_CHECKING:
    from pneumoserve.imaging import PreparedImage

IMAGES: Final = "images/"


def find_image_keys(line: bytes) -> list[str]:
    """The key of the film that an entry names, if it names one.

    Raises:
        ValueError: the line is no entry.
    """
    try:
        image = orjson.loads(line).get("image")
        return [] if image is None else [str(image["stored_key"])]
    except (AttributeError, KeyError, TypeError):
        raise ValueError("an entry is a JSON object, and names its film by a key") from None


# What the archive's ledger keeps beside its lines.
FILMS: Final = Attachments(IMAGES, "film", find_image_keys)


def open_ledger(store: Store, writers: Trust, sealers: Trust) -> Ledger:
    """The archive as a sealer and an auditor see it; keys of writers and sealers count that are trusted."""
    return Ledger(store, writers, sealers, FILMS)


def image_key(stored_sha256: Sha256) -> str:
    """Where the archive keeps a film, by the digest of its stored bytes."""
    return FILMS.key(stored_sha256)


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
