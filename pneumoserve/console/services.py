"""What the pages work with, and the threads that follow the archive and estimate."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pneumoserve.alerts import Links
from pneumoserve.console import metrics
from pneumoserve.console.heat_maps import HeatMaps
from pneumoserve.imaging.pool import DecoderPool
from pneumoserve.ledger import Reader
from pneumoserve.local.answers import describe_prevalence
from pneumoserve.monitoring import Counted, count_cohorts
from pneumoserve.records import NoStudiesError, ReleaseStop, Scope
from pneumoserve.release.fetch import find_policy, find_threshold
from pneumoserve.review import (
    AlertDesk,
    Case,
    CaseBook,
    Counts,
    ReadingRoom,
    ReviewDatabase,
    ReviewError,
    find_stops,
    list_cohorts,
)
from pneumoserve.store import Store, StoreError

_FOLLOW_SECONDS: Final = 2.0
_ESTIMATE_SECONDS: Final = 3600.0
# Longer than a moment that heals by itself, short enough that nobody trusts a page that is out of date.
_LATE: Final = timedelta(minutes=2)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """Archive, database, and what works on both; `now` is the clock.

    Without `opening`, nobody's name is shown. `prevalence` is that of the site, None where nobody has said it.
    """

    store: Store
    reader: Reader
    database: ReviewDatabase
    room: ReadingRoom
    desk: AlertDesk
    cases: CaseBook
    links: Links
    decoders: DecoderPool
    heat_maps: HeatMaps
    releases: Path
    trust: Path
    opening: X25519PrivateKey | None = None
    prevalence: float | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    followed: list[datetime] = field(default_factory=list)

    def follow(self) -> None:
        """Take what is new in the archive.

        Raises:
            StoreError, DatabaseError: the archive or the database does not answer.
        """
        try:
            self.database.follow(self.reader)
        except ValueError:
            _log.error("the archive holds an entry that this version does not read; use the version that wrote it")
        else:
            self.followed[:] = [self.now()]
            metrics.FOLLOWED.set(self.now().timestamp())

    def count_studies(self, scope: Scope = Scope()) -> list[Counted]:  # noqa: B008 - frozen
        """The studies in scope that have closed, by release.

        Raises:
            NoStudiesError: there are none.
            StoreError, DatabaseError: the store or the database does not answer.
        """
        cohorts = list_cohorts(self.database, self.now(), scope)
        return count_cohorts(cohorts, lambda release: find_threshold(release, self.releases, self.store))

    def estimate(self) -> None:
        """Show what readings say of each release as metrics.

        Raises:
            StoreError, DatabaseError: the store or the database does not answer.
        """
        try:
            counted = self.count_studies()
        except NoStudiesError:
            counted = []
        policies = {each.release: find_policy(each.release, self.releases, self.store) for each in counted}
        assumed = {release: policy.assumed_prevalence for release, policy in policies.items() if policy is not None}
        metrics.show_estimates(counted, assumed, self.now())

    def describe_prevalence(self, case: Case) -> str:
        """Which prevalence the confidence of a study's answer assumes, and what it is at the site's.

        Raises:
            StoreError: the store does not answer.
        """
        policy = find_policy(case.release, self.releases, self.store)
        assumed = None if policy is None else policy.assumed_prevalence
        return describe_prevalence(case.decision, assumed, self.prevalence)

    def faults(self, counts: Counts) -> list[str]:
        """What people must know before they rely on a page: what is off, and what to do meanwhile."""
        found = [_describe_stop(stop) for stop in find_stops(self.database)]
        if self.followed and self.now() - self.followed[-1] > _LATE:
            found.append(
                "The reading room does not hear of new answers: they are referred, and nobody is given them to read. "
                "Look at the archive's store and at the console's log."
            )
        if self.cases.is_late(counts.unsent_since, _LATE) or self.cases.is_late(counts.unraised_since, _LATE):
            found.append(
                "Alerts are not being sent. Tell practitioners by telephone until they are; see that "
                "`pneumoserve alerts send` runs."
            )
        return found


def _describe_stop(stop: ReleaseStop) -> str:
    since = stop.time[:16].replace("T", " ")
    return (
        f"Release {stop.release} is stopped since {since} UTC by {stop.by} ({stop.why}): each of its answers is "
        "referred, and no alert goes out for them."
    )


class _Repeated:
    """Does one thing again and again in a thread of its own, as long as the context lasts."""

    def __init__(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        self._seconds = seconds
        self._act = act
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._act()
            except (StoreError, ReviewError) as error:
                _log.warning("%s failed (%s)", self._thread.name, type(error).__name__)
            self._stop.wait(self._seconds)


class Follower(_Repeated):
    """Follows the archive."""

    def __init__(self, services: Services) -> None:
        def follow() -> None:
            services.follow()
            metrics.show_counts(services.cases.count())

        services.followed.append(services.now())
        super().__init__("following the archive", _FOLLOW_SECONDS, follow)


class Estimator(_Repeated):
    """Estimates each hour what readings say. It lists all studies, which following must not wait for."""

    def __init__(self, services: Services) -> None:
        super().__init__("estimating", _ESTIMATE_SECONDS, services.estimate)
