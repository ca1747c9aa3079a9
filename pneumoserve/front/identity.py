"""Who calls, where a gateway in front of this service has verified it and says so in a header."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pneumoserve.errors import PneumoserveError
from pneumoserve.front.errors import CallError

# OpenID Connect Core 1.0, 2: a subject has at most 255 ASCII characters.
_SUBJECT: Final = re.compile(r"[\x20-\x7e]{1,255}")
GATEWAY_HEADER: Final = "pneumoserve-gateway"
_LEAST_SECRET: Final = 32


class GatewaySecretError(PneumoserveError):
    """The gateway's secret cannot be used; the text says why."""


def read_secret(file: Path) -> bytes:
    """What the gateway proves itself by.

    Raises:
        GatewaySecretError: there is none, or a short one.
    """
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise GatewaySecretError(f"The gateway's secret cannot be read ({error.strerror}): {file}.") from None
    if len(secret) < _LEAST_SECRET:
        raise GatewaySecretError(f"The gateway's secret is shorter than {_LEAST_SECRET} characters; make a longer one.")
    return secret


@dataclass(frozen=True)
class Callers:
    """`header` is the one, in lower case, that the gateway sets on every call; None where callers are not verified.

    The gateway must overwrite what a caller sends under that name. With a `secret` the name counts only where that
    came along in `GATEWAY_HEADER`; without one, nobody but the gateway may reach this service.
    """

    header: str | None
    secret: bytes | None = field(default=None, repr=False)

    def subject(self, headers: Iterable[tuple[str, str | bytes]]) -> str | None:
        """The verified caller among headers or gRPC metadata; None where callers are not verified.

        Raises:
            CallError: 401 where the header is not there once, or the secret is not, as on a call that went past the
                gateway.
        """
        if self.header is None:
            return None
        pairs = [(name.lower(), value) for name, value in headers]
        if self.secret is not None and not self._is_proved([value for name, value in pairs if name == GATEWAY_HEADER]):
            raise CallError(401, "The call did not come through the gateway; call there, with your token or key.")
        found = [value for name, value in pairs if name == self.header]
        if len(found) != 1:
            raise CallError(401, "The gateway names no caller; call through the gateway, with your token or key.")
        (subject,) = found
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            raise CallError(
                401, "The caller's name is not 1 to 255 printable ASCII characters; sign in under another claim."
            )
        return subject

    def _is_proved(self, proofs: list[str | bytes]) -> bool:
        if len(proofs) != 1 or self.secret is None:
            return False
        (proof,) = proofs
        return hmac.compare_digest(proof.encode() if isinstance(proof, str) else proof, self.secret)
