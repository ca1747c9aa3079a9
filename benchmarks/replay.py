"""Replay of predictions: how many are not repeated (the goal is 0), and how long it takes.

A stack answers distinct films made from the sample, every tenth with a raw score. Then `pneumoserve archive replay`
puts all of them through its release again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import numpy as np
from PIL import Image
from rich.progress import track

from benchmarks.bench import Stack, console, publish, stack
from tests.support import films

_CALLERS: Final = 4
_MODELS: Final = ("pneumonia",) * 9 + ("pneumonia-typer",)


def main() -> int:
    """Measure and write the result; 1 where a prediction is not repeated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--films", type=int, default=1000, help="films to send")
    options = parser.parse_args()
    with stack() as running:
        send(running, options.films)
        report = replayed(running)
    publish(
        "replay",
        f"python -m benchmarks.replay --films {options.films}",
        {
            # Of the whole machine: above its cores, the seconds say little.
            "load_average": round(os.getloadavg()[0], 1),
            "films_answered": options.films,
            "predictions_replayed": report["predictions"],
            "equal_bit_for_bit": report["repeated"]["bit_for_bit"],
            "equal_by_tolerance": report["repeated"]["by_tolerance"],
            "mismatches": len(report["repeated"]["mismatches"]),
            "bad_evidence": len(report["bad_evidence"]),
            "seconds": round(report["seconds"], 1),
            "predictions_per_second": round(report["predictions"] / report["seconds"], 1),
        },
    )
    return 0 if report["ok"] and report["predictions"] == options.films else 1


def send(running: Stack, number: int) -> None:
    """Have the stack answer so many films."""
    with (
        httpx.Client(base_url=running.announced["url"], timeout=60) as client,
        ThreadPoolExecutor(_CALLERS) as callers,
    ):
        answers = callers.map(lambda index: answered(client, index), range(number))
        for _ in track(answers, "sending", total=number, console=console):
            pass


def answered(client: httpx.Client, index: int) -> None:
    """Send a film and see that it gets its answer."""
    model = _MODELS[index % len(_MODELS)]
    client.post(f"/v1/models/{model}:predict", content=film(index)).raise_for_status()


def film(index: int) -> bytes:
    """One of the sample's films; after the first round, another exposure of it: no two JPEGs are alike."""
    files = sorted(path for path in films.SAMPLE.rglob("*") if path.suffix in (".jpeg", ".dcm"))
    path, turn = files[index % len(files)], index // len(files)
    if turn == 0 or path.suffix == ".dcm":
        return path.read_bytes()
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float64) / 255
    return films.encoded(Image.fromarray(np.uint8(255 * pixels ** (1 + 0.02 * turn))), "JPEG", quality=90)


def replayed(running: Stack) -> dict[str, Any]:
    """What `archive replay` says of all of them."""
    command = (sys.executable, "-c", "from pneumoserve.cli import main; main()", "archive", "replay", "--json")
    done = subprocess.run([*command, "--state", running.state.folder], stdout=subprocess.PIPE, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    sys.exit(main())
