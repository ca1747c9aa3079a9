"""A sender as a process that tests may kill: forked from one that has imported all, so that its start costs nothing."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.alerts import Links, Resources, Sender, load_policy
from pneumoserve.review import AlertDesk, DatabaseError, ReviewDatabase, commit_to, derive
from pneumoserve.store import S3Settings, S3Store
from tests.support.archives import reader_of

# After which a message is tried again for the first time.
PAUSE = timedelta(seconds=0.2)
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Job:
    """What a sender works on; `key` are the private bytes of the key that signs the archive."""

    s3: S3Settings
    key: bytes
    database: str
    policy: Path
    lease: float


def run(job: Job) -> None:
    """Send until SIGTERM."""
    derive._FIRST_PAUSE = PAUSE
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    key = Ed25519PrivateKey.from_private_bytes(job.key)
    store = S3Store(job.s3)
    while True:
        try:
            database = ReviewDatabase(job.database)
            break
        except DatabaseError:
            # Another process, or one that was killed, has it for a moment.
            continue
    desk = AlertDesk(database, commit_to(store, key))
    links = Links([Fernet.generate_key().decode()])
    given = Resources(store, reader_of(store, key), database, desk, load_policy(job.policy), links)
    sender = Sender(given, timedelta(seconds=job.lease))

    def wait() -> None:
        if stopping.wait(_LOOK_SECONDS):
            sender.stop()

    sender.run(wait)
