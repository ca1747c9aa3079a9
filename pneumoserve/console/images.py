"""An image of a study as the viewer gets it: its pixels at full depth, decoded by the workers."""

from __future__ import annotations

from pneumoserve.canonical import digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging import DisplayImage
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
    stored = store.get(image.stored_key)
    if not image.stored_key.endswith(digest_of(stored)):
        raise AlteredImageError
    return decoders.display(stored)
