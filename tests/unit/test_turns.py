"""Turns of end-to-end tests in several workers: who is alone is alone, and nobody passes who waits for that."""

from __future__ import annotations

import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from tests.conftest import wait_for
from tests.e2e.turns import Turns, once


def is_taken(lock: Path) -> bool:
    """Whether somebody holds a lock for himself alone, or waits with it."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_tests_run_beside_each_other_but_for_one_that_wants_to_be_alone(tmp_path: Path) -> None:
    inside: set[str] = set()
    seen: dict[str, set[str]] = {}
    go_on = {name: Event() for name in ("first", "second", "third")}

    def test(name: str, alone: bool) -> None:
        turns = Turns(tmp_path)
        with turns.beside_others():
            if alone:
                with turns.alone():
                    seen[name] = set(inside)
                    assert go_on[name].wait(30)
            else:
                inside.add(name)
                seen[name] = set(inside)
                assert go_on[name].wait(30)
                inside.remove(name)

    with ThreadPoolExecutor(3) as workers:
        running = [workers.submit(test, "first", False)]
        wait_for(lambda: "first" in seen)
        running.append(workers.submit(test, "second", True))
        wait_for(lambda: is_taken(tmp_path / "gate"))
        running.append(workers.submit(test, "third", False))
        go_on["first"].set()
        wait_for(lambda: "second" in seen)
        go_on["second"].set()
        wait_for(lambda: "third" in seen)
        go_on["third"].set()
        for each in running:
            each.result()
    assert seen == {"first": {"first"}, "second": set(), "third": {"third"}}
    assert list(seen) == ["first", "second", "third"]


def test_two_tests_run_at_the_same_moment(tmp_path: Path) -> None:
    with Turns(tmp_path).beside_others(), Turns(tmp_path).beside_others():
        assert not is_taken(tmp_path / "gate")


def test_one_worker_alone_waits_for_nobody() -> None:
    turns = Turns(None)
    with turns.beside_others(), turns.alone():
        pass


def test_what_one_worker_made_is_made_once_and_what_failed_again(tmp_path: Path) -> None:
    made: list[str] = []

    def fail() -> str:
        raise OSError

    try:
        once(tmp_path, "thing", fail)
    except OSError:
        made.append("failed")

    def make() -> str:
        made.append("made")
        return "a thing"

    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(lambda _: once(tmp_path, "thing", make), range(8)))
    assert found == ["a thing"] * 8
    assert made == ["failed", "made"]
