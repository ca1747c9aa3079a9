"""Links to alerts: an opaque token stands in each, which only the reading room's key opens.

Nothing of a link is stored, so a database that was made anew opens those that were sent before. Opening one changes
nothing: mail gateways open links too.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pneumoserve.alerts.errors import LinkError

LINK_DAYS: Final = 14
_LONGEST: Final = 200


class Links:
    """Makes tokens by the first key, and opens those of all."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernets = [Fernet(key) for key in keys]
        self._all = MultiFernet(self._fernets)

    @classmethod
    def read(cls, path: Path) -> Links:
        """The keys of a file, one a line, the newest first.

        Raises:
            LinkError: it holds none.
        """
        try:
            return cls(path.read_text(encoding="ascii").split())
        except (OSError, ValueError):
            raise LinkError(
                f"{path.name} holds no keys for links; put 32 random bytes there, in URL-safe base64, one key a line."
            ) from None

    def make(self, alert_id: str, now: datetime) -> str:
        """A token for an alert."""
        plain = uuid.UUID(alert_id).bytes
        return self._fernets[0].encrypt_at_time(plain, int(now.timestamp())).decode().rstrip("=")

    def alert_of(self, token: str, now: datetime) -> str:
        """The alert that a token leads to.

        Raises:
            LinkError: it was altered, or is older than 14 days.
        """
        altered = LinkError("This link is not whole; open it from the message again, or find the alert among yours.")
        if len(token) > _LONGEST or not token.isascii():
            raise altered
        padded = token.encode() + b"=" * (-len(token) % 4)
        try:
            alert_id = str(uuid.UUID(bytes=self._all.decrypt(padded)))
            made = datetime.fromtimestamp(self._all.extract_timestamp(padded), UTC)
        except (InvalidToken, ValueError):
            raise altered from None
        if now - made > timedelta(days=LINK_DAYS):
            raise LinkError(f"This link is older than {LINK_DAYS} days; an alert that you answered is among yours.")
        return alert_id
