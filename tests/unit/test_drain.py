"""The models outlast the front, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pneumoserve.drain import main, wait_for_front

HOLD = """
import sys, time
from pathlib import Path
from pneumoserve.drain import serving
with serving(Path(sys.argv[1])):
    print("serving", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_wait_lasts_until_the_front_has_ended(tmp_path: Path, number: int) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as front:
        assert front.stdout is not None
        assert front.stdout.readline() == b"serving\n"
        assert not wait_for_front(lock, 0.5)
        os.kill(front.pid, number)
        started = time.monotonic()
        assert wait_for_front(lock, 60)
        assert time.monotonic() - started < 30


def test_where_no_front_ever_was_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert main([f"--lock={tmp_path / 'lock'}", "--seconds=60"]) == 0
