"""Finding the record of a prediction by its id alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import orjson

from pneumoserve.archive.record import Record
from pneumoserve.archive.store import ObjectStore, StoredObject
from pneumoserve.ids import time_of

# How far the clocks of front and store may lie apart, and how long a record may wait to be written.
_SKEW: Final = timedelta(minutes=5)


def find_record(store: ObjectStore, prediction_id: str) -> Record | None:
    """The record of a prediction, None where the store has none.

    The id carries its time, so only segments written about then are read.

    Raises:
        ValueError: the id is no prediction id.
        StoreError: the store does not answer.
    """
    wanted = prediction_id.encode()
    for segment in _segments_about(store, prediction_id):
        body = store.get(segment.key)
        for line in body.splitlines():
            # Parsing every record would cost more than finding the one.
            if wanted in line and orjson.loads(line)["prediction_id"] == prediction_id:
                return Record.model_validate_json(line)
    return None


def _segments_about(store: ObjectStore, prediction_id: str) -> Iterator[StoredObject]:
    """Segments that may hold the record, the nearest in time first."""
    made = time_of(prediction_id)
    days = sorted({(made + offset).date().isoformat() for offset in (timedelta(0), _SKEW, -_SKEW)})
    near = [
        segment
        for day in days
        for segment in store.list(f"records/date={day}/")
        if abs(segment.last_modified - made) <= _SKEW
    ]
    return iter(sorted(near, key=lambda segment: abs(segment.last_modified - made)))
