"""Whose X-ray it is: read from envelopes for the channels that may show it, and erased when its time is over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pneumoserve.records import ENVELOPES, Addressee, EnvelopeError, open_envelope
from pneumoserve.review import ReviewDatabase, find_finished
from pneumoserve.store import Store, StoreError

_AT_ONCE: Final = 500
_log: Final = logging.getLogger(__name__)


def read_addressee(store: Store, key: X25519PrivateKey, prediction_ids: Sequence[str]) -> Addressee:
    """What the caller told of a study, by the first of its predictions that has an envelope; else nothing.

    Raises:
        EnvelopeError: an envelope is not whole, or was sealed to another key.
        StoreError: the store does not answer.
    """
    for prediction_id in prediction_ids:
        found = open_envelope(store, key, prediction_id)
        if found != Addressee():
            return found
    return Addressee()


def find_addressee(store: Store, key: X25519PrivateKey | None, prediction_ids: Sequence[str]) -> Addressee:
    """The same for a message, which is better without a name than not at all.

    What cannot be read is logged, without a word of it.
    """
    if key is None:
        return Addressee()
    try:
        return read_addressee(store, key, prediction_ids)
    except (StoreError, EnvelopeError) as error:
        _log.error("a message goes out without practitioner and reference: %s", error)
    return Addressee()


def erase_names(store: Store, database: ReviewDatabase, before: datetime, latest: datetime) -> int:
    """Erase for good the envelopes of studies that were over at `before`, and all from before `latest`; how many.

    Raises:
        StoreError: the store does not answer, or its keys may not remove.
        DatabaseError: the database does not answer.
    """
    names = [item.key.removeprefix(ENVELOPES) for item in store.list(ENVELOPES) if item.last_modified < before]
    erased = 0
    for begin in range(0, len(names), _AT_ONCE):
        for name in find_finished(database, names[begin : begin + _AT_ONCE], before, latest):
            store.erase(f"{ENVELOPES}{name}")
            erased += 1
    return erased
