"""Storage commitment, as its user: a destination says whether it keeps a result that it took."""

from __future__ import annotations

import logging
from typing import Final

from pynetdicom import evt

from pneumoserve.intake.spool import Spool
from pneumoserve.store import StoreError

_ALL_KEPT: Final = 1
_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_SHOWN_DIGITS: Final = 8

_log: Final = logging.getLogger(__name__)


def take_outcome(event: evt.Event, spool: Spool) -> tuple[int, None]:
    """Note what an N-EVENT-REPORT says; its status. One that nobody waits for changes nothing."""
    try:
        said = event.event_information
        awaited = spool.find_awaited(str(said.TransactionUID))
        if awaited is not None:
            batch, destination = awaited
            if event.event_type == _ALL_KEPT:
                spool.note_sent(batch, destination)
                _log.info("study %s: a destination keeps result %d", batch.study[:_SHOWN_DIGITS], batch.number)
            else:
                reasons = sorted({f"{each.FailureReason:04X}" for each in said.FailedSOPSequence})
                spool.fail(
                    batch, destination,
                    f"The destination does not keep the result that it took ({', '.join(reasons)}); see its log.",
                )  # fmt: skip
    except StoreError as error:
        _log.warning("what a destination keeps is not noted, since the spool does not answer: %s", error)
        return _PROCESSING_FAILURE, None
    except Exception as error:  # noqa: BLE001 - pynetdicom would log what was sent
        _log.warning("what a destination says that it keeps cannot be understood (%s)", type(error).__name__)
        return _PROCESSING_FAILURE, None
    return _SUCCESS, None
