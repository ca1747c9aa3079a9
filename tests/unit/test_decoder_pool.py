"""The pool of decode workers: what becomes of films, callers and workers when workers die, hang, lie or are busy."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pytest
from PIL import Image

from pneumoserve.imaging import DisplayImage, ImageError, PreparedImage
from pneumoserve.imaging.pool import DecoderPool, Lane, LaneName, NotDecodedError, Outcome
from pneumoserve.imaging.prepare import prepare
from pneumoserve.imaging.turns import CALL_PIXELS, CALL_SECONDS, Budget, FairQueue, Job
from pneumoserve.imaging.worker import sound_films
from tests.support.films import sample_films
from tests.unit import fake_worker
from tests.unit.fake_worker import FACTS, FILM, PIXELS, SHOWN_PIXELS, STORED

FAKE = [sys.executable, "-I", fake_worker.__file__]
MIB = 1024 * 1024


def lanes(seconds: float = 5.0, wall_seconds: float = 30.0, fast: int = 1) -> dict[LaneName, Lane]:
    return {
        "fast": Lane(fast, seconds, wall_seconds, 256 * MIB),
        "slow": Lane(1, 2 * seconds, 2 * wall_seconds, 512 * MIB),
    }


class Pool(DecoderPool):
    """A pool of fake workers that keeps what it reports."""

    def __init__(self, of: dict[LaneName, Lane] | None = None, **options: Any) -> None:
        self.outcomes: list[tuple[LaneName, Outcome]] = []
        super().__init__(of or lanes(), lambda lane, how, _: self.outcomes.append((lane, how)), command=FAKE, **options)

    def __enter__(self) -> Self:
        super().__enter__()
        until(lambda: self.ready)
        return self

    def refusal(self, film: bytes, budget: Budget | None = None) -> ImageError:
        error = self.submit(film, budget or Budget()).exception(60)
        assert isinstance(error, ImageError)
        return error


@pytest.fixture(scope="module")
def real() -> Iterator[DecoderPool]:
    with DecoderPool() as pool:
        yield pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool() as started:
        yield started


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def fake_workers() -> set[psutil.Process]:
    return {each for each in psutil.Process().children() if fake_worker.__file__ in each.cmdline()}


# Real workers.


@pytest.mark.slow
def test_a_worker_prepares_every_kind_of_film_as_this_process_does(real: DecoderPool) -> None:
    accepted = 0
    for film in [*sound_films(), *(path.read_bytes() for path in sample_films())]:
        try:
            expected = prepare(film)
        except ImageError as error:
            with pytest.raises(ImageError) as refused:
                real.prepare(film)
            assert (refused.value.status, str(refused.value)) == (error.status, str(error))
            continue
        accepted += 1
        found = real.prepare(film)
        assert np.array_equal(found.pixels, expected.pixels)
        assert {**vars(found), "pixels": None} == {**vars(expected), "pixels": None}
    assert accepted > 60
    until(lambda: real.ready)
    assert real.filtered


@pytest.mark.parametrize(
    "film", [b"", b"no film", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM", bytes(32 * MIB + 1)]
)
def test_a_worker_refuses_as_this_process_does(real: DecoderPool, film: bytes) -> None:
    with pytest.raises(ImageError) as here:
        prepare(film)
    with pytest.raises(ImageError) as there:
        real.prepare(film)
    assert (there.value.status, str(there.value)) == (here.value.status, str(here.value))


def test_a_film_over_the_memory_limit_is_413_and_says_so() -> None:
    out = io.BytesIO()
    Image.new("I;16", (3000, 3000)).save(out, "PNG")
    tight: dict[LaneName, Lane] = {"fast": Lane(1, 5, 30, 8 * MIB), "slow": Lane(1, 5, 30, 16 * MIB)}
    outcomes: list[tuple[LaneName, Outcome]] = []
    with DecoderPool(tight, lambda lane, how, _: outcomes.append((lane, how))) as pool:
        error = pool.submit(out.getvalue(), Budget()).exception(60)
        assert isinstance(error, ImageError)
        assert (error.status, "memory" in str(error)) == (413, True)
        assert pool.prepare(sample_films()[0].read_bytes()).format == "jpeg"
    assert outcomes == [("fast", "moved"), ("slow", "memory"), ("fast", "prepared")]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed() -> None:
    program = (
        "import time; from dataclasses import replace; from pneumoserve.imaging.pool import LANES, DecoderPool\n"
        "with DecoderPool({**LANES, 'fast': replace(LANES['fast'], workers=1)}) as pool:\n"
        "  while not pool.ready: time.sleep(.01)\n"
        "  print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        workers = psutil.Process(parent.pid).children()
        assert len(workers) >= 2
        parent.kill()
    until(lambda: not any(worker.is_running() for worker in workers))


# What a worker may do wrong.


@pytest.mark.parametrize(
    "deed", [b"abort", b"exit", b"half 0", b"half 4", b"half 60", b"half 300", b"half -5"], ids=bytes.decode
)
def test_the_death_of_a_worker_is_400_and_the_next_film_is_answered(pool: Pool, deed: bytes) -> None:
    error = pool.refusal(deed)
    assert (error.status, "safely" in str(error)) == (400, True)
    assert pool.prepare(b"film").width == 1000
    until(lambda: pool.outcomes == [("fast", "died"), ("fast", "prepared")])
    assert pool.ready


def test_a_film_that_ended_a_worker_is_not_tried_again(pool: Pool) -> None:
    first = pool.refusal(b"abort")
    pool.prepare(b"film")
    starts = pool.starts
    again = pool.refusal(b"abort")
    assert (again.status, str(again)) == (first.status, str(first))
    assert pool.starts == starts
    until(lambda: pool.outcomes == [("fast", "died"), ("fast", "prepared"), ("fast", "refused")])


def test_a_film_whose_worker_somebody_else_kills_is_tried_once_more(pool: Pool, tmp_path: Path) -> None:
    assert pool.prepare(b"kill " + bytes(tmp_path / "once")).width == 1000
    assert pool.refusal(b"kill").status == 400
    until(lambda: Counter(how for _, how in pool.outcomes) == {"killed": 4, "prepared": 1})


def test_workers_that_die_idle_are_replaced_without_loss() -> None:
    others = fake_workers()
    with Pool() as pool:
        pool.prepare(b"film")
        for worker in fake_workers() - others:
            worker.kill()
        assert pool.prepare(b"film").width == 1000
        assert pool.ready


def test_a_film_that_takes_too_long_is_413_and_not_tried_again() -> None:
    with Pool(lanes(0.2, 3600)) as pool:
        for _ in range(2):
            error = pool.refusal(b"spin")
            assert (error.status, "too long" in str(error)) == (413, True)
        assert pool.prepare(b"film").width == 1000
    assert [how for _, how in pool.outcomes] == ["timeout", "refused", "prepared"]


@pytest.mark.parametrize("deed", [b"sleep 600", b"trickle"])
def test_a_worker_that_stands_still_says_nothing_of_its_film(deed: bytes) -> None:
    """A machine may be halted for a while, and a sound film must not be refused ever after."""
    with Pool(lanes(wall_seconds=0.3)) as pool:
        for _ in range(2):
            error = pool.refusal(deed)
            assert (error.status, "try again" in str(error)) == (503, True)
        assert pool.prepare(b"film").width == 1000
    assert [how for _, how in pool.outcomes] == ["stalled", "stalled", "prepared"]


def test_a_busy_machine_costs_no_film_its_chance() -> None:
    # The worker waits for longer than its limit, as it does where others have the processor.
    with Pool(lanes(seconds=0.3)) as pool:
        assert pool.prepare(b"sleep 0.6").width == 1000


LIES: dict[str, bytes] = {
    "no JSON": b"say nothing",
    "no object": b"say []",
    "deep": b"say " + b"[" * 4000,
    "empty": b"say {}",
    "long header": b"raw " + struct.pack("!II", 5000, 0).hex().encode(),
    "long copy": b"raw " + struct.pack("!II", 2, 40 * MIB).hex().encode(),
    "copy without film": b"raw " + (struct.pack("!II", 15, 4) + b'{"memory":true}abcd').hex().encode(),
    "status 200": b'say {"status": 200, "message": "no"}',
    "status 500": b'say {"status": 500, "message": "no"}',
    "status of words": b'say {"status": "400", "message": "no"}',
    "no message": b'say {"status": 400, "message": ""}',
    "long message": b'say {"status": 400, "message": "' + b"a" * 401 + b'"}',
    "control characters": b'say {"status": 400, "message": "a\\nb"}',
    "large beyond the limit": b'say {"large": 50000000}',
    "large by words": b'say {"large": "1"}',
    **{
        f"{name} {value!r}": b"say " + json.dumps({**FILM, name: value}).encode()
        for name, value in [
            ("format", "gif"), ("format", []), ("width", -1), ("width", 10**9), ("width", 1.5), ("height", None),
            ("facts", None), ("facts", {}), ("facts", {**FACTS, "more": 1}), ("facts", {**FACTS, "sex": "DOE^JOHN"}),
            ("facts", {**FACTS, "age_years": -1}), ("facts", {**FACTS, "sex": [1]}),
            ("facts", {**FACTS, "age_years": 1e9}),
        ]
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def lied_to() -> Iterator[Pool]:
    with Pool() as started:
        yield started


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_says_what_it_may_not_is_ended(lied_to: Pool, lie: str) -> None:
    assert lied_to.refusal(LIES[lie]).status == 400
    until(lambda: lied_to.outcomes[-1] == ("fast", "garbage"))


def test_a_film_to_be_looked_at_comes_at_its_full_depth(lied_to: Pool) -> None:
    assert lied_to.display(b"shown") == DisplayImage(SHOWN_PIXELS, 16, 3, 2, 0.0, 9.5)
    with pytest.raises(ImageError, match="too small"):
        lied_to.display(b'say {"status": 400, "message": "too small"}')


@pytest.mark.parametrize(
    "lie",
    [
        b"film",
        b'say {"bits": 16}',
        *(
            b"shown " + json.dumps({name: value}).encode()
            for name, value in [
                ("bits", 8), ("bits", 12), ("width", 4), ("width", 3.0), ("height", 0), ("low", 10.0), ("low", None),
                ("high", "9"), ("high", 1),
            ]
        ),
    ],
)  # fmt: skip
def test_a_worker_that_says_of_it_what_it_may_not_is_ended(lied_to: Pool, lie: bytes) -> None:
    with pytest.raises(ImageError):
        lied_to.display(lie)
    until(lambda: lied_to.outcomes[-1] == ("fast", "garbage"))


def test_a_worker_that_answers_with_another_kind_of_film_is_ended(lied_to: Pool) -> None:
    assert lied_to.refusal(b"shown").status == 400
    until(lambda: lied_to.outcomes[-1] == ("fast", "garbage"))


def test_digests_are_made_here(pool: Pool) -> None:
    film = pool.prepare(b"film")
    assert film.input_sha256 == hashlib.sha256(b"film").hexdigest()
    assert (film.stored, film.stored_sha256) == (STORED, hashlib.sha256(STORED).hexdigest())
    assert (film.pixels.tobytes(), film.pixels_sha256) == (PIXELS, hashlib.sha256(PIXELS).hexdigest())
    assert film.input_bytes == 4


def test_a_worker_gets_nothing_of_this_process(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_KEY", "secret")
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        with Pool() as fresh:
            names, _, descriptors = str(fresh.refusal(b"has")).partition("; ")
    finally:
        os.close(read)
        os.close(write)
    assert {name for name in names.split() if not name.startswith("MALLOC_")} <= {
        "LC_CTYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    }  # fmt: skip
    # Its pipes, standard error, and the folder it lists.
    assert descriptors.split() == ["0", "1", "2", "3"]


# Start and end.


def test_where_no_worker_starts_the_pool_is_not_ready_and_says_503() -> None:
    with DecoderPool(lanes(), command=[sys.executable, "-I", "-c", "pass"]) as pool:
        error = pool.submit(b"film", Budget()).exception(60)
        assert isinstance(error, NotDecodedError)
        assert error.status == 503
        assert not pool.ready


def test_a_start_that_fails_is_tried_again(tmp_path: Path) -> None:
    switch = tmp_path / "broken"
    switch.touch()
    program = (
        f"import os, sys; os.path.exists({str(switch)!r}) and sys.exit(1); sys.path[:0] = [sys.argv[1]]\n"
        "import fake_worker; fake_worker.main()"
    )
    command = [sys.executable, "-I", "-c", program, str(Path(fake_worker.__file__).parent)]
    with DecoderPool(lanes(), command=command) as pool:
        assert isinstance(pool.submit(b"film", Budget()).exception(60), NotDecodedError)
        switch.unlink()
        until(lambda: pool.ready)
        assert pool.prepare(b"film").width == 1000


def test_closing_ends_workers_and_refuses_what_waits(tmp_path: Path) -> None:
    others = fake_workers()
    with Pool() as pool:
        films = [pool.submit(b"wait " + bytes(tmp_path / "never"), Budget()) for _ in range(3)]
        until(lambda: pool.waiting("fast") == 2)
        workers = fake_workers() - others
        assert workers
    assert all(isinstance(film.exception(60), NotDecodedError) for film in films)
    assert not any(worker.is_running() for worker in workers)
    assert isinstance(pool.submit(b"film", Budget()).exception(60), NotDecodedError)


# Lanes and budgets.


def test_a_large_film_and_one_short_of_memory_go_to_the_slow_lane(pool: Pool) -> None:
    assert pool.prepare(b"large 20000000").width > 0
    assert pool.refusal(b"memory").status == 413
    until(lambda: pool.outcomes == [("fast", "moved"), ("slow", "prepared"), ("fast", "moved"), ("slow", "memory")])


def test_the_films_of_a_call_have_80_megapixels_in_sum(pool: Pool) -> None:
    # Three of 40 megapixels: the third is refused by its header, before it is decoded.
    budget = Budget()
    films = [pool.submit(b"large 40000000", budget) for _ in range(3)]
    error = films[2].exception(60)
    assert isinstance(error, ImageError)
    assert (error.status, "80 megapixels" in str(error)) == (413, True)
    # Small ones are counted as they come.
    budget = Budget()
    small = [pool.submit(b"film 30000", budget) for _ in range(4)]
    assert [film.exception(60) is None for film in small] == [True, True, False, False]
    assert CALL_PIXELS == 80_000_000


def test_the_films_of_a_call_have_so_many_seconds_in_sum(pool: Pool) -> None:
    error = pool.refusal(b"film", Budget(seconds=CALL_SECONDS + 0.1))
    assert (error.status, "too long" in str(error)) == (413, True)
    assert pool.outcomes == []
    budget = Budget()
    pool.submit(b"film", budget).result(60)
    assert budget.seconds > 0


def test_a_film_that_has_waited_too_long_is_429() -> None:
    with Pool(wait_seconds=-1) as pool:
        error = pool.refusal(b"film")
        assert isinstance(error, NotDecodedError)
        assert error.status == 429


def test_films_that_nobody_waits_for_give_their_place_back(pool: Pool, tmp_path: Path) -> None:
    first = pool.submit(b"wait " + bytes(tmp_path / "go"), Budget())
    until(lambda: pool.waiting("fast") == 0)
    given_up = [pool.submit(b"sleep 600", Budget()) for _ in range(5)]
    last = pool.submit(b"film", Budget())
    for film in (first, *given_up):
        assert film.cancel()
    (tmp_path / "go").touch()
    assert last.result(60).width == 1000


# Turns.


def job(caller: str | None) -> Job:
    return Job(b"", Budget(caller), Future())


def test_callers_take_turns_whatever_each_sends() -> None:
    queue = FairQueue()
    many = [job("many") for _ in range(10)]
    for each in many:
        queue.put(each)
    served = [queue.take(), queue.take()]
    few = job("few")
    queue.put(few)
    # The first caller has two films in work: the second's comes before its other eight.
    assert queue.take() is few
    for each in (*served, few):
        assert each is not None
        queue.finish(each, 1.0)
    assert len(queue) == 8


def test_who_has_used_the_most_comes_last() -> None:
    queue = FairQueue()
    for caller, seconds in (("much", 9.0), ("little", 1.0)):
        queue.put(job(caller))
        taken = queue.take()
        assert taken is not None
        queue.put(job(caller))
        queue.finish(taken, seconds)
    order = [queue.take() for _ in range(2)]
    assert [each.budget.caller for each in order if each is not None] == ["little", "much"]


def test_rest_gives_no_credit_and_use_is_forgiven_once_others_have_caught_up() -> None:
    queue = FairQueue()
    for _ in range(100):
        each = job("busy")
        queue.put(each)
        queue.take()
        queue.finish(each, 1.0)
    queue.put(job("busy"))
    queue.put(job("new"))
    first = queue.take()
    assert first is not None
    assert first.budget.caller == "new"
    queue.finish(first, 2.0)
    queue.put(job("new"))
    second = queue.take()
    assert second is not None
    assert second.budget.caller == "busy"


def test_a_caller_without_a_name_counts_by_calls_and_is_forgotten() -> None:
    queue = FairQueue()
    budgets = [Budget(), Budget()]
    jobs = [Job(b"", budget, Future()) for budget in budgets for _ in range(3)]
    for each in jobs:
        queue.put(each)
    taken = [queue.take() for _ in range(6)]
    assert [each.budget is budgets[index % 2] for index, each in enumerate(taken) if each is not None] == [True] * 6
    for each in jobs:
        queue.finish(each, 1.0)
    assert not queue._used


def test_a_normal_film_waits_for_one_film_of_each_other_caller_at_most(tmp_path: Path) -> None:
    """Six calls of sixteen films each, and a caller with one: it is seventh at the latest."""
    order: list[str] = []
    lock = threading.Lock()

    def note(name: str) -> Callable[[Future[PreparedImage]], None]:
        def done(_: Future[PreparedImage]) -> None:
            with lock:
                order.append(name)

        return done

    with Pool() as pool:
        held = pool.submit(b"wait " + bytes(tmp_path / "go"), Budget())
        until(lambda: pool.waiting("fast") == 0)
        attack = []
        for call in range(6):
            budget = Budget(f"attacker {call}")
            attack += [pool.submit(b"sleep 0.01", budget) for _ in range(16)]
        normal = pool.submit(b"film", Budget())
        for film in attack:
            film.add_done_callback(note("attack"))
        normal.add_done_callback(note("normal"))
        (tmp_path / "go").touch()
        for film in (held, normal, *attack):
            film.result(60)
    assert order.index("normal") <= 6
