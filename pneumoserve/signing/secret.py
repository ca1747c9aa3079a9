"""Secrets of any bytes, in files that processes may share."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SHORTEST_SECRET: Final = 32


def read_secret(path: Path) -> bytes | None:
    """The bytes of a file but white space at both ends; None where it cannot be read, or has fewer than 32."""
    try:
        secret = path.read_bytes().strip()
    except OSError:
        return None
    return secret if len(secret) >= SHORTEST_SECRET else None
