"""Child processes that end with their parent, whatever happens to it, and ports and socket paths for them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pneumoserve.errors import PneumoserveError

_PR_SET_PDEATHSIG: Final = 1
# Looks without an answer until a process counts as frozen.
_SILENCES: Final = 5
_HOST: Final = "127.0.0.1"
_PORTS: Final = range(10240, 30000)
# Of a Unix socket; the kernel's limit.
_SOCKET_PATH_BYTES: Final = 107
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class StackError(PneumoserveError):
    """The stack cannot start or go on; the text says what to do."""

    exit_code = 2


@dataclass
class Child:
    """One child: its command, environment, log file, and how long it may take to end after SIGTERM (seconds).

    `answers`, where there is one, says whether it does anything at all. It inherits the file descriptors of `sockets`.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    grace: float
    answers: Callable[[], bool] | None = None
    sockets: tuple[int, ...] = ()
    started: float = field(default=0.0, init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    silences: int = field(default=0, init=False)

    def start(self) -> None:
        """Start it in a process group of its own."""
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.sockets,
                start_new_session=True,
                # The parent may be killed without a chance to stop its children: the kernel then does.
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs when children are started
            )

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def ask_to_end(self) -> None:
        """SIGTERM."""
        if self.process is not None and self.running:
            self.process.terminate()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left of its group after the grace period."""
        if self.process is None:
            return
        if self.running:
            self.ask_to_end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def end_frozen(self) -> bool:
        """Kill it where it has not answered the last looks, of which this is one; whether it did."""
        if self.process is None or not self.running or self.answers is None or self.answers():
            self.silences = 0
            return False
        self.silences += 1
        if self.silences < _SILENCES:
            return False
        self.silences = 0
        # A process that is stopped gets no other signal.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return True

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
    """Ports of loopback for children to listen on, outside of those that systems give to connections going out.

    This process is bound to them, without listening, until it ends: whoever asks for a free port gets another one, and
    a child that sets SO_REUSEADDR, as servers do, can listen all the same.

    Raises:
        StackError: too few are free.
    """
    ports: list[int] = []
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(ports) == count:
            break
        bound = socket.socket()
        try:
            bound.bind((_HOST, port))
        except OSError:
            bound.close()
            continue
        # Only now: another process that holds the port in this way must not share it.
        _let_servers_share(bound)
        # Never closed, on purpose: between the choice of a port and the moment a child listens on it lie seconds.
        bound.detach()
        ports.append(port)
    if len(ports) < count:
        raise StackError("No port of loopback is free between 10240 and 29999.")
    return ports


def hold(port: int) -> int:
    """A port of loopback that somebody chose; this process is bound to it as to those of `free_ports`.

    Raises:
        StackError: another process listens there, or this one may not.
    """
    _bind(port).detach()
    return port


def listen(port: int | None) -> socket.socket:
    """A socket that listens on a port of loopback, by default a free one, for a child to inherit.

    Raises:
        StackError: another process listens there, or this one may not.
    """
    listening = _bind(free_ports(1)[0] if port is None else port)
    listening.listen(socket.SOMAXCONN)
    return listening


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    # Connections that an earlier server closed linger for a minute, and are no reason to refuse.
    _let_servers_share(bound)
    try:
        bound.bind((_HOST, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise StackError(f"Port {port} is in use; stop what listens there, or give another one.") from None
        raise StackError(f"Port {port} cannot be used ({error.strerror}); give another one.") from None
    return bound


def _let_servers_share(bound: socket.socket) -> None:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


@contextlib.contextmanager
def short_path(folder: Path, name: str) -> Iterator[Path]:
    """A path of a folder that is short enough for a Unix socket of some name below it.

    It is the folder's own, or that of a link in a private temporary folder for as long as the context lasts.

    Raises:
        StackError: the temporary folder's path is too long as well.
    """
    if _fits(folder / name):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pneumoserve-") as private:
        link = Path(private) / "link"
        if not _fits(link / name):
            raise StackError("The path of the state folder is too long for a socket; give a shorter --state or TMPDIR.")
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _SOCKET_PATH_BYTES
