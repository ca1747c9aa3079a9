"""The sender as a process: until SIGTERM or SIGINT."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Final

from prometheus_client import start_http_server

from pneumoserve.alerts.hints import Hints
from pneumoserve.alerts.sender import Resources, Sender
from pneumoserve.build_info import show_build
from pneumoserve.logs import set_up_logs

_LOOK_SECONDS: Final = 2.0


def run_sender(given: Resources, hints_at: tuple[str, int] | None, metrics_port: int | None) -> None:
    """Send until a signal, then finish what is on its way. `hints_at` is a host and a UDP port.

    Raises:
        AlertPolicyError: the address for hints cannot be listened on.
    """
    set_up_logs()
    stopping = threading.Event()
    with contextlib.ExitStack() as stack:
        hints = None
        if hints_at is not None:
            hints = stack.enter_context(contextlib.closing(Hints(*hints_at)))
        if metrics_port is not None:
            show_build("alerts")
            start_http_server(metrics_port)
        sender = Sender(given)

        def stop(*_: object) -> None:
            sender.stop()
            stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        sender.run(lambda: stopping.wait(_LOOK_SECONDS) if hints is None else hints.wait(_LOOK_SECONDS))
