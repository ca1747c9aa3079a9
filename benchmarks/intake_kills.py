"""DICOM intake killed at random moments of its work: how many X-rays and reports are lost, or doubled (the goal is 0).

`python -m benchmarks.intake_kills` starts a stack and, again and again, an intake beside it that it kills with SIGKILL.
Meanwhile a PACS sends studies of two X-rays, one by C-STORE and one by STOW-RS, each until it is told that it is kept.
The reports go by C-STORE to one PACS and by STOW-RS to another. At the end each X-ray must have one record, and each
PACS each report, always with the same bytes.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from rich.progress import track

from benchmarks.bench import console, publish, read_records, stack
from pneumoserve.intake.spool import Spool
from pneumoserve.local.process import free_ports
from pneumoserve.names import INTAKE_BUCKET
from pneumoserve.records import Pseudonyms
from pneumoserve.store import S3Store
from tests.support.dicom_peers import take_reports
from tests.support.intake import child_xray
from tests.support.killing_intake import OBJECTS, Intake, find_results, kill_while_sending
from tests.support.told import take_web_reports


def main() -> int:
    """Measure and write the result; 1 where something is lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often to kill intake")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)  # noqa: S311 - moments, no secrets
    with (
        tempfile.TemporaryDirectory(prefix="pneumoserve-benchmark-") as folder,
        take_reports() as (address, by_dicom),
        take_web_reports() as (url, by_web),
        stack() as running,
        closing(S3Store(running.store.in_bucket(INTAKE_BUCKET))) as store,
    ):
        key = running.state.reference_key
        spool = Spool(store, Pseudonyms.read(key))
        store.set_up(lockable=False)
        intake = Intake(store.settings, key, Path(folder), running.announced["url"], (address, url), *free_ports(2))
        kills = track(range(options.kills), "killing", console=console)
        studies = kill_while_sending(intake, spool, child_xray, moments, kills)
        records = Counter(each.image.input_sha256 for each in read_records(running) if each.image is not None)
        results = find_results(spool, store)
    sent = OBJECTS * len(studies)
    faults = {
        "without_record": sent - len(records),
        "with_two_records": sum(each > 1 for each in records.values()),
        **_compare("c_store", results, by_dicom),
        **_compare("stow", results, by_web),
    }
    publish(
        "intake_kills",
        f"python -m benchmarks.intake_kills --kills {options.kills} --seed {options.seed}",
        {"kills": options.kills, "xrays": sent, "reports": len(results), **faults},
    )
    return 1 if any(faults.values()) else 0


def _compare(name: str, results: set[str], taken: Mapping[str, set[bytes]]) -> dict[str, int]:
    """What is wrong with the reports that a PACS took."""
    return {
        f"{name}_reports_lost": len(results - taken.keys()),
        f"{name}_reports_doubled": len(taken.keys() - results) + sum(len(each) > 1 for each in taken.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
