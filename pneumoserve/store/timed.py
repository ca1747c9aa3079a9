"""HTTP connections on which a whole request has one deadline, however its bytes trickle.

The time limit of a socket counts anew for each operation, so a server that sends one byte now and then would hold a
request for as long as it likes. Here every operation gets what is left of the request's time, and no more.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

# A request that moves at least so many bytes in each of its times may take longer: large films, and roll-ups of 32 MiB
# on slow lines. At 2 s that is 256 KiB a second.
_LEAST: Final = 512 * 1024
_PIECE: Final = 256 * 1024


class _Deadline:
    """One request's time in seconds.

    What is sent lengthens it, and what is received where the caller reads it piece by piece (`streams`); what is
    received at once does not, since such an answer could be endless.
    """

    def __init__(self, seconds: float) -> None:
        self.streams = False
        self._seconds = seconds
        self._started = time.monotonic()
        self._moved = 0

    def left(self) -> float:
        """Seconds that the next operation may take.

        Raises:
            TimeoutError: none is left.
        """
        allowed = self._seconds * max(1.0, self._moved / _LEAST)
        left = min(self._seconds, self._started + allowed - time.monotonic())
        if left <= 0:
            raise TimeoutError("the request took longer than it may")
        return left

    def count_sent(self, count: int) -> None:
        """Count bytes of the request."""
        self._moved += count

    def count_received(self, count: int) -> None:
        """Count bytes of the answer."""
        if self.streams:
            self._moved += count


class _Socket(socket.socket):
    """A plain socket that keeps a deadline."""

    deadline: _Deadline

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        for piece in _pieces(data):
            self.settimeout(self.deadline.left())
            super().sendall(piece, flags)
            self.deadline.count_sent(len(piece))

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        self.settimeout(self.deadline.left())
        count = super().recv_into(buffer, nbytes, flags)
        self.deadline.count_received(count)
        return count


class _TlsSocket(ssl.SSLSocket):
    """The same over TLS."""

    deadline: _Deadline

    def sendall(self, data: Any, flags: int = 0) -> None:
        for piece in _pieces(data):
            self.settimeout(self.deadline.left())
            super().sendall(piece, flags)
            self.deadline.count_sent(len(piece))

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(self.deadline.left())
        count = super().recv_into(buffer, nbytes, flags)
        self.deadline.count_received(count)
        return count


def _pieces(data: Any) -> list[memoryview]:
    whole = memoryview(data).cast("B")
    return [whole[start : start + _PIECE] for start in range(0, len(whole), _PIECE)]


class _Timed(HTTPConnection):
    """A connection whose requests each have a deadline, of as many seconds as its time limit says."""

    deadline: _Deadline
    # That of a request which opens the connection first.
    opened: _Deadline | None = None

    def begin(self) -> _Deadline:
        """Start a request's time."""
        self.deadline = _Deadline(self.timeout or 0.0)
        return self.deadline

    def request(  # type: ignore[override] # as urllib3's own, which asks for less than http.client's
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        preload_content: bool = True,
        **options: Any,
    ) -> None:
        deadline = self.opened or self.begin()
        self.opened = None
        deadline.streams = not preload_content
        if isinstance(self.sock, (_Socket, _TlsSocket)):
            self.sock.deadline = deadline
        super().request(method, url, body, headers, preload_content=preload_content, **options)

    def _new_conn(self) -> socket.socket:
        """A connected socket; all addresses of the name share the deadline."""
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        fault: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            made = _Socket(family, kind, protocol)
            made.deadline = self.deadline
            try:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.settimeout(self.deadline.left())
                made.connect(address)
                # What comes next may be a handshake, which takes its time limit from the socket.
                made.settimeout(self.deadline.left())
            except OSError as error:
                made.close()
                fault = error
            else:
                sys.audit("http.client.connect", self, self.host, self.port)
                return made
        if isinstance(fault, TimeoutError):
            raise ConnectTimeoutError(self, "the connection took longer than it may") from fault
        raise NewConnectionError(self, f"no connection: {fault}") from fault


class _TimedTls(_Timed, HTTPSConnection):
    def connect(self) -> None:
        self.opened = self.begin()
        super().connect()
        if isinstance(self.sock, _TlsSocket):
            self.sock.deadline = self.deadline


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Timed


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TimedTls


def make_timed_pool(seconds: float, context: ssl.SSLContext, **options: Any) -> urllib3.PoolManager:
    """A pool whose requests take at most `seconds` each, from connecting to the answer's last byte.

    Bodies that are sent, and answers that are read piece by piece, may take longer while 512 KiB move in that time.
    """
    context.sslsocket_class = _TlsSocket
    pool = urllib3.PoolManager(timeout=seconds, ssl_context=context, **options)
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return pool
