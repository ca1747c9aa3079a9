"""`accept` and `approve` as they are typed: the real release, real films, a store in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.local.state import State
from pneumoserve.records import Acceptance, Record, read_entries
from pneumoserve.release.package import package
from pneumoserve.signing import generate_key, load_trust, write_public_key
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.commands import Ran, invoke, use_store
from tests.support.films import SAMPLE

Run = Callable[..., Ran]
PLAN = {
    "site": "the sample",
    "reference": "the graders of the data set",
    "drawn": "random",
    "sickPatients": 20,
    "wellPatients": 15,
    "criteria": {"productSensitivity": 0.7, "specificity": 0.4},
    "expected": {"productSensitivity": 0.98, "specificity": 0.9},
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.make()
    return made


@pytest.fixture
def run(store: MemoryStore, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    use_store(store, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return lambda *words: invoke([*words, "--state", str(state.folder)], {})


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for name in ("normal", "bacteria", "virus"):
        shutil.copytree(SAMPLE / name, tmp_path / "films" / name)
    return tmp_path / "films"


def test_a_release_is_judged_in_shadow_and_two_people_approve_it(
    run: Run, store: MemoryStore, state: State, films: Path, tmp_path: Path
) -> None:
    release = package(REFERENCE_RUN, state.releases, state.signing_key)
    (tmp_path / "plan.yaml").write_text(canonical_json(PLAN).decode())
    words = ("accept", "--release", release.name, "--dataset", str(films), "--plan", "plan.yaml")
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["outcome"], document["look"], document["films"]) == ("accepted", 1, 60)
    assert document["figures"]["product_sensitivity"]["rate"] == 1.0
    written = Path(document["report"])
    entries = list(read_entries(reader_of(store, state.archive_key)))
    # Nothing of it is a prediction, so that no queue, draw or metric ever sees it.
    (entry,) = entries
    assert isinstance(entry, Acceptance)
    assert not any(isinstance(each, Record) for each in entries)
    assert entry.report == digest_of((written / "acceptance.json").read_bytes())
    assert "accepted (look 1 of 1)" in (written / "report.html").read_text()

    again = run(*words)
    assert again.returncode == 2
    assert "has ended: look 1 of 1 says accepted" in again.stderr

    keys = [tmp_path / "first.pem", tmp_path / "second.pem"]
    for number, key in enumerate(keys):
        write_public_key(generate_key(key), state.trust)
        done = run("approve", entry.acceptance_id, "--key", str(key))
        assert done.returncode == 0, done.stderr
        assert ("1 more must approve", "that is enough")[number] in done.stdout
    assert "approved this before" in run("approve", entry.acceptance_id, "--key", str(keys[0])).stderr
    assert len(load_trust(state.trust).keys) == 3

    strict = {**PLAN, "criteria": {"specificity": 0.97}, "expected": {"specificity": 0.99}}
    (tmp_path / "strict.yaml").write_text(canonical_json(strict).decode())
    done = run(*words[:-1], "strict.yaml")
    assert (done.returncode, done.stderr) == (1, "The release is not accepted: refused.")


def test_bad_input_is_answered_in_words(run: Run, films: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(canonical_json(PLAN).decode())
    (tmp_path / "empty").mkdir()
    unknown = run("accept", "--release", "0" * 12, "--dataset", str(films), "--plan", "plan.yaml")
    assert (unknown.returncode, "There is no release 000000000000" in unknown.stderr) == (2, True)
    nowhere = run("accept", "--release", "0" * 12, "--dataset", str(films), "--plan", "no.yaml")
    assert (nowhere.returncode, "The plan no.yaml cannot be read" in nowhere.stderr) == (2, True)
