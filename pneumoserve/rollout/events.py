"""The events of a rollout that are on record."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pneumoserve.ledger import Reader
from pneumoserve.records import RolloutEvent, read_entries

WRITERS: Final = "rollout"


def events_of(reader: Reader, since: datetime, rollout_id: str) -> list[RolloutEvent]:
    """What is on record of a rollout since a moment, the first first.

    Raises:
        StoreError: the store does not answer.
        ValueError: an entry cannot be read.
    """
    found = (entry for entry in read_entries(reader, since, roles=(f"{WRITERS}-",)) if isinstance(entry, RolloutEvent))
    return sorted((each for each in found if each.rollout_id == rollout_id), key=lambda event: event.number)
