"""How the models outlast the front that asks them, in a pod that ends.

Kubernetes sends SIGTERM to both containers at once, but the front still answers calls that need TorchServe. The front
holds a lock on a file that both containers see; the kernel lets go of it when the front has ended, in whatever way.
TorchServe's preStop hook waits for that, so no time has to be guessed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.2


@contextlib.contextmanager
def serving(lock: Path | None) -> Iterator[None]:
    """Hold the lock while the front serves; nothing is held where there is no `lock`.

    Raises:
        OSError: the file cannot be opened.
    """
    if lock is None:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_for_front(lock: Path, seconds: float) -> bool:
    """Wait until no front serves; whether that came within `seconds`. Without a file there is no front to wait for."""
    give_up = time.monotonic() + seconds
    while not _free(lock):
        if time.monotonic() > give_up:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _free(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """TorchServe's preStop hook: 0 when the front has ended, 1 where it still serves after the given time."""
    parser = argparse.ArgumentParser(prog="python -m pneumoserve.drain", description="Wait until the front has ended.")
    parser.add_argument("--lock", type=Path, required=True, help="the file that the front holds a lock on")
    parser.add_argument("--seconds", type=float, required=True, help="how long to wait at most")
    options = parser.parse_args(arguments)
    return 0 if wait_for_front(options.lock, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
