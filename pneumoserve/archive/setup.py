"""Making a store ready for its first record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pneumoserve.archive.store import ObjectStore, StoreError

_PAUSE_SECONDS: Final = 1.0


def set_up(store: ObjectStore, seconds: float, say: Callable[[str], None]) -> None:
    """Make the bucket where there is none and try it, again and again for `seconds`; `say` tells what it waits for.

    Raises:
        StoreError: it did not become usable in time.
    """
    give_up = time.monotonic() + seconds
    told = ""
    while True:
        try:
            store.set_up()
        except StoreError as error:
            if time.monotonic() + _PAUSE_SECONDS > give_up:
                raise
            if str(error) != told:
                told = str(error)
                say(told)
            time.sleep(_PAUSE_SECONDS)
        else:
            return
