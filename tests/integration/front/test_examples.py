"""The clients of examples/, each run as its first lines say, against the local stack."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pneumoserve.records import find_record
from tests.conftest import Stack
from tests.support import films

EXAMPLES = Path(__file__).parents[3] / "examples"
ORIGINALS = [str(path) for path in sorted((films.SAMPLE / "originals").rglob("*.jpeg"))[:2]]
DICOM = str(films.CHEST_DICOM)
PREDICTION = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = "sh" if name.endswith(".sh") else sys.executable
    return subprocess.run(
        [program, str(EXAMPLES / name), *words], capture_output=True, text=True, timeout=120, check=False
    )


def address(stack: Stack, name: str) -> str:
    """What a client is given as the service's address."""
    return {"v2.py": stack.url.removeprefix("http://"), "grpc_client.py": stack.grpc}.get(name, stack.url)


def predictions(stack: Stack, printed: str) -> list[str]:
    """The ids that were printed, each of which is on record."""
    found = PREDICTION.findall(printed)
    reader = stack.reader
    assert all(find_record(reader, prediction) for prediction in found)
    return found


@pytest.mark.parametrize("name", ["v1.py", "v2.py", "grpc_client.py"])
def test_two_films_are_decided(name: str, stack: Stack) -> None:
    done = run(name, address(stack, name), *ORIGINALS)
    assert done.returncode == 0, done.stderr
    assert all(film in done.stdout for film in ORIGINALS)
    assert len(set(predictions(stack, done.stdout))) == 2


@pytest.mark.parametrize("name", ["v1.py", "v2.py", "grpc_client.py"])
def test_a_refusal_ends_a_client_with_its_sentence(name: str, stack: Stack) -> None:
    done = run(name, address(stack, name), __file__)
    assert done.returncode == 1
    assert "image 0" in done.stderr.lower(), done.stderr
    assert "Traceback" not in done.stderr


def test_dicom_objects_have_receipts_and_a_refused_one_stops_no_other(stack: Stack) -> None:
    done = run("dicom.py", stack.url, "study-1", "patient-1", __file__, DICOM)
    assert done.returncode == 1, done.stderr
    assert "refused     415" in done.stdout
    (prediction,) = set(predictions(stack, done.stdout.partition(DICOM)[2]))
    record = find_record(stack.reader, prediction)
    assert record is not None
    assert '"signature"' in done.stdout
    assert "patient-1" not in record.model_dump_json()
    assert run("dicom.py", stack.url, "study-1", "patient-1", DICOM).returncode == 0


def test_the_readmes_call(stack: Stack) -> None:
    start, call = re.findall(r"```sh\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    port = re.search(r"serve --port (\d+)", start)
    assert port is not None
    typed = call.replace(f"http://127.0.0.1:{port[1]}", stack.url).replace(".venv/bin/python", sys.executable)
    assert stack.url in typed
    done = subprocess.run(
        ["sh", "-euc", typed], cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(predictions(stack, done.stdout)) == 1


def test_curl(stack: Stack) -> None:
    done = run("curl.sh", stack.url)
    assert done.returncode == 0, done.stderr
    _, v1, v2, dicom, refusal = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    outputs = {output["name"]: output["data"] for output in v2["outputs"]}
    ids = [v1["predictions"][0]["prediction_id"], outputs["prediction_id"][0]]
    ids += [dicom["predictions"][0]["prediction_id"], refusal["prediction_id"]]
    assert len(set(predictions(stack, " ".join(ids)))) == 4
    assert refusal["error"]
