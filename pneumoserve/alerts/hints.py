"""A hint is one datagram that says: look now. It makes an alert fast; following the archive makes it certain.

It holds nothing, so nobody learns anything from it, and whoever forges one makes the sender look once more.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from pneumoserve.alerts.errors import AlertPolicyError

_LARGEST: Final = 64


class Hints:
    """Waits for hints on a UDP port; 0 is a free one.

    Raises:
        AlertPolicyError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise AlertPolicyError(f"Hints cannot be heard on port {port} ({error.strerror}); give another.") from None

    @property
    def port(self) -> int:
        """The port."""
        return int(self._socket.getsockname()[1])

    def wait(self, seconds: float) -> None:
        """Return after a hint, or after so many seconds. All hints that came by then are one."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(seconds)
            self._socket.recv(_LARGEST)
            self._socket.settimeout(0.0)
            while True:
                self._socket.recv(_LARGEST)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
