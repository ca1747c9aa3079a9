"""HTTP connections: how large a request's head may be, how long it may take, and how many connections there may be.

What is refused here was no call yet, so it is counted and not recorded. Bodies are the routes' business (`admission`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from pneumoserve.front import metrics
from pneumoserve.front.errors import CallError

# Four times what common servers take; a signed token has up to 16 KiB.
MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 10.0
# What is left of a body after its call was refused is thrown away for so long, so that the client reads why.
_REST_SECONDS: Final = 30.0
# An answer to a client that still sends is lost when the connection closes at once.
_LINGER_SECONDS: Final = 2.0
_MAX_PIPELINED: Final = 16
# Below what a process may open by default (1,024 files), beside gRPC's and the store's.
MAX_CONNECTIONS: Final = 512

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Connections:
    """The open connections: `most` in all, `per_address` of one address that is in none of the `proxies`' networks.

    A proxy brings the calls of many; its own limits count their connections.
    """

    def __init__(self, per_address: int, proxies: Sequence[Network], most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._per_address = per_address
        self._proxies = proxies
        self._open: dict[Connection, str] = {}
        self._of: Counter[str] = Counter()

    def enter(self, connection: Connection, address: str) -> bool:
        """Count a new connection in; False where it is one too many.

        Where all are taken, the oldest one without a request is closed for it.
        """
        if self._of[address] >= self._per_address and not self._is_proxy(address):
            return False
        if len(self._open) >= self._most and not self._close_an_idle_one():
            return False
        self._open[connection] = address
        self._of[address] += 1
        return True

    def leave(self, connection: Connection) -> None:
        """Count a connection out."""
        address = self._open.pop(connection, None)
        if address is not None:
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]

    def _close_an_idle_one(self) -> bool:
        idle = next((each for each in self._open if each.idle), None)
        if idle is None:
            return False
        idle.abort()
        self.leave(idle)
        return True

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(mapped in network for network in self._proxies)


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP with limits."""

    def __init__(
        self, limits: Connections, config: Config, server_state: ServerState, app_state: dict[str, Any], **more: Any
    ) -> None:
        super().__init__(config, server_state, app_state, **more)
        self._limits = limits
        self._head_bytes = 0
        # Whether a message's head, or its body, has begun and is not whole.
        self._in_head = False
        self._in_body = False
        self._deadline: asyncio.TimerHandle | None = None
        # Why the parser was stopped by us.
        self._reason: CallError | None = None
        self._refused = False

    @property
    def idle(self) -> bool:
        """Whether no request is being answered or has its body on the way."""
        return not self._in_body and not self._answering

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._limits.enter(self, self.client[0] if self.client else ""):
            self._expect(HEAD_SECONDS, self._miss_head)
        else:
            self._refuse(CallError(429, "There are more connections than the service can hold; use fewer of them."))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._limits.leave(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection without an answer."""
        metrics.HTTP_REFUSED.inc()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and not self._refused:
            # The parser keeps what has come of a header to itself.
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)
        elif self.idle and self.timeout_keep_alive_task is None and not self._refused:
            # Empty lines between requests end the wait for the next one as uvicorn sees it.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        if self._deadline is None:
            self._expect(HEAD_SECONDS, self._miss_head)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self._stop_parser(_TOO_LARGE)
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._stop_parser(CallError(429, "More requests came than answers were read; wait for the answers."))
        self._in_head = False
        self._in_body = True
        self._expect_nothing()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        if self.cycle.response_complete:
            self._expect_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and not self._answering and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._expect(_REST_SECONDS, self.abort)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Answer what the parser refused or we stopped it at, in the one shape of errors."""
        self._refuse(self._reason or CallError(400, "This is no valid HTTP/1.1 request; send one."))

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: a request for another protocol is answered as plain HTTP, and needs no lines in the log."""

    def _stop_parser(self, reason: CallError) -> NoReturn:
        self._reason = reason
        raise ValueError(reason.message)

    def _refuse(self, error: CallError) -> None:
        """Answer, and close when the client has had time to read it: one that still sends would lose the answer."""
        metrics.HTTP_REFUSED.inc()
        self._refused = True
        body = orjson.dumps({"error": error.message, "prediction_id": None})
        head = [STATUS_LINE[error.status], b"content-type: application/json\r\nconnection: close\r\n"]
        if error.retry_after is not None:
            head.append(b"retry-after: %d\r\n" % error.retry_after)
        head.append(b"content-length: %d\r\n\r\n" % len(body))
        self.transport.write(b"".join([*head, body]))
        self.transport.write_eof()
        self._expect(_LINGER_SECONDS, self.transport.abort)

    def _expect(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(seconds, otherwise)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _miss_head(self) -> None:
        self._deadline = None
        if self._answering:
            # A request that was sent ahead is read on when the one before it is answered.
            self._expect(HEAD_SECONDS, self._miss_head)
        elif self._in_head:
            self._refuse(CallError(408, "The request did not arrive in time; send it faster."))
        else:
            self.abort()


_TOO_LARGE: Final = CallError(431, "The headers are larger than 64 KiB; send fewer or shorter ones.")
