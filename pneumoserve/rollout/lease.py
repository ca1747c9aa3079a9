"""One process at a time runs a rollout; one that was killed is followed by another within the lease's time.

As client-go's leader election does it: a lease is over when it was seen unchanged for its whole time by one's own
clock, so that no two clocks need to agree.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from pneumoserve.rollout.cluster import Cluster, ClusterError, ConflictError, UnreachableError

SECONDS: Final = 15
_RENEW: Final = 4.0
# After this long without a renewal somebody else may have it any moment.
_SURE: Final = 12.0


class Lease:
    """Held by `holder`, a name that no other process has."""

    def __init__(self, cluster: Cluster, holder: str, wait: threading.Event | None = None) -> None:
        self._cluster = cluster
        self._holder = holder
        self._ended = wait or threading.Event()
        self._lock = threading.Lock()
        self._renewed = 0.0
        self._lost = False

    def take(self) -> bool:
        """Take it where it is free, or was left by one that died; waits for the latter. False: its holder lives."""
        seen = ""
        since = time.monotonic()
        while True:
            view = self._cluster.lease()
            over = seen and view is not None and view.renewed == seen and time.monotonic() - since >= SECONDS
            if view is None or view.holder in {"", self._holder} or over:
                try:
                    self._cluster.take_lease(self._holder, SECONDS, None if view is None else view.version)
                except ConflictError:
                    continue
                self._renewed = time.monotonic()
                return True
            if seen and view.renewed != seen:
                return False
            seen = view.renewed
            self._ended.wait(1.0)

    def is_held(self) -> bool:
        """Whether this process may write.

        Raises:
            UnreachableError: the cluster does not answer, so nobody knows.
        """
        if not self._lost and time.monotonic() - self._renewed > _SURE:
            self._renew()
        return not self._lost

    @contextlib.contextmanager
    def keep(self) -> Iterator[None]:
        """Renew it in the background; give it back at the end."""
        keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            self._ended.set()
            keeper.join()
            with contextlib.suppress(ClusterError):
                self._give_back()

    def _keep(self) -> None:
        while not self._ended.wait(_RENEW):
            with contextlib.suppress(UnreachableError):
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            view = self._cluster.lease()
            if view is None or view.holder != self._holder:
                self._lost = True
                return
            try:
                self._cluster.take_lease(self._holder, SECONDS, view.version)
            except ConflictError:
                self._lost = True
                return
            self._renewed = time.monotonic()

    def _give_back(self) -> None:
        view = self._cluster.lease()
        if view is not None and view.holder == self._holder:
            self._cluster.take_lease("", SECONDS, view.version)
