"""The front with threads whose names the system shows, so that `benchmarks.cpu` can tell them apart."""

from __future__ import annotations

import ctypes
import sys
import threading

from pneumoserve.front.__main__ import main

_PR_SET_NAME = 15
_LIBC = ctypes.CDLL(None)


def name_threads() -> None:
    """Give each thread that starts from now on its Python name; Python does so itself from 3.14 on."""
    begin = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def begin_named(thread: threading.Thread) -> None:
        _LIBC.prctl(_PR_SET_NAME, thread.name.encode()[:15])
        begin(thread)

    threading.Thread._bootstrap_inner = begin_named  # type: ignore[attr-defined]


if __name__ == "__main__":
    name_threads()
    sys.exit(main())
