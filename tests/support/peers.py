"""Those who get alerts: a mail server with TLS, and a receiver of webhooks; on loopback unless told otherwise."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

from tests.support.cluster.certificates import Authority


@dataclass
class Mails:
    """What a mail server took. `refuse` is what it answers to DATA, `refuse_to` to each recipient, "" takes all."""

    port: int = 0
    refuse: str = ""
    refuse_to: str = ""
    taken: list[EmailMessage] = field(default_factory=list)
    to: list[list[str]] = field(default_factory=list)

    async def handle_RCPT(self, _: Any, __: Any, envelope: Envelope, address: str, ___: Any) -> str:  # noqa: N802
        if self.refuse_to:
            return self.refuse_to
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: Any, __: Any, envelope: Envelope) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse
        assert isinstance(envelope.content, bytes)
        self.taken.append(message_from_bytes(envelope.content, policy=policy.default))
        self.to.append(list(envelope.rcpt_tos))
        return "250 OK"


class _Bound(Controller):
    """Listens on a socket that is bound already."""

    bound: socket.socket

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self.bound, ssl=self.ssl_context)


@contextmanager
def mail_server(
    authority: Authority, *, implicit: bool = False, password: str | None = None, host: str = "127.0.0.1"
) -> Iterator[Mails]:
    """One that takes mail after STARTTLS, or by TLS from the beginning, of a user if there is a password."""
    authority.issue("mail", "mail", hosts=(host,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / "mail.crt", authority.folder / "mail.key")
    mails = Mails()
    options: dict[str, Any] = {} if implicit else {"tls_context": context, "require_starttls": True}
    if password is not None:
        options |= {
            "auth_required": True,
            "authenticator": lambda *given: AuthResult(success=given[4].password == password.encode(), handled=False),
        }
    bound = socket.socket()
    bound.bind((host, 0))
    mails.port = bound.getsockname()[1]
    server = _Bound(mails, host, mails.port, ssl_context=context if implicit else None, **options)
    server.bound = bound
    server.start()
    try:
        yield mails
    finally:
        server.stop()


@dataclass
class Hooks:
    """What a receiver of webhooks was sent, and what it answers: a status, and how long it waits before."""

    url: str = ""
    answer: Callable[[], int] = lambda: 204
    wait: threading.Event | None = None
    asked: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [event["id"] for event in self.taken]


@contextmanager
def hook_server() -> Iterator[Hooks]:
    """One that runs for as long as the context lasts."""
    hooks = Hooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            hooks.asked.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if hooks.wait is not None:
                hooks.wait.wait(30)
            status = hooks.answer()
            if 200 <= status < 300:
                hooks.taken.append(json.loads(body))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hooks.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hooks
    finally:
        if hooks.wait is not None:
            hooks.wait.set()
        server.shutdown()
        thread.join()
        server.server_close()
