"""How long a PACS waits: until an object is durable, and from a study's last object to its report.

`python -m benchmarks.intake` sends by DICOM to the local stack, and takes the reports. Goals: success p95 at most
150 ms for a CR of 7 MB, a report p95 at most 2 s after the quiet time.
"""

from __future__ import annotations

import argparse
import io
import queue
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from rich.progress import track

from benchmarks.bench import console, publish, stack
from pneumoserve.local.demo_pacs import Reports, taking_reports
from pneumoserve.local.process import free_ports
from tests.support.intake import make_object

_QUIET_SECONDS = 5.0
# Of 12 bits in 16: 7 MB.
_LARGE_SIDE = 1875
_SMALL_SIDE = 1000


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument("--objects", type=int, default=60, help="objects of 7 MB, in one association")
    parser.add_argument("--studies", type=int, default=20, help="studies of two objects, one after the other")
    options = parser.parse_args()
    (port,) = free_ports(1)
    with taking_reports() as reports, stack(_write_rules, "--dicom-port", str(port), "--dicom-to", reports.address):
        kept = _send(port, [_cr(number, "1.2.3.0", _LARGE_SIDE) for number in range(options.objects)])
        _wait(reports, "1.2.3.0")
        after = []
        for number in track(range(1, options.studies + 1), "measuring", console=console):
            study = f"1.2.3.{number}"
            _send(port, [_cr(each, study, _SMALL_SIDE) for each in (1, 2)])
            sent = time.monotonic()
            _wait(reports, study)
            after.append(time.monotonic() - sent - _QUIET_SECONDS)
    publish(
        "intake",
        f"python -m benchmarks.intake --objects {options.objects} --studies {options.studies}",
        {
            "object_megabytes": round(len(make_object(side=_LARGE_SIDE)) / 1e6, 1),
            "success_p50_ms": round(1000 * statistics.median(kept), 1),
            "success_p95_ms": round(1000 * _p95(kept), 1),
            "quiet_seconds": _QUIET_SECONDS,
            "report_after_quiet_p50_seconds": round(statistics.median(after), 2),
            "report_after_quiet_p95_seconds": round(_p95(after), 2),
        },
    )
    return 0


def _write_rules(state: Path) -> None:
    (state / "intake.yaml").write_text(f"quietSeconds: {_QUIET_SECONDS}\n")


def _cr(number: int, study: str, side: int) -> Dataset:
    return pydicom.dcmread(io.BytesIO(make_object(number, study, side)))


def _send(port: int, objects: list[Dataset]) -> list[float]:
    """Seconds from each request to its success, as the sender has them."""
    entity = AE("BENCHMARK")
    entity.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="PNEUMOSERVE")
    taken = []
    for each in objects:
        began = time.perf_counter()
        status: Any = association.send_c_store(each)
        taken.append(time.perf_counter() - began)
        if status.get("Status") != 0:
            raise SystemExit(f"an object was refused: {status}")
    association.release()
    return taken


def _wait(reports: Reports, study: str) -> None:
    while True:
        try:
            if reports.get(timeout=120).StudyInstanceUID == study:
                return
        except queue.Empty:
            raise SystemExit("no report came; read logs/intake.log of the stack") from None


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


if __name__ == "__main__":
    sys.exit(main())
