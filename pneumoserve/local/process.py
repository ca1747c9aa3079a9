"""Child processes that end with their parent, whatever happens to it, and free ports for them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PORTS: Final = range(10240, 30000)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class StackError(RuntimeError):
    """The stack cannot start or go on; the text says what to do."""


@dataclass
class Child:
    """One child: its command, environment, log file, and how long it may take to end after SIGTERM (seconds)."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    grace: float
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it in a process group of its own."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # The parent may be killed without a chance to stop its children: the kernel then does.
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs when children are started
            )

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left of its group after the grace period."""
        if self.process is None:
            return
        if self.running:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until it is ready.

        Raises:
            StackError: it ended, or was not ready in time.
        """
        give_up = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise StackError(f"{self.name} ended while starting: {self.last_line()} (see logs/{self.log.name}).")
            if time.monotonic() > give_up:
                raise StackError(f"{self.name} was not ready within {seconds:.0f} s; read logs/{self.log.name}.")
            time.sleep(0.1)

    def last_line(self) -> str:
        """The last line it wrote."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now, outside of those that systems give to connections going out."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
            try:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise StackError("No port of loopback is free between 10240 and 29999.")
