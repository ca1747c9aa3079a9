"""The front with a store that takes everything at once and keeps nothing: what `benchmarks.commit` compares with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pneumoserve.archive import store
from pneumoserve.front.__main__ import main


class Nowhere(store.ObjectStore):
    """Takes all, keeps nothing."""

    def put(self, key: str, data: bytes, content_type: str, lock: store.Lock | None = None) -> None:
        """Nothing."""

    def list(self, prefix: str) -> Iterator[store.StoredObject]:  # noqa: ARG002
        """Nothing is there."""
        return iter(())

    def check(self) -> None:
        """Always there."""


if __name__ == "__main__":
    # The front imports the class by this name.
    store.ObjectStore = Nowhere  # type: ignore[misc]
    sys.exit(main())
