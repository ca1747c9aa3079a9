"""Making a store ready for its first record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pneumoserve.store import Store, StoreError

_PAUSE_SECONDS: Final = 1.0


def set_up(store: Store, seconds: float, report: Callable[[str], None]) -> None:
    """Make the bucket where there is none and try it, again and again for `seconds`; `report` gets what it waits for.

    Raises:
        StoreError: it did not become usable in time.
    """
    give_up = time.monotonic() + seconds
    reported = ""
    while True:
        try:
            store.set_up()
        except StoreError as error:
            if time.monotonic() + _PAUSE_SECONDS > give_up:
                raise
            if str(error) != reported:
                reported = str(error)
                report(reported)
            time.sleep(_PAUSE_SECONDS)
        else:
            return
