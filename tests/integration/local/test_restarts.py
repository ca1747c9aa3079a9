"""How often a child may die: each is counted for itself."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from pneumoserve.local.process import Child, listen
from pneumoserve.local.stack import _Stack
from pneumoserve.local.state import State
from tests.conftest import wait_for


def kill(child: Child) -> None:
    """Kill a child, and wait until another process has its place."""
    killed = child.process
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    wait_for(lambda: child.process not in (None, killed))


def test_two_children_that_die_twice_each_do_not_end_the_stack(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.make()
    stop = threading.Event()
    # Only its children are watched; no release is served.
    nothing = cast("Any", None)
    rest = listen(None)
    stack = _Stack(state, nothing, (rest, 0), tmp_path, (stop, threading.Event()), None, "torchserve")
    children = [Child(name, ["sleep", "600"], {}, tmp_path / name, 1.0) for name in ("models", "front")]
    for child in children:
        child.start()

    def disturb() -> None:
        try:
            for child in children * 2:
                kill(child)
        finally:
            stop.set()

    try:
        with ThreadPoolExecutor(1) as thread:
            disturbed = thread.submit(disturb)
            assert stack._watch(children) == 0
            disturbed.result()
    finally:
        rest.close()
        for child in children:
            child.stop()
