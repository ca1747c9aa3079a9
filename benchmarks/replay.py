"""Replay of 1,000 predictions: how many are not repeated (the goal is 0), and how long it takes.

`python -m benchmarks.replay` starts a stack on a state folder of its own, sends it distinct films made from the sample,
stops it, replays all of them by `pneumoserve archive replay`, and writes benchmarks/replay.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import urllib3
from PIL import Image
from rich.console import Console
from rich.progress import track

ROOT: Final = Path(__file__).parents[1]
SAMPLE: Final = ROOT / "tests" / "data" / "xray-sample"
RESULT: Final = Path(__file__).with_suffix(".json")
_CALLERS: Final = 4
_COMMAND: Final = (sys.executable, "-c", "from pneumoserve.cli import main; main()")
# Every tenth call asks for a raw score.
_MODELS: Final = ("pneumonia",) * 9 + ("pneumonia-typer",)

console = Console(stderr=True, highlight=False)


def main() -> int:
    """Measure and write the result; 1 where a prediction is not repeated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--films", type=int, default=1000, help="films to send")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pneumoserve-benchmark-") as folder:
        state = Path(folder) / "state"
        sent = send(state, options.films)
        report = replayed(state)
    result = {
        "command": f"python -m benchmarks.replay --films {options.films}",
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        # What else the machine does: above its cores, the time says little.
        "load_average": round(os.getloadavg()[0], 1),
        "films_sent": sent,
        "predictions": report["predictions"],
        "equal_bit_for_bit": report["repeated"]["bit_for_bit"],
        "equal_by_tolerance": report["repeated"]["by_tolerance"],
        "mismatches": len(report["repeated"]["mismatches"]),
        "bad_evidence": len(report["bad_evidence"]),
        "seconds": round(report["seconds"], 1),
        "predictions_per_second": round(report["predictions"] / report["seconds"], 1),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    console.print_json(data=result)
    return 0 if report["ok"] and report["predictions"] == sent else 1


def send(state: Path, count: int) -> int:
    """Have a stack answer `count` films; how many it answered."""
    with subprocess.Popen([*_COMMAND, "serve", "--state", state], stdout=subprocess.PIPE, text=True) as serving:
        try:
            announced = json.loads(serving.stdout.readline() if serving.stdout else "")
            with ThreadPoolExecutor(_CALLERS) as callers:
                answers = callers.map(lambda number: answered(announced["url"], number), range(count))
                return sum(track(answers, "sending", total=count, console=console))
        finally:
            serving.terminate()


def answered(url: str, number: int) -> bool:
    """Whether a film gets its answer."""
    model = _MODELS[number % len(_MODELS)]
    response = urllib3.request("POST", f"{url}/v1/models/{model}:predict", body=film(number), timeout=60, retries=False)
    return response.status == 200


def film(number: int) -> bytes:
    """One of the sample's films; after the first round, another exposure of it: no two are alike."""
    files = sorted(path for path in SAMPLE.rglob("*") if path.suffix in (".jpeg", ".dcm"))
    path, turn = files[number % len(files)], number // len(files)
    if turn == 0 or path.suffix == ".dcm":
        return path.read_bytes()
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float64) / 255
    exposed = Image.fromarray(np.uint8(255 * pixels ** (1 + 0.02 * turn)))
    out = io.BytesIO()
    exposed.save(out, "JPEG", quality=90)
    return out.getvalue()


def replayed(state: Path) -> dict[str, Any]:
    """What `archive replay` says of all of them."""
    started = time.perf_counter()
    done = subprocess.run(
        [*_COMMAND, "archive", "replay", "--state", state, "--json"], stdout=subprocess.PIPE, check=False
    )
    console.print(f"replayed, {time.perf_counter() - started:.1f} s with starting the store and the models")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    sys.exit(main())
