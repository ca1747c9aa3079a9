"""A child of the local stack that does nothing any more."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from pneumoserve.local.process import Child


@pytest.mark.parametrize("answer", [None, True, False])
def test_a_child_that_answers_nothing_is_ended_though_it_takes_no_signal(answer: bool | None, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = Child("it", command, {}, tmp_path / "log", 0.1, None if answer is None else lambda: bool(answer))
    assert not child.end_frozen()
    child.start()
    try:
        assert child.process is not None
        os.kill(child.process.pid, signal.SIGSTOP)
        assert [child.end_frozen() for _ in range(5)] == [False] * 4 + [answer is False]
        assert child.running is (answer is not False)
    finally:
        child.stop()


def test_one_answer_in_between_is_enough(tmp_path: Path) -> None:
    answers = iter([False] * 4 + [True] + [False] * 4)
    child = Child("it", ["sleep", "60"], dict(os.environ), tmp_path / "log", 0.1, lambda: next(answers))
    child.start()
    try:
        assert not any(child.end_frozen() for _ in range(9))
    finally:
        child.stop()
