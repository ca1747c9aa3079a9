"""`make demo`: the main job from nothing. Serve a release, send real X-rays, show the answers and one record.

Every step is a command a user could type; the demo prints it, and how long it took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import tritonclient.http as triton
from rich.console import Console
from rich.table import Table

from pneumoserve.archive.store import BUCKET

SAMPLE: Final = Path(__file__).resolve().parents[2] / "tests" / "data" / "xray-sample"
TRUTH: Final = {"normal": "normal", "bacteria": "pneumonia, bacterial", "virus": "pneumonia, viral"}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 190)


def main() -> int:
    """Run the demo; 1 where a step fails."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--train", action="store_true", help="ingest the sample and train a small release from it")
    options = parser.parse_args()
    if not SAMPLE.is_dir():
        console.print("The sample films (tests/data/xray-sample) are missing; run this in a checkout.")
        return 1
    with tempfile.TemporaryDirectory(prefix="pneumoserve-demo-") as folder:
        state = Path(folder) / "state"
        release = trained(state, Path(folder)) if options.train else None
        with serving(state, release) as stack:
            if release is not None:
                console.print(
                    "This release was trained on the very films below: the answers show how it works, not how well."
                )
            show_answers(stack, state)
    console.print("The stack is stopped; nothing is left running.")
    return 0


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done, and after it how long it took."""
    console.print(f"\n[bold]{title}[/bold]")
    started = time.perf_counter()
    yield
    console.print(f"[dim]took {time.perf_counter() - started:.1f} s[/dim]")


def command(*words: str | Path) -> list[str]:
    """A `pneumoserve` command, shown as it would be typed."""
    console.print(f"$ pneumoserve {shlex.join(str(word) for word in words)}")
    return [str(Path(sys.executable).parent / "pneumoserve"), *map(str, words)]


def trained(state: Path, work: Path) -> Path:
    """A small release, trained on the sample; too small to be any good, and quick."""
    with step("Ingest the sample into the object store"):
        ingest = ("ingest", SAMPLE, "--to", f"s3://{BUCKET}/datasets", "--state", state, "--json")
        done = subprocess.run(command(*ingest), check=True, stdout=subprocess.PIPE)
        dataset = json.loads(done.stdout)
        console.print(f"{dataset['films']} films, {dataset['added']} new; the dataset is {dataset['manifest']}")
    with step("Train both models on it, briefly: 30 steps, where the reference release had 1000"):
        words = ("train", "--dataset", dataset["manifest"], "--out", work / "run", "--steps", "30", "--exclude", "none",
                 "--source", "the sample in tests/data", "--state", state)  # fmt: skip
        subprocess.run(command(*words), check=True)
    with step("Package the run into a signed release"):
        done = subprocess.run(
            command("package", work / "run", "--out", work / "releases", "--state", state, "--json"),
            check=True,
            stdout=subprocess.PIPE,
        )
    return Path(json.loads(done.stdout)["folder"])


@contextlib.contextmanager
def serving(state: Path, release: Path | None) -> Iterator[dict[str, Any]]:
    """The local stack: S3, TorchServe and the front."""
    words: list[str | Path] = ["serve", "--state", state]
    if release is not None:
        words += ["--release", release]
    with step("Start the stack: an S3 server, TorchServe with both models, the front"):
        process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=None, env=os.environ)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        line = process.stdout.readline()
        if not line:
            raise SystemExit(process.wait() or 1)
        stack: dict[str, Any] = json.loads(line)
        console.print(f"ready: {stack['url']} (REST), {stack['grpc']} (gRPC), release {stack['release']}")
    try:
        yield stack
    finally:
        with step("Stop the stack"):
            process.terminate()
            process.wait()


def chosen_films() -> list[tuple[Path, str]]:
    """The films the demo sends, all of the sample's, with what their label says."""
    films = [(path, truth) for folder, truth in TRUTH.items() for path in sorted((SAMPLE / folder).iterdir())]
    originals = [(path, TRUTH[path.parent.name]) for path in sorted((SAMPLE / "originals").rglob("*.jpeg"))]
    dicoms = [(SAMPLE / "dicom" / "RG1_J2KI.dcm", "an adult's chest"), (SAMPLE / "dicom" / "RG3_J2KI.dcm", "a leg")]
    return films + originals + dicoms


def shown_name(path: Path) -> str:
    """The film's name; an original has that of its small copy."""
    return f"{path.name}, original" if "originals" in path.parts else path.name


def show_answers(stack: dict[str, Any], state: Path) -> None:
    """Send the films one by one over V2, print a table, then one record in full."""
    table = Table("file", "truth", "answer", "confidence", "referred", "ms", title="Answers over V2")
    table.add_column("record", no_wrap=True)
    answers: list[dict[str, Any]] = []
    with step("Send real X-rays over the Open Inference Protocol (V2)"):
        with triton.InferenceServerClient(stack["url"].removeprefix("http://")) as client:
            for path, truth in chosen_films():
                answer, milliseconds = ask(client, path.read_bytes())
                answers.append(answer)
                table.add_row(
                    shown_name(path),
                    truth,
                    in_words(answer),
                    "-" if np.isnan(answer["confidence"]) else f"{answer['confidence']:.3f}",
                    ", ".join(json.loads(answer["reasons"])) or "no",
                    f"{milliseconds:.0f}",
                    answer["prediction_id"],
                )
        console.print(table)
    with step("Read one answer's record back from the store"):
        identifier = answers[-3]["prediction_id"]
        subprocess.run(command("archive", "show", identifier, "--state", state), check=True)


def ask(client: triton.InferenceServerClient, data: bytes) -> tuple[dict[str, Any], float]:
    """One film's answer, and the milliseconds it took."""
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], dtype=np.object_))
    started = time.perf_counter()
    result = client.infer("pneumonia", [tensor])
    milliseconds = (time.perf_counter() - started) * 1000
    values = {output["name"]: result.as_numpy(output["name"])[0] for output in result.get_response()["outputs"]}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}, milliseconds


def in_words(answer: dict[str, Any]) -> str:
    """The answer as a person would say it."""
    if not answer["finding"]:
        return "a human must look"
    kind = answer["pneumonia_type"]
    if answer["finding"] == "pneumonia":
        return f"pneumonia, {kind}" if kind else "pneumonia, type unsure"
    return str(answer["finding"])


if __name__ == "__main__":
    sys.exit(main())
