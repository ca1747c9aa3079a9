"""How long work on films shows what is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as show

_Item = TypeVar("_Item")


def track(items: Iterable[_Item], label: str, total: int | None = None) -> Iterator[_Item]:
    """Give the items out, with a bar on stderr where somebody watches; a log would get empty lines."""
    errors = Console(stderr=True, markup=False)
    yield from show(items, label, total, transient=True, console=errors, disable=not errors.is_terminal)
