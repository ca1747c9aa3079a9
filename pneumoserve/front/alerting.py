"""What the front does for alerts: it seals whose X-ray it is, and hints that there is something to look at.

Neither may cost the caller an answer: an envelope is stored as an image is, a hint is sent and forgotten.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from pneumoserve.front.errors import CallError
from pneumoserve.front.wire import Named
from pneumoserve.records import Addressee, Record, seal_envelope

_log: Final = logging.getLogger(__name__)


class Alerting:
    """`key` is the alert service's, None where there is none; `hint` says that it should look now, and returns at once.

    It answers for the model `pneumonia` alone: raw scores alert nobody.
    """

    def __init__(self, key: X25519PublicKey | None = None, hint: Callable[[], None] = lambda: None) -> None:
        self._key = key
        self._hint = hint

    def check(self, model: str, named: Named) -> None:
        """See that whoever names a practitioner or a reference is not wrong to think that somebody is told.

        Raises:
            CallError: 400 where nobody would be.
        """
        if _addressee(named) is None:
            return
        if self._key is None:
            raise CallError(400, "This service alerts nobody; leave practitioner and reference out.")
        if model != "pneumonia":
            raise CallError(400, "Scores alert nobody; leave practitioner and reference out, or ask pneumonia.")

    def seal(self, prediction_id: str, named: Named) -> bytes | None:
        """The envelope of a prediction; None where the call names neither practitioner nor reference."""
        addressee = _addressee(named)
        if addressee is None or self._key is None:
            return None
        return seal_envelope(self._key, prediction_id, addressee)

    def hint(self, records: Iterable[Record]) -> None:
        """Hint once records are stored, where one of them may alert somebody."""
        decisions = [record.decision for record in records if record.decision is not None]
        if any(decision.referred or decision.finding == "pneumonia" for decision in decisions):
            self._hint()


def _addressee(named: Named) -> Addressee | None:
    if named.practitioner is None and named.reference is None:
        return None
    return Addressee(practitioner=named.practitioner, reference=named.reference)


class HintLine:
    """Sends hints to HOST:PORT by UDP, from a thread of its own; looking the host up delays nobody."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._send, name="hints", daemon=True)
        self._thread.start()

    def __call__(self) -> None:
        """Have one sent; those that are wanted before it left are one."""
        self._wanted.set()

    def close(self) -> None:
        """Send no more."""
        self._closing = True
        self._wanted.set()
        self._thread.join()

    def _send(self) -> None:
        lost = False
        while self._wanted.wait() and not self._closing:
            self._wanted.clear()
            try:
                family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
                with socket.socket(family, kind, protocol) as line:
                    line.sendto(b"look", address)
            except OSError as error:
                if not lost:
                    _log.warning("hints do not leave (%s): alerts come seconds later", error.strerror)
                lost = True
            else:
                lost = False
