"""What traces cost: fronts that trace no call, a tenth of them and all, on the same models and store.

`python -m benchmarks.traces` runs the fronts in turns, so that all see the same machine. Goal: at most 1 % of
throughput. On a shared machine throughput moves by far more than that from turn to turn, as its interval shows (95 %,
by bootstrap over turns). So the spans of a call are also made by themselves, in this process, and their processor time
is set against what a call takes of all processes: where processors are what limits throughput, that share is lost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import numpy as np
import psutil
from rich.progress import track

from benchmarks.bench import Front, Stack, console, front, keep_busy, publish, stack
from pneumoserve.tracing import call_span, span, start_tracing, stop_tracing

_RATIOS: Final = {"off": None, "tenth": 0.1, "all": 1.0}
_RESAMPLED: Final = 2000
# Made by themselves: calls a turn, and turns.
_CALLS: Final = 500
_TURNS: Final = 15


class _Collector(BaseHTTPRequestHandler):
    """Takes everything and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read a request, and answer it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def _collector() -> Iterator[str]:
    """A collector in a process of its own, whose time is nobody's here."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    serving = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        serving.terminate()
        serving.join()
        server.server_close()


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each front")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a turn")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in _RATIOS}
    spent: dict[str, list[float]] = {name: [] for name in _RATIOS}
    whole: list[float] = []
    with _collector() as endpoint:
        alone = {name: _spans_alone(endpoint, ratio) for name, ratio in _RATIOS.items()}
        with stack() as running:
            fronts = {name: _start(running, endpoint, ratio) for name, ratio in _RATIOS.items()}
            for _ in track(range(options.rounds), "measuring", console=console):
                for name in random.sample(sorted(fronts), len(fronts)):
                    own = _process(fronts[name])
                    before, before_all = _seconds(own), _seconds_of_all(running, own)
                    rates[name].append(keep_busy(fronts[name], options.seconds))
                    calls = rates[name][-1] * options.seconds
                    spent[name].append(1000 * (_seconds(own) - before) / calls)
                    whole.append(1000 * (_seconds_of_all(running, own) - before_all) / calls)
            for each in fronts.values():
                each.child.stop()
    call = statistics.median(whole)
    figures: dict[str, object] = {"cpu_ms_of_a_call_in_all_processes": round(call, 1)}
    for name in _RATIOS:
        figures[name] = {
            "calls_per_second": round(statistics.median(rates[name]), 1),
            "front_cpu_ms_per_call": round(statistics.median(spent[name]), 2),
            "spans_cpu_ms_per_call": round(alone[name], 4),
            "spans_percent_of_a_call": round(100 * alone[name] / call, 2),
            **({} if name == "off" else _compare(rates["off"], rates[name])),
        }
    publish("traces", f"python -m benchmarks.traces --rounds {options.rounds} --seconds {options.seconds:g}", figures)
    return 0


def _variables(endpoint: str, ratio: float | None) -> dict[str, str]:
    if ratio is None:
        return {}
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(ratio)}
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **sampler}


def _spans_alone(endpoint: str, ratio: float | None) -> float:
    """Milliseconds of this process's processor time for the spans of a call, until they are sent; the median turn."""
    variables = _variables(endpoint, ratio)
    os.environ.update(variables)
    turns = []
    for _ in range(_TURNS):
        start_tracing("benchmark", release="0" * 12)
        before = time.process_time()
        for _ in range(_CALLS):
            _make_spans()
        stop_tracing()
        turns.append(1000 * (time.process_time() - before) / _CALLS)
    for name in variables:
        del os.environ[name]
    return statistics.median(turns)


def _make_spans() -> None:
    """What a pneumonia's call makes, with headers as a gateway sends them."""
    headers = [(f"header-{number}", "value") for number in range(10)]
    with call_span(headers, protocol="v1", encoding="json") as call:
        with span("decode", images=1):
            pass
        for model in ("detector", "typer"):
            with span(model, model=f"pneumonia-{model}"):
                pass
        with span("decision") as decision:
            decision.set(finding="pneumonia", reasons=[])
        with span("upload", bytes=100_000):
            pass
        with span("commit", records=1):
            pass
        call.set(model="pneumonia", status=200, prediction_ids=["0" * 36], reasons=[])


def _start(running: Stack, endpoint: str, ratio: float | None) -> Front:
    own = front(running)
    own.child.environment |= _variables(endpoint, ratio)
    own.start()
    keep_busy(own, 3.0)
    return own


def _process(own: Front) -> psutil.Process:
    if own.child.process is None:
        raise AssertionError("a front is started before it is measured")
    return psutil.Process(own.child.process.pid)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _seconds_of_all(running: Stack, own: psutil.Process) -> float:
    """Of the front, its decode workers, and all processes of the stack: store and models are among them."""
    others = psutil.Process(running.process.pid).children(recursive=True)
    return sum(_seconds(each) for each in (own, *own.children(recursive=True), *others))


def _compare(rates_off: Sequence[float], rates: Sequence[float]) -> dict[str, object]:
    lost = [100 * (1 - on / off) for off, on in zip(rates_off, rates, strict=True)]
    resampled = np.random.default_rng(0).choice(lost, (_RESAMPLED, len(lost)))
    limits = np.quantile(np.median(resampled, axis=1), (0.025, 0.975))
    return {
        "throughput_lost_percent": round(statistics.median(lost), 1),
        "throughput_lost_percent_95": [round(float(limit), 1) for limit in limits],
    }


if __name__ == "__main__":
    sys.exit(main())
