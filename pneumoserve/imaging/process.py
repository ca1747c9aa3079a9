"""One worker process, as the pool sees it: believed in types and sizes only."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import orjson

import pneumoserve
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging.exchange import ANSWER, REQUEST
from pneumoserve.imaging.metadata import (
    MAX_BYTES,
    MAX_PIXELS,
    SIZE,
    DisplayImage,
    Facts,
    Format,
    ImageError,
    PreparedImage,
)

_MIB: Final = 1024 * 1024
_MAX_HEADER: Final = 4096
# A reduced DICOM object may be a little longer than the one that came.
_MAX_STORED: Final = MAX_BYTES + _MIB
_MAX_DISPLAYED: Final = 2 * MAX_PIXELS
_PIXEL_BYTES: Final = SIZE * SIZE
_REFUSALS: Final = {400, 413, 415}
_MESSAGE: Final = re.compile(r"[\x20-\x7e]{1,400}")
_WORD: Final = re.compile(r"[A-Z]{1,16}")

# Nothing of this process's own, such as credentials. One arena and fixed thresholds: what a film took goes back to
# the system after it.
_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(8 * _MIB),
    "MALLOC_TRIM_THRESHOLD_": str(32 * _MIB),
}
_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from pneumoserve.imaging.worker import main; main(int(sys.argv[1]))"
)

End = Literal["died", "killed", "timeout", "stalled", "garbage"]


class EndError(PneumoserveError):
    """A worker that is of no use any more: it died, was killed by somebody else, took too long, or sent garbage.

    "timeout" is too much processor time; "stalled" is too much time in all, as where a machine stands still.
    """

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.end = end


class Large(NamedTuple):
    """A film that was not decoded, because its header promises so many pixels."""

    pixels: int


class OutOfMemory(NamedTuple):
    """A film that needs more memory than its worker may have."""


Answer = PreparedImage | DisplayImage | ImageError | Large | OutOfMemory


def worker_command(memory: int) -> list[str]:
    """How a worker is started that may grow by `memory` bytes: isolated from environment and user site."""
    paths = [str(Path(pneumoserve.__file__).parents[1]), *filter(None, sys.path)]
    return [sys.executable, "-I", "-B", "-c", _PROGRAM, str(memory), *paths]


class Deadline:
    """`seconds` of a worker's processor time, and `wall_seconds` in all: a busy machine takes no film its chance."""

    def __init__(self, worker: WorkerProcess, seconds: float, wall_seconds: float) -> None:
        self._worker = worker
        self._seconds = worker.cpu_seconds() + seconds
        self._wall = time.monotonic() + wall_seconds

    def seconds_left(self) -> float:
        """Seconds for which it surely is not over.

        Raises:
            EndError: it is.
        """
        left = self._seconds - self._worker.cpu_seconds()
        if left <= 0:
            raise EndError("timeout")
        wall = self._wall - time.monotonic()
        if wall <= 0:
            raise EndError("stalled")
        return max(min(left, wall), 0.01)


class WorkerProcess:
    """A process that decodes. It is started by exec, so that nothing of this process's memory is in it."""

    def __init__(self, command: Sequence[str]) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=requests,
                stdout=answers,
                # A codec's words may hold a film's.
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd="/",
            )
        except OSError:
            self._close_pipes()
            raise
        finally:
            os.close(requests)
            os.close(answers)
        for pipe in (self._requests, self._answers):
            os.set_blocking(pipe, False)
            with contextlib.suppress(OSError):  # a user has only so much of it
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _MIB)
        # clock_getcpuclockid(3), which Python has for threads only.
        self._clock = (~self._process.pid << 3) | 2
        self.pid = self._process.pid
        self.filtered = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Processor time of the worker.

        Raises:
            EndError: it has ended.
        """
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            raise self._end_error() from None

    def wait_until_ready(self, memory: int, seconds: float) -> None:
        """Wait until it has warmed up and confined itself, and hold it to `memory` bytes more than it has then.

        Raises:
            EndError: it does not come up.
        """
        deadline = Deadline(self, seconds, seconds)
        header = self._read_header(deadline)[0]
        base = header.get("base")
        if type(base) is not int or not 0 < base < 2**62:
            raise EndError("garbage")
        resource.prlimit(self.pid, resource.RLIMIT_AS, (base + memory, base + memory))
        self.filtered = header.get("filtered") is True

    def send(self, data: bytes, refuse_large: bool, shown: bool, deadline: Deadline) -> None:
        """Send it a film; one that is `shown` is for people to look at, and is received by `receive_shown`.

        Raises:
            EndError: the worker is of no use any more.
        """
        views = [memoryview(REQUEST.pack(len(data), refuse_large, shown)), memoryview(data)]
        while views:
            deadline.seconds_left()
            try:
                sent = os.writev(self._requests, views)
            except BlockingIOError:
                self._wait(self._requests, select.POLLOUT, deadline)
                continue
            except BrokenPipeError:
                raise self._end_error() from None
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if views:
                views[0] = views[0][sent:]

    def receive(self, data: bytes, digest: str, deadline: Deadline) -> Answer:
        """What it makes of the film that was sent; `digest` is the film's SHA-256.

        Raises:
            EndError: the worker is of no use any more.
        """
        header, stored_length = self._read_header(deadline, _MAX_STORED)
        film = _film_header(header)
        if film is None:
            if stored_length:
                raise EndError("garbage")
            return _other_answer(header)
        pixels = self._read(_PIXEL_BYTES, deadline)
        stored = self._read(stored_length, deadline)
        kind, width, height, facts = film
        return PreparedImage(
            pixels=np.frombuffer(pixels, np.uint8).reshape(SIZE, SIZE),
            format=kind,
            width=width,
            height=height,
            input_bytes=len(data),
            input_sha256=digest,
            pixels_sha256=hashlib.sha256(pixels).hexdigest(),
            stored=stored,
            stored_sha256=hashlib.sha256(stored).hexdigest(),
            facts=facts,
        )

    def receive_shown(self, deadline: Deadline) -> Answer:
        """The pixels of the film that was sent to be looked at.

        Raises:
            EndError: the worker is of no use any more.
        """
        header, length = self._read_header(deadline, _MAX_DISPLAYED)
        if "bits" in header:
            bits, width, height, low, high = _display_header(header, length)
            return DisplayImage(self._read(length, deadline), bits, width, height, low, high)
        if length:
            raise EndError("garbage")
        return _other_answer(header)

    def interrupt(self) -> None:
        """Kill it under whoever waits for it, in any thread."""
        self._process.kill()

    def kill(self) -> None:
        """End it, and let go of what it held here."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        os.close(self._requests)
        os.close(self._answers)

    def _read_header(self, deadline: Deadline, longest: int = 0) -> tuple[dict[str, Any], int]:
        """Its header, and how many bytes come last: at most `longest`."""
        length, last_length = ANSWER.unpack(self._read(ANSWER.size, deadline))
        if length > _MAX_HEADER or last_length > longest:
            raise EndError("garbage")
        try:
            header = orjson.loads(self._read(length, deadline))
        except orjson.JSONDecodeError:
            raise EndError("garbage") from None
        if not isinstance(header, dict):
            raise EndError("garbage")
        return header, last_length

    def _read(self, length: int, deadline: Deadline) -> bytes:
        """Exactly `length` bytes of its answer."""
        parts: list[bytes] = []
        while length:
            try:
                part = os.read(self._answers, length)
            except BlockingIOError:
                self._wait(self._answers, select.POLLIN, deadline)
                continue
            if not part:
                raise self._end_error()
            parts.append(part)
            length -= len(part)
            if length:
                deadline.seconds_left()
        return b"".join(parts)

    def _wait(self, pipe: int, event: int, deadline: Deadline) -> None:
        poller = select.poll()
        poller.register(pipe, event)
        while not poller.poll(deadline.seconds_left() * 1000):
            pass

    def _end_error(self) -> EndError:
        """Its end, of its own or at somebody else's hands; a worker that closes its pipes and lives is none either."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return EndError("killed" if self._process.returncode == -signal.SIGKILL else "died")


def _film_header(header: dict[str, Any]) -> tuple[Format, int, int, Facts] | None:
    """Format, width, height and facts of a prepared film, None where the answer is another.

    Raises:
        EndError: it says that it is one, and is not.
    """
    if "format" not in header:
        return None
    kind: Format = header["format"]
    width, height, facts = header.get("width"), header.get("height"), header.get("facts")
    if kind not in get_args(Format) or not isinstance(width, int) or not isinstance(height, int):
        raise EndError("garbage")
    if min(width, height) < 1 or width * height > MAX_PIXELS or not isinstance(facts, dict):
        raise EndError("garbage")
    if set(facts) != {each.name for each in fields(Facts)} or not all(map(_is_fact, facts.values())):
        raise EndError("garbage")
    return kind, width, height, Facts(**facts)


def _display_header(header: dict[str, Any], length: int) -> tuple[int, int, int, float, float]:
    """Bits, width, height and window of a film to be looked at, whose pixels have `length` bytes.

    Raises:
        EndError: they do not fit each other.
    """
    match [header.get(name) for name in ("bits", "width", "height", "low", "high")]:
        case [8 | 16 as bits, int(width), int(height), float(low), float(high)]:
            fits = min(width, height) >= 1 and width * height * bits // 8 == length
            if fits and math.isfinite(low) and math.isfinite(high) and low <= high:
                return bits, width, height, low, high
    raise EndError("garbage")


def _is_fact(value: Any) -> bool:
    """Whether it may be a fact: nothing, a number, or a word of a closed list; what a name may hide in is none."""
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 200)


def _other_answer(header: dict[str, Any]) -> ImageError | Large | OutOfMemory:
    """What a worker says that has prepared no film.

    Raises:
        EndError: nothing that it may say.
    """
    match header:
        case {"large": int(pixels)} if 0 < pixels <= MAX_PIXELS:
            return Large(pixels)
        case {"memory": True}:
            return OutOfMemory()
        case {"status": int(status), "message": str(text)} if status in _REFUSALS and _MESSAGE.fullmatch(text):
            return ImageError(status, text)
    raise EndError("garbage")
