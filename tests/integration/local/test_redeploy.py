"""Going back to an earlier release on a running stack, and the proof that it answers as it did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.local.stack import REFERENCE_RUN, find_release
from pneumoserve.local.state import State
from pneumoserve.release.package import package, sign
from pneumoserve.release.push import upload
from pneumoserve.store import S3Store
from tests.conftest import Stack, start_stack
from tests.support import films

FILMS = films.sample_films()[::10]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from pneumoserve.cli import main; main()", *map(str, words)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def stricter(state: State, out: Path) -> Path:
    """A release with a threshold that few films reach."""
    run_folder = Path(shutil.copytree(REFERENCE_RUN, out / "run"))
    facts = json.loads((run_folder / "run.json").read_bytes())
    facts["policy"] |= {"detector_threshold": 0.9999, "detector_band": {"low": 0.9999, "high": 0.9999}}
    (run_folder / "run.json").write_bytes(canonical_json(facts))
    return package(run_folder, out, state.signing_key)


def lame(state: State, good: Path) -> Path:
    """A signed release whose TorchServe does not start."""
    folder = Path(shutil.copytree(good, good.with_name("lame")))
    config = folder / "config" / "config.properties"
    config.write_text(config.read_text().replace("vmargs=", "vmargs=-Xnonsense "))
    manifest = json.loads((folder / "release.json").read_bytes())
    manifest["files"]["config/config.properties"] = digest_of(config.read_bytes())
    text = canonical_json(manifest)
    (folder / "release.json").write_bytes(text)
    sign(folder, state.signing_key)
    return folder.rename(good.with_name(digest_of(text)[:12]))


def answers(stack: Stack) -> list[dict[str, Any]]:
    """The stack's answers, without what is of one call alone."""
    found = []
    for film in FILMS:
        response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=film.read_bytes(), timeout=60)
        (answer,) = response.json()["predictions"]
        assert answer.pop("prediction_id")
        found.append(answer)
    return found


def redeployed(stack: Stack, release: str) -> dict[str, Any]:
    done = run("release", "redeploy", release, "--state", stack.state, "--json")
    assert done.returncode in (0, 1), done.stderr
    return {"code": done.returncode, "sentence": done.stderr, **(json.loads(done.stdout) if done.stdout else {})}


# It starts a stack once, and its models and front four times more.
@pytest.mark.timeout(600)
def test_redeploying_an_earlier_release(tmp_path: Path) -> None:
    stack = start_stack(tmp_path / "state")
    state = State(stack.state)
    try:
        first = stack.release
        before = answers(stack)

        # Another release comes from the store, and has answered nothing yet that could be repeated.
        second = stricter(state, tmp_path)
        store = S3Store(stack.s3)
        list(upload(second, store))
        store.close()
        other = redeployed(stack, second.name)
        assert (other["code"], other["running"], other["release"]) == (1, True, second.name)
        assert "no prediction on record" in other["sentence"]
        between = answers(stack)
        assert {answer["release"] for answer in between} == {second.name}
        assert [answer["finding"] for answer in between] != [answer["finding"] for answer in before]

        # One that does not start leaves in place what was there.
        broken = lame(state, state.releases / second.name)
        refused = redeployed(stack, broken.name)
        assert refused["code"] == 1
        assert f"{broken.name} did not start, {second.name} goes on: TorchServe ended" in refused["sentence"]
        assert answers(stack) == between
        assert run("release", "redeploy", "0" * 12, "--state", stack.state).returncode == 1
        assert state.selected_release == second.name

        back = redeployed(stack, first)
        assert back["code"] == 0, back
        assert back["release"] == first
        assert back["predictions"] == back["repeated"]["bit_for_bit"] == len(FILMS)
        assert answers(stack) == before

        # What changed between the two, through the command.
        done = run("archive", "replay", "--state", stack.state, "--of", second.name, "--json")
        assert done.returncode == 0, done.stderr
        (compared,) = json.loads(done.stdout)["compared"]
        assert compared["agreeing"] < len(FILMS)

        # Nothing of the releases that came and went still runs.
        assert len(psutil.Process(stack.process.pid).children()) == 5
    finally:
        assert stack.stop() == 0

    # No stack runs: the choice is kept for the next one.
    done = run("release", "redeploy", second.name, "--state", stack.state)
    assert done.returncode == 0, done.stderr
    assert "the next `pneumoserve serve` serves it" in done.stdout
    assert "answers as it did" in done.stdout
    assert state.selected_release == second.name
    assert find_release(state, None).id == second.name
