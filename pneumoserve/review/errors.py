"""What reading room, alerts and random check refuse."""

from __future__ import annotations

from typing import Final

from pneumoserve.errors import PneumoserveError

NO_CASE: Final = "There is no such study; check its id, and that the archive was followed."


class ReviewError(PneumoserveError):
    """Something that is asked for cannot be done; nothing of it was saved."""


class ClaimError(ReviewError):
    """A study is not this reader's to read, or no longer."""


class VerdictError(ReviewError, ValueError):
    """A verdict that cannot be one; the text repeats nothing of what was typed."""

    exit_code = 2


class ArchiveLabelError(ReviewError, ValueError):
    """Labels of the archive show nothing of other images; the text says how many there are, and what to do."""

    exit_code = 2


class DatabaseError(ReviewError):
    """The review database does not answer, or is not one."""
