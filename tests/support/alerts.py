"""A sender over a ward of tests.support.reviews, and channels that tests can watch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from unittest import mock

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pneumoserve.alerts import AlertPolicy, Channel, ChannelError, Links, Outgoing, Resources, Sender, sender
from tests.support.reviews import Ward

LINKS = Links([Fernet.generate_key().decode()])
MAIL = {"kind": "email", "host": "mail.example", "sender": "alerts@hospital.example", "to": ["ward@hospital.example"]}
PAGER = {"kind": "webhook", "url": "https://pager.example/hook"}
STEPS = [
    {"afterMinutes": 0, "channels": ["mail"]},
    {"afterMinutes": 15, "channels": ["mail", "pager"], "who": "the consultant on call"},
]
ROUTED = {"channels": {"mail": MAIL, "pager": PAGER}, "routes": [{"name": "all", "steps": STEPS}]}


def policy_of(**changes: object) -> AlertPolicy:
    return AlertPolicy.model_validate({**ROUTED, **changes})


@dataclass
class Channels:
    """What was sent by which channel, by its kind; those in `broken` take nothing."""

    sent: list[tuple[str, Outgoing]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def send(self, channel: Channel, message: Outgoing) -> None:
        with self._changing:
            if channel.kind in self.broken:
                raise ChannelError("the receiver answers 500")
            self.sent.append((channel.kind, message))

    @property
    def keys(self) -> list[str]:
        return [message.key for _, message in self.sent]


@contextlib.contextmanager
def watched() -> Iterator[Channels]:
    """Channels that reach nobody, for as long as the context lasts."""
    channels = Channels()
    with mock.patch.object(sender, "send", channels.send):
        yield channels


def sender_of(
    ward: Ward, policy: AlertPolicy, opening: X25519PrivateKey | None = None, lease: timedelta = timedelta(minutes=1)
) -> Sender:
    given = Resources(ward.store, ward.reader, ward.database, ward.desk, policy, LINKS, opening)
    return Sender(given, lease, ward.now)


def look(made: Sender) -> None:
    """One look, and all that it sends."""
    made.look()
    made.wait_for_deliveries()
