"""How long work reports what it has done, whoever shows it: a terminal, a log, nobody."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "ignore_progress"]

# Takes what was done, as a noun in the plural, and how many more of it. Threads may call it.
Progress = Callable[[str, int], None]


def ignore_progress(what: str, count: int) -> None:
    """Show nothing."""
