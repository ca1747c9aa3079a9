"""The front with a store that takes everything at once and keeps nothing: what `benchmarks.commit` compares with."""

from __future__ import annotations

import sys

from pneumoserve.front.__main__ import main
from pneumoserve.store import Lock, MemoryStore


class NullStore(MemoryStore):
    """Takes all, keeps nothing."""

    def put(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> None:
        """Nothing."""


if __name__ == "__main__":
    sys.exit(main(store=NullStore()))
