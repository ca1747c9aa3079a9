"""Hints: one wakes the sender, many are one, and none is needed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from pneumoserve.alerts import AlertPolicyError, Hints


def send_to(hints: Hints, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for _ in range(count):
            line.sendto(b"look", ("127.0.0.1", hints.port))


def test_a_hint_ends_the_wait_and_all_that_came_are_one() -> None:
    with contextlib.closing(Hints("127.0.0.1", 0)) as hints:
        waiting = threading.Thread(target=hints.wait, args=(60.0,))
        waiting.start()
        send_to(hints, 1)
        waiting.join(30)
        assert not waiting.is_alive()
        send_to(hints, 50)
        hints.wait(60.0)
        began = time.monotonic()
        hints.wait(0.2)
        assert time.monotonic() - began >= 0.2


def test_without_a_hint_the_wait_ends_all_the_same() -> None:
    with contextlib.closing(Hints("127.0.0.1", 0)) as hints:
        hints.wait(0.01)


def test_a_hint_of_any_size_does_no_harm() -> None:
    with contextlib.closing(Hints("127.0.0.1", 0)) as hints:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.sendto(b"x" * 60_000, ("127.0.0.1", hints.port))
            line.sendto(b"", ("127.0.0.1", hints.port))
        hints.wait(60.0)


def test_a_port_in_use_is_refused() -> None:
    with contextlib.closing(Hints("127.0.0.1", 0)) as hints, pytest.raises(AlertPolicyError, match="give another"):
        Hints("127.0.0.1", hints.port)
