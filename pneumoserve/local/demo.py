"""`make demo`: the main job from nothing. Serve a release, send real X-rays, show the answers and one record.

Every step is a command a user could type; the demo prints it, and how long it took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tritonclient.http as triton
from rich.console import Console

from pneumoserve.local.answers import FileAnswer, decision_of, describe_assumption, print_answers
from pneumoserve.local.process import free_ports
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release.schema import RunFacts
from pneumoserve.store import BUCKET

if TYPE_CHECKING:
    from pneumoserve.local.demo_pacs import Reports

# From the checkout, where `make demo` is run.
SAMPLE: Final = Path("tests/data/xray-sample")
LABELS: Final = {
    "normal": "normal",
    "bacteria": "pneumonia, bacterial pattern",
    "virus": "pneumonia, viral pattern",
    "dicom": "none: an adult's chest, and a leg",
}
_STEPS: Final = 30
# The sample's DICOM is of adults, and resampled: by the default rules, both images would be kept unread.
_RULES: Final = "quietSeconds: 1\nread: {derived: true, minAgeYears: 0, belowAgeYears: 120}\n"
_REPORT_SECONDS: Final = 60.0

console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)


def main() -> int:
    """Run the demo; 1 where a step fails."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--train", action="store_true", help="ingest the sample and train a small release from it")
    parser.add_argument("--dicom", action="store_true", help="send the sample's DICOM as a PACS does, and show reports")
    parser.add_argument("--keep", action="store_true", help="leave the stack running until Ctrl-C")
    options = parser.parse_args()
    if not SAMPLE.is_dir():
        console.print("The sample films (tests/data/xray-sample) are missing; run this in a checkout.")
        return 1
    with tempfile.TemporaryDirectory(prefix="pneumoserve-demo-") as folder:
        state = Path(folder) / "state"
        release = train_release(state, Path(folder)) if options.train else None
        with contextlib.ExitStack() as pacs:
            reports = None
            if options.dicom:
                # Half a second that the demo without DICOM need not wait.
                from pneumoserve.local.demo_pacs import taking_reports  # noqa: PLC0415

                reports = pacs.enter_context(taking_reports())
            stack = pacs.enter_context(serving(state, release, reports))
            if release is not None:
                console.print(
                    "This release was trained on the very films below: the answers show how it works, not how well."
                )
            case = show_answers(stack, state)
            if reports is not None:
                show_reports(stack, reports)
            if options.keep:
                keep(stack, case)
    console.print("The stack is stopped; nothing is left running. Its records are gone with it.")
    console.print("\n[bold]Go on with a stack that stays[/bold]")
    console.print(_NEXT, markup=False, soft_wrap=True)
    return 0


_NEXT: Final = f"""\
  .venv/bin/pneumoserve serve --port 8080
and, when it is ready, in another terminal:
  .venv/bin/pneumoserve predict {SAMPLE}/virus
  .venv/bin/pneumoserve archive show <a record's id from predict>
docs/tutorial/first-hour.md explains each step."""


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done, and after it how long it took."""
    console.print(f"\n[bold]{title}[/bold]")
    started = time.perf_counter()
    yield
    console.print(f"[dim]took {time.perf_counter() - started:.1f} s[/dim]")


def command(*words: str | Path | int) -> list[str]:
    """A `pneumoserve` command, shown as it would be typed."""
    console.print(f"$ pneumoserve {shlex.join(str(word) for word in words)}", soft_wrap=True)
    return [str(Path(sys.executable).parent / "pneumoserve"), *map(str, words)]


def train_release(state: Path, work: Path) -> Path:
    """A small release, trained on the sample; too small to be any good, and quick."""
    with step("Ingest the sample into the object store"):
        ingest = ("ingest", SAMPLE, "--to", f"s3://{BUCKET}/datasets", "--state", state, "--json")
        done = subprocess.run(command(*ingest), check=True, stdout=subprocess.PIPE)
        dataset = json.loads(done.stdout)
        console.print(f"{dataset['films']} films, {dataset['added']} new; the dataset is {dataset['manifest']}")
    with step(describe_training()):
        words = ("train", "--dataset", dataset["manifest"], "--out", work / "run", "--steps", _STEPS, "--exclude",
                 "none", "--source", "the sample in tests/data", "--state", state)  # fmt: skip
        subprocess.run(command(*words), check=True)
    with step("Package the run into a signed release"):
        done = subprocess.run(
            command("package", work / "run", "--out", work / "releases", "--state", state, "--json"),
            check=True,
            stdout=subprocess.PIPE,
        )
    return Path(json.loads(done.stdout)["folder"])


def describe_training() -> str:
    """What the demo trains, beside what the reference release was trained by."""
    facts = RunFacts.model_validate_json((REFERENCE_RUN / "run.json").read_bytes())
    steps = facts.training.parameters["steps"]
    return f"Train both models on it, briefly: {_STEPS} steps, where the reference release had {steps}"


@contextlib.contextmanager
def serving(state: Path, release: Path | None, reports: Reports | None = None) -> Iterator[dict[str, Any]]:
    """The local stack: S3, TorchServe and the front; and DICOM, where somebody takes reports."""
    words: list[str | Path | int] = ["serve", "--state", state]
    if reports is not None:
        state.mkdir(exist_ok=True)
        (state / "intake.yaml").write_text(_RULES)
        words += ["--dicom-port", free_ports(1)[0], "--dicom-to", reports.address]
    if release is not None:
        words += ["--release", release]
    with step("Start the stack: an S3 server, TorchServe with both models, the front"):
        process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=None, env=os.environ)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        line = process.stdout.readline()
        if not line:
            raise SystemExit(process.wait() or 1)
        stack: dict[str, Any] = json.loads(line)
        console.print(
            f"ready: {stack['url']} (REST), {stack['grpc']} (gRPC), release {stack['release']}", soft_wrap=True
        )
    try:
        yield stack
    finally:
        with step("Stop the stack"):
            process.terminate()
            process.wait()


def choose_films() -> dict[str, list[Path]]:
    """The films the demo sends, all of the sample's, by what their label says."""
    return {
        label: sorted(path for path in SAMPLE.rglob("*") if path.parent.name == folder and path.is_file())
        for folder, label in LABELS.items()
    }


def display_name(path: Path) -> str:
    """The film's name; an original has that of its small copy."""
    return f"original {path.name}" if "originals" in path.parts else path.name


def keep(stack: dict[str, Any], case: str) -> None:
    """Say where everything is, and wait for Ctrl-C."""
    console.print("\n[bold]The stack stays until you press Ctrl-C[/bold]")
    console.print(f"the service: {stack['url']}/docs\nthe reading room: {stack['console']}", soft_wrap=True)
    console.print(f"a referred study in it: {stack['console']}/studies/{case}", soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def show_answers(stack: dict[str, Any], state: Path) -> str:
    """Send the films one by one over V2, print a table of each label, then one record in full.

    Returns the prediction id of a referred one.
    """
    answers: list[dict[str, Any]] = []
    with step("Send real X-rays over the Open Inference Protocol (V2)"):
        with triton.InferenceServerClient(stack["url"].removeprefix("http://")) as client:
            for label, paths in choose_films().items():
                asked = [(path, ask(client, path.read_bytes())) for path in paths]
                answers += [answer for _, answer in asked]
                rows = [FileAnswer(display_name(path), decision_of(answer)) for path, answer in asked]
                print_answers(console, rows, f"Labelled {label}")
        times = [answer["ms"] for answer in answers]
        console.print(f"{len(answers)} answers, each on record; the median took {statistics.median(times):.0f} ms.")
        for prevalence in dict.fromkeys(answer["assumed_prevalence"] for answer in answers):
            console.print(describe_assumption(prevalence))
        for words in dict.fromkeys(answer[name] for name in ("intended_use", "notice") for answer in answers):
            if words:
                console.print(words, markup=False)
    with step("Read one answer's record back from the store"):
        identifier = answers[-3]["prediction_id"]
        subprocess.run(command("archive", "show", identifier, "--state", state, "--json"), check=True)
    return next(str(answer["prediction_id"]) for answer in answers if answer["referred"])


def show_reports(stack: dict[str, Any], reports: Reports) -> None:
    """Send the sample's DICOM as a PACS does, and print the report of each study."""
    from pneumoserve.local.demo_pacs import describe_report, send_files  # noqa: PLC0415 - as in `main`

    with step("Send the sample's DICOM as a PACS does, and take a structured report of each study"):
        files = sorted((SAMPLE / "dicom").iterdir())
        for status in send_files(files, stack["dicom"]):
            console.print(f"C-STORE to {stack['dicom']['ae_title']}: status {status:04X}")
        for _ in files:
            console.print("\n" + "\n".join(describe_report(reports.get(timeout=_REPORT_SECONDS))))


def ask(client: triton.InferenceServerClient, data: bytes) -> dict[str, Any]:
    """One film's answer as V1 has it, with what goes with the release and the milliseconds it took, `ms`."""
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], dtype=np.object_))
    started = time.perf_counter()
    result = client.infer("pneumonia", [tensor])
    milliseconds = (time.perf_counter() - started) * 1000
    response = result.get_response()
    answer = {output["name"]: _plain(result.as_numpy(output["name"])[0]) for output in response["outputs"]}
    about = {
        "intended_use": response["parameters"]["intended_use"],
        "assumed_prevalence": float(response["parameters"]["assumed_prevalence"]),
    }
    return {**answer, "reasons": json.loads(answer["reasons"]), **about, "ms": milliseconds}


def _plain(value: Any) -> Any:
    """An element of a tensor; None where it says nothing (an empty string, NaN)."""
    if isinstance(value, bytes):
        return value.decode() or None
    return None if np.isnan(value) else value.item()


if __name__ == "__main__":
    sys.exit(main())
