"""How fast X-rays come in by DICOM, beside REST, and how soon a study's report is in the PACS.

`python -m benchmarks.intake` runs the local stack and Orthanc, which gets the reports. DCMTK's storescu sends, and its
clock counts. Measured are:

- how long a CR of 7 MB takes from its request to its success (goal: p95 at most 150 ms);
- how long after a study's last object, and the quiet time, its report is in Orthanc (goal: p95 at most 2 s);
- how many X-rays a second are taken over four associations, and how many four callers of REST have answered (goal: at
  least .95 of REST's), in turns, so that both see the same machine. Each X-ray is new, and a study of its own. They are
  reported when Orthanc has all reports; the quiet time is left out;
- the memory of intake over all of that (goal: it stays flat).

On a shared machine rates move from turn to turn, so the processor time of the stack's processes stands beside them. For
DICOM it also holds what comes after the answer: the report, and erasing what is done with.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import psutil
import pydicom
from rich.progress import track

from benchmarks.bench import Stack, console, publish, stack
from pneumoserve.local.process import free_ports
from pneumoserve.names import INTAKE_BUCKET
from pneumoserve.store import S3Store
from tests.conftest import wait_for
from tests.support.dicom_peers import Pacs, dcmtk, run_orthanc
from tests.support.intake import child_xray, make_object

_QUIET_SECONDS: Final = 2.0
# Of 12 bits in 16: 7 MB.
_LARGE_SIDE: Final = 1875
_AT_ONCE: Final = 4
_UNMEASURED: Final = 20
_LONGEST_SECONDS: Final = 600.0
# Of storescu's lines: seconds since 1970, and what it says.
_LOG: Final = """\
log4cplus.rootLogger = INFO, console
log4cplus.appender.console = log4cplus::ConsoleAppender
log4cplus.appender.console.layout = log4cplus::PatternLayout
log4cplus.appender.console.layout.ConversionPattern = %D{%s.%q} %m%n
"""
_REQUEST: Final = re.compile(r"^([0-9.]+) Sending Store Request", re.MULTILINE)
_SUCCESS: Final = re.compile(r"^([0-9.]+) Received Store Response \(Success\)", re.MULTILINE)


@dataclass(frozen=True)
class _Sent:
    """When an object's request began, and when its success came, in seconds since 1970."""

    began: float
    ended: float


@dataclass
class _Turn:
    """X-rays a second, and milliseconds of processor time of all processes for each."""

    taken: float
    reported: float
    cpu_ms: float


@dataclass
class _Exchange:
    """The stack, its PACS, and a folder for the objects of a turn."""

    stack: Stack
    pacs: Pacs
    folder: Path
    store: S3Store
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def port(self) -> int:
        return int(self.stack.announced["dicom"]["port"])

    @property
    def intake(self) -> psutil.Process:
        children = psutil.Process(self.stack.process.pid).children()
        return next(each for each in children if "pneumoserve.intake" in each.cmdline())

    def cpu_seconds(self) -> float:
        """Processor time that all processes of the stack have taken."""
        return sum(map(_cpu_seconds, psutil.Process(self.stack.process.pid).children(recursive=True)))

    def make(self, studies: int, form: Callable[[int, str], bytes], objects: int = 1) -> list[list[Path]]:
        """Studies that were never there before, as files of each one's objects."""
        return [self._make_study(next(self._numbers), form, objects) for _ in range(studies)]

    def _make_study(self, number: int, form: Callable[[int, str], bytes], objects: int) -> list[Path]:
        made = []
        for each in range(1, objects + 1):
            path = self.folder / f"{number}-{each}.dcm"
            # Other pixels, and so another image to the archive.
            path.write_bytes(form(each, f"1.2.3.{number}")[:-8] + (number * 100 + each).to_bytes(8, "little"))
            made.append(path)
        return made

    def send(self, files: list[Path]) -> list[_Sent]:
        """Send objects in one association.

        Raises:
            SystemExit: one is refused.
        """
        log = self.folder / "storescu.cfg"
        log.write_text(_LOG)
        command = [dcmtk("storescu"), "-R", "-lc", log, "-aec", "PNEUMOSERVE", "127.0.0.1", str(self.port), *files]
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
        began, ended = ([float(each) for each in form.findall(said)] for form in (_REQUEST, _SUCCESS))
        if len(ended) < len(files):
            raise SystemExit(f"{len(files) - len(ended)} objects were refused; read logs/intake.log of the stack")
        return [_Sent(*each) for each in zip(began, ended, strict=True)]

    def count_reports(self) -> int:
        """How many reports the PACS has; it has nothing else."""
        return int(self.pacs.http.get("/statistics").json()["CountInstances"])

    def wait_until_done(self) -> None:
        """Wait until nothing is left in the spool."""
        wait_for(lambda: not any(self.store.list("objects/")), _LONGEST_SECONDS)


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument("--objects", type=int, default=60, help="objects of 7 MB, in one association")
    parser.add_argument("--studies", type=int, default=20, help="studies of two objects, one after the other")
    parser.add_argument("--images", type=int, default=1000, help="X-rays by DICOM, and as many by REST")
    parser.add_argument("--turns", type=int, default=4, help="turns of each")
    options = parser.parse_args()
    with _exchange() as exchange:
        figures: dict[str, Any] = {
            **_measure_success(exchange, options.objects),
            **_measure_reports(exchange, options.studies),
            **_measure_rates(exchange, options.images, options.turns),
            "intake_mebibytes_at_most": _mebibytes(exchange.intake, "VmHWM"),
            "load_average": round(os.getloadavg()[0], 1),
        }
    publish("intake", f"python -m benchmarks.intake {_repeat(options)}", figures)
    return 0


def _repeat(options: argparse.Namespace) -> str:
    return " ".join(f"--{name} {value}" for name, value in vars(options).items())


@contextlib.contextmanager
def _exchange() -> Iterator[_Exchange]:
    with tempfile.TemporaryDirectory(prefix="pneumoserve-benchmark-") as name, contextlib.ExitStack() as opened:
        folder, (port,) = Path(name), free_ports(1)
        pacs = opened.enter_context(run_orthanc(folder / "orthanc", port))
        running = opened.enter_context(stack(_write_rules, f"--dicom-port={port}", f"--dicom-to={pacs.address}"))
        store = opened.enter_context(contextlib.closing(S3Store(running.store.in_bucket(INTAKE_BUCKET))))
        yield _Exchange(running, pacs, folder, store)


def _write_rules(state: Path) -> None:
    (state / "intake.yaml").write_text(f"quietSeconds: {_QUIET_SECONDS}\n")


def _measure_success(exchange: _Exchange, objects: int) -> dict[str, Any]:
    """How long a large object takes; what the service makes of it comes after, and is waited for."""
    ((file, *more),) = exchange.make(1, _make_large(), objects)
    before = _cpu_seconds(exchange.intake)
    sent = [1000 * (each.ended - each.began) for each in exchange.send([file, *more])]
    spent = _cpu_seconds(exchange.intake) - before
    exchange.wait_until_done()
    return {
        "object_megabytes": round(file.stat().st_size / 1e6, 1),
        "success_p50_ms": round(statistics.median(sent), 1),
        "success_p95_ms": round(_p95(sent), 1),
        "success_intake_cpu_ms": round(1000 * spent / objects, 1),
    }


def _make_large() -> Callable[[int, str], bytes]:
    """What makes large objects, all of them with the same pixels: to compute those takes a second."""
    form = pydicom.dcmread(io.BytesIO(make_object(side=_LARGE_SIDE)))

    def make(number: int, study: str) -> bytes:
        form.StudyInstanceUID = form.SeriesInstanceUID = study
        form.SOPInstanceUID = form.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number}"
        out = io.BytesIO()
        pydicom.dcmwrite(out, form)
        return out.getvalue()

    return make


def _measure_reports(exchange: _Exchange, studies: int) -> dict[str, Any]:
    """How long after the last object of a study its report is in the PACS."""
    after = []
    for files in track(exchange.make(studies, child_xray, 2), "studies", console=console):
        reports = exchange.count_reports()
        last = exchange.send(files)[-1].ended
        wait_for(lambda before=reports: exchange.count_reports() > before, _LONGEST_SECONDS)
        after.append(time.time() - last - _QUIET_SECONDS)
    exchange.wait_until_done()
    return {
        "quiet_seconds": _QUIET_SECONDS,
        "report_after_quiet_p50_seconds": round(statistics.median(after), 2),
        "report_after_quiet_p95_seconds": round(_p95(after), 2),
    }


def _measure_rates(exchange: _Exchange, images: int, turns: int) -> dict[str, Any]:
    """What DICOM and REST take, each in its turn."""
    ways = {"dicom": _send_by_dicom, "rest": _send_by_rest}
    for send in ways.values():
        send(exchange, _UNMEASURED)
    found: dict[str, list[_Turn]] = {name: [] for name in ways}
    mebibytes = [_mebibytes(exchange.intake, "VmRSS")]
    for turn in track(range(turns), "turns", console=console):
        for name in sorted(ways, reverse=bool(turn % 2)):
            found[name].append(ways[name](exchange, images // turns))
        mebibytes.append(_mebibytes(exchange.intake, "VmRSS"))
    pairs = list(zip(found["dicom"], found["rest"], strict=True))
    return {
        "images": images // turns * turns,
        "associations": _AT_ONCE,
        "dicom_taken_per_second": _median([each.taken for each in found["dicom"]], 1),
        "dicom_reported_per_second": _median([each.reported for each in found["dicom"]], 1),
        "rest_answered_per_second": _median([each.taken for each in found["rest"]], 1),
        "taken_by_rest": _median([dicom.taken / rest.taken for dicom, rest in pairs], 2),
        "reported_by_rest": _median([dicom.reported / rest.taken for dicom, rest in pairs], 2),
        "dicom_cpu_ms": _median([each.cpu_ms for each in found["dicom"]], 1),
        "rest_cpu_ms": _median([each.cpu_ms for each in found["rest"]], 1),
        "intake_mebibytes": mebibytes,
    }


def _send_by_dicom(exchange: _Exchange, images: int) -> _Turn:
    files = _split(exchange.make(images, child_xray))
    reports, cpu, began = exchange.count_reports(), exchange.cpu_seconds(), time.time()
    with ThreadPoolExecutor(_AT_ONCE) as senders:
        ended = max(sent[-1].ended for sent in senders.map(exchange.send, files))
    wait_for(lambda: exchange.count_reports() == reports + images, _LONGEST_SECONDS)
    reported = time.time() - began - _QUIET_SECONDS
    exchange.wait_until_done()
    spent = exchange.cpu_seconds() - cpu
    return _Turn(images / (ended - began), images / reported, 1000 * spent / images)


def _send_by_rest(exchange: _Exchange, images: int) -> _Turn:
    files = _split(exchange.make(images, child_xray))
    cpu, began = exchange.cpu_seconds(), time.time()
    with ThreadPoolExecutor(_AT_ONCE) as callers:
        list(callers.map(lambda own: _ask(exchange.stack.announced["url"], own), files))
    rate = images / (time.time() - began)
    return _Turn(rate, rate, 1000 * (exchange.cpu_seconds() - cpu) / images)


def _ask(url: str, files: list[Path]) -> None:
    """Have the service answer images, one after the other."""
    with httpx.Client(base_url=url, timeout=60, headers={"Content-Type": "application/dicom"}) as client:
        for file in files:
            client.post("/v1/models/pneumonia:predict", content=file.read_bytes()).raise_for_status()


def _split(studies: list[list[Path]]) -> list[list[Path]]:
    """The files of each sender."""
    files = [file for study in studies for file in study]
    return [files[first::_AT_ONCE] for first in range(_AT_ONCE)]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _mebibytes(process: psutil.Process, kind: Literal["VmRSS", "VmHWM"]) -> int:
    """The resident memory of a process: now, or the most it ever was."""
    (kibibytes,) = re.findall(rf"{kind}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(kibibytes) // 1024


def _median(values: list[float], digits: int) -> float:
    return round(statistics.median(values), digits)


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


if __name__ == "__main__":
    sys.exit(main())
