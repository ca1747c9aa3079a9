"""An image of a study as the viewer or a model gets it, decoded by the workers."""

from __future__ import annotations

from pneumoserve.canonical import digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging import DisplayImage, PreparedImage
from pneumoserve.imaging.pool import DecoderPool
from pneumoserve.review import Image
from pneumoserve.store import Store


class AlteredImageError(PneumoserveError):
    """The store has other bytes than those that the image's name tells of."""

    def __init__(self) -> None:
        super().__init__(
            "The archive's copy of this image was altered, so it is not shown; tell whoever runs the archive."
        )


def load(image: Image, store: Store, decoders: DecoderPool) -> DisplayImage:
    """The pixels to look at.

    Raises:
        NotFoundError: the store no longer has the image.
        StoreError: the store does not answer.
        AlteredImageError: it is not the image that was answered.
        ImageError: it cannot be decoded.
    """
    return decoders.display(_read(image.stored_key, store))


def load_prepared(stored_key: str, store: Store, decoders: DecoderPool) -> PreparedImage:
    """What the models see of a stored image.

    Raises:
        NotFoundError, StoreError, AlteredImageError, ImageError: as `load` does.
    """
    return decoders.prepare(_read(stored_key, store))


def _read(stored_key: str, store: Store) -> bytes:
    stored = store.get(stored_key)
    if not stored_key.endswith(digest_of(stored)):
        raise AlteredImageError
    return stored
