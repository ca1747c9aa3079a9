"""What became of studies, in the words that the review database and an export of the archive share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from pneumoserve.errors import PneumoserveError

ReadingOutcome = Literal["read", "cannot_tell", "undecided", "not_blind", "unread", "not_drawn"]


class NoStudiesError(PneumoserveError):
    """Nothing was answered that could be counted; the text says what to do."""

    exit_code = 2


class EmptyPeriodError(NoStudiesError):
    """Release and site are known, and nothing was answered in that time."""


@dataclass(frozen=True)
class Scope:
    """Which studies: of days from `since` to before `before`, of one release, and of one site, a verified caller."""

    since: datetime | None = None
    release: str | None = None
    site: str | None = None
    before: datetime | None = None

    def check(self, releases: Sequence[str], sites: Sequence[str]) -> None:
        """See that release and site are among those that studies are known of.

        Raises:
            NoStudiesError: one is not, or there are no studies; the text names those there are.
        """
        if not releases:
            raise NoStudiesError("No study has been answered yet; there is nothing to measure.")
        if self.release is not None and self.release not in releases:
            raise NoStudiesError(
                f"Release {self.release} has answered no study; those that did: {', '.join(releases)}."
            )
        if self.site is None or self.site in sites:
            return
        if not sites:
            raise NoStudiesError("No call named its caller, so there are no sites; leave the site out.")
        raise NoStudiesError(f"No study came from that site; those that studies came from: {', '.join(sites)}.")

    def check_found(self, found: bool) -> None:
        """See that there are studies in the scope.

        Raises:
            EmptyPeriodError: there are none.
        """
        if not found:
            raise EmptyPeriodError("No study was answered in that time; name an earlier day, or leave --since out.")


@dataclass(frozen=True)
class Effort:
    """What people did for some studies.

    `read` studies were read by somebody, `readings` times in all, each in so many `minutes` from images to verdict
    (the median; None: not known). Alerts led to `blood_tests` and `experts`.
    """

    read: int
    readings: int
    minutes: float | None
    blood_tests: int
    experts: int


class Tested(NamedTuple):
    """Of studies with one kind of answer: how many there are, how many were tested, and how many of these are sick."""

    answered: int
    tested: int
    sick: int
