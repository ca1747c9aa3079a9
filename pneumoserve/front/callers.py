"""Who calls, where a gateway in front of this service has verified it and says so in a header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pneumoserve.front.errors import CallError

# OpenID Connect Core 1.0, 2: a subject has at most 255 ASCII characters.
_SUBJECT: Final = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True)
class Callers:
    """`header` is the one, in lower case, that the gateway sets on every call; None where callers are not verified.

    The gateway must overwrite what a caller sends under that name, and nobody else may reach this service.
    """

    header: str | None

    def subject(self, headers: Iterable[tuple[str, str | bytes]]) -> str | None:
        """The verified caller among headers or gRPC metadata; None where callers are not verified.

        Raises:
            CallError: 401 where the header is not there once, as it is on a call that went past the gateway.
        """
        if self.header is None:
            return None
        found = [value for name, value in headers if name.lower() == self.header]
        if len(found) != 1:
            raise CallError(401, "The gateway names no caller; call through the gateway, with your token or key.")
        (subject,) = found
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            raise CallError(
                401, "The caller's name is not 1 to 255 printable ASCII characters; sign in under another claim."
            )
        return subject
