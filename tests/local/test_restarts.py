"""How often a child may die: each is counted for itself."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.conftest import Stack, start_stack, wait_for


def ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/v2/health/ready", timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def test_two_children_that_die_twice_each_do_not_end_the_stack(tmp_path: Path) -> None:
    running = start_stack(tmp_path / "state")
    try:
        for word in ("pneumoserve.front", "org.pytorch.serve.ModelServer") * 2:
            running.child(word).kill()
            wait_for(lambda: running.process.poll() is not None or not ready(running))
            wait_for(lambda: running.process.poll() is not None or ready(running), 60)
            assert running.process.poll() is None, (tmp_path / "state.err").read_text()
    finally:
        assert running.stop() == 0
