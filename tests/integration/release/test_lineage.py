"""Lineage: each step from a prediction back to the films its release learned from, and what breaks it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.decision import STOPPED, Scores, decide
from pneumoserve.ids import openlineage_run_of, uuid7
from pneumoserve.imaging import PREPROCESSING_VERSION, PreparedImage
from pneumoserve.imaging.prepare import prepare
from pneumoserve.lineage import Lineage, trace
from pneumoserve.lineage.nodes import nodes
from pneumoserve.lineage.svg import draw
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records import CallDetail, ModelUse, Record, append, image_detail, image_key
from pneumoserve.release import Release, verify
from pneumoserve.release.data import Item, manifest_of, read_data
from pneumoserve.release.fetch import download
from pneumoserve.release.package import sign
from pneumoserve.release.push import upload
from pneumoserve.release.schema import RunFacts
from pneumoserve.signing import generate_key
from pneumoserve.store import S3Settings, S3Store, Store
from tests.conftest import PNEUMOSERVE
from tests.integration.release.conftest import Made
from tests.support import films
from tests.support.commands import trusting
from training.dataset import EXCLUDED_PATIENTS_FILE, dataset_of, excluded_patients
from training.source import open_dataset

FILM = films.sample_films()[0]
NODES = {"image", "preprocessing", "detector", "typer", "policy", "release", "signer", "training-run", "dataset",
         "prediction"}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A record of the release, where its film is stored, and where its release is."""

    record: Record
    store: S3Store
    releases: Path
    trust: Path

    def lineage(self) -> Lineage:
        return trace(self.record, self.store, self.releases, self.trust)


def record_of(film: PreparedImage, release: Release) -> Record:
    prediction_id = uuid7()
    scores = {DETECTOR: 0.999, TYPER: 0.9}
    return Record(
        kind="prediction",
        prediction_id=prediction_id,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        release=release.id,
        release_digest=release.digest,
        preprocessing_version=PREPROCESSING_VERSION,
        call=CallDetail(
            call_id=prediction_id, index=0, count=1, model="pneumonia", protocol="v1", encoding="json", subject="[b]x"
        ),
        image=image_detail(film),
        models=tuple(
            ModelUse(
                name=model.name,
                version=model.version,
                weights=model.weights,
                probability=scores[model.name],
                logit=1.0,
                chest_probability=1.0 if model.name == DETECTOR else None,
                profile={"engine": "onnxruntime"},
            )
            for model in release.manifest.models
        ),
        decision=decide(release.manifest.policy, film.facts, False, Scores(scores[DETECTOR], scores[TYPER], chest=1.0)),
    )


@pytest.fixture
def store(s3_server: S3Settings) -> Store:
    opened = S3Store(s3_server.in_bucket("lineage"))
    opened.ensure_bucket()
    return opened


@pytest.fixture
def asked(made: Made, broken: Path, store: S3Store) -> Asked:
    """A record, its film in the store, and a copy of its release to break."""
    film = prepare(FILM.read_bytes())
    store.put(image_key(film.stored_sha256), film.stored, "image/jpeg")
    return Asked(record_of(film, verify(made.folder, made.trust)), store, broken.parent, made.trust)


def test_a_lineage_goes_back_to_the_films_it_learned_from(asked: Asked, made: Made) -> None:
    lineage, release = asked.lineage(), verify(made.folder, made.trust)
    assert lineage.faults == ()
    assert lineage.warnings == ()
    assert lineage.image is not None
    assert lineage.image.stored == "whole"
    assert [(model.in_release, model.graph) for model in lineage.models] == [
        (True, model.graph) for model in release.manifest.models
    ]
    assert lineage.decision is not None
    assert lineage.decision.agrees
    assert lineage.policy == release.manifest.policy
    assert (lineage.release.signer, lineage.release.intact) == (release.signatures[0].key_id, True)
    assert lineage.release.verified
    assert lineage.training is not None
    assert lineage.training.openlineage_run == openlineage_run_of(release.manifest.training.run_id)
    assert lineage.data == release.manifest.data
    assert lineage.films is not None
    assert lineage.films.count == sum(len(digests) for digests in lineage.films.digests.values()) == 5141
    assert lineage.films.asked is None
    assert Lineage.model_validate_json(lineage.model_dump_json(by_alias=True)) == lineage


def test_a_record_from_before_answers_leaned_follows_from_its_policy_too(asked: Asked) -> None:
    line = asked.record.model_dump(mode="json", by_alias=True) | {"schema": "pneumoserve.record/4"}
    for name in ("leaning", "type_probability"):
        del line["decision"][name]
    lineage = replace(asked, record=Record.model_validate(line)).lineage()
    assert lineage.decision is not None
    assert lineage.decision.agrees
    assert lineage.faults == ()


def test_the_answer_of_a_stopped_release_follows_from_its_stop(asked: Asked) -> None:
    stop = uuid7()
    with_stop = asked.record.model_copy(update={"stop": stop, "decision": STOPPED})
    lineage = replace(asked, record=with_stop).lineage()
    assert lineage.faults == ()
    assert f"no confidence: stop {stop}" in str(nodes(lineage))
    unexplained = replace(asked, record=asked.record.model_copy(update={"decision": STOPPED})).lineage()
    assert "does not follow" in " ".join(unexplained.faults)


def test_the_reference_release_learned_from_no_film_of_the_sample() -> None:
    facts = RunFacts.model_validate_json((REFERENCE_RUN / "run.json").read_bytes())
    data = read_data(REFERENCE_RUN, facts.data.digest)
    assert dataset_of(data.items).facts(facts.data.source, facts.data.excluded_patients) == facts.data
    sample = open_dataset(str(films.SAMPLE))[0].items
    assert not {item.patient for item in data.items} & (
        excluded_patients(EXCLUDED_PATIENTS_FILE) | {item.patient for item in sample}
    )
    assert not {item.sha256 for item in data.items} & {item.sha256 for item in sample}
    assert all(data.with_pixels(prepare(path.read_bytes()).pixels_sha256) is None for path in films.sample_films())


@pytest.mark.parametrize("by", ["file", "pixels"])
def test_a_film_that_was_learned_from_is_warned_of(by: str, asked: Asked) -> None:
    facts = RunFacts.model_validate_json((REFERENCE_RUN / "run.json").read_bytes())
    data = read_data(REFERENCE_RUN, facts.data.digest)
    item = data.items[1]
    assert item.split == "calibration"
    changed = {"input_sha256": item.sha256} if by == "file" else {"pixels_sha256": data.pixels[item.sha256]}
    assert asked.record.image is not None
    record = asked.record.model_copy(update={"image": asked.record.image.model_copy(update=changed)})
    lineage = replace(asked, record=record).lineage()
    assert lineage.films is not None
    assert lineage.films.asked is not None
    assert lineage.films.asked.model_dump() == {
        "by": by,
        "sha256": item.sha256,
        "split": "calibration",
        "learned": False,
        "patient": item.patient,
    }
    (warning,) = lineage.warnings
    assert warning.startswith({"file": "The very file", "pixels": "A film of the very same pixels"}[by])
    assert lineage.faults == ()
    assert "is in (calibration)" in draw(lineage)


def test_what_the_models_learned_from_is_said_whatever_its_split(asked: Asked) -> None:
    """The reference held out nothing but the calibration fold, so its validation split was learned from too."""
    facts = RunFacts.model_validate_json((REFERENCE_RUN / "run.json").read_bytes())
    item = next(item for item in read_data(REFERENCE_RUN, facts.data.digest).items if item.split == "validation")
    assert asked.record.image is not None
    image = asked.record.image.model_copy(update={"input_sha256": item.sha256})
    lineage = replace(asked, record=asked.record.model_copy(update={"image": image})).lineage()
    assert lineage.films is not None
    assert lineage.films.asked is not None
    assert lineage.films.asked.learned
    assert "the models learned from it" in lineage.warnings[0]


def missing_image(asked: Asked) -> Asked:
    return replace(asked, record=with_stored(asked.record, "0" * 64))


def altered_image(asked: Asked) -> Asked:
    assert asked.record.image is not None
    digest = digest_of(asked.record.prediction_id.encode())
    asked.store.put(image_key(digest), b"something else", "image/jpeg")
    return replace(asked, record=with_stored(asked.record, digest))


def with_stored(record: Record, digest: str) -> Record:
    assert record.image is not None
    image = record.image.model_copy(update={"stored_sha256": digest, "stored_key": image_key(digest)})
    return record.model_copy(update={"image": image})


def other_decision(asked: Asked) -> Asked:
    assert asked.record.decision is not None
    decision = asked.record.decision.model_copy(update={"pneumonia_type": "viral"})
    return replace(asked, record=asked.record.model_copy(update={"decision": decision}))


def score_left_out(asked: Asked) -> Asked:
    return replace(asked, record=asked.record.model_copy(update={"models": asked.record.models[:1]}))


def other_weights(asked: Asked) -> Asked:
    detector, typer = asked.record.models
    changed = detector.model_copy(update={"weights": typer.weights})
    return replace(asked, record=asked.record.model_copy(update={"models": (changed, typer)}))


def altered_file(asked: Asked) -> Asked:
    (asked.releases / asked.record.release / "MODEL_CARD.md").write_text("better")
    return asked


def altered_films(asked: Asked) -> Asked:
    film = Item("a" * 64, "normal", "person-1", "train", "x.png")
    (asked.releases / asked.record.release / "data" / "manifest.json").write_bytes(manifest_of([film]))
    return asked


def no_signature(asked: Asked) -> Asked:
    (asked.releases / asked.record.release / "release.json.sig").unlink()
    return asked


def strange_key(asked: Asked) -> Asked:
    folder = asked.releases / asked.record.release
    (folder / "release.json.sig").unlink()
    sign(folder, generate_key(asked.releases / "stranger.pem"))
    return asked


def other_manifest(asked: Asked) -> Asked:
    file = asked.releases / asked.record.release / "release.json"
    stated = json.loads(file.read_bytes())
    stated["policy"]["detector_threshold"] = 0.999
    file.write_bytes(canonical_json(stated))
    return asked


def no_manifest(asked: Asked) -> Asked:
    (asked.releases / asked.record.release / "release.json").write_text("{")
    return asked


def no_release(asked: Asked) -> Asked:
    return replace(asked, record=asked.record.model_copy(update={"release": "0123456789ab"}))


FAULTS: dict[Callable[[Asked], Asked], list[str]] = {
    missing_image: ["is not in the store"],
    altered_image: ["has other bytes than its name says"],
    other_decision: ["decision does not follow"],
    score_left_out: ["decision does not follow"],
    other_weights: ["no pneumonia-detector with the weights"],
    altered_file: ["MODEL_CARD.md was altered"],
    altered_films: ["data/manifest.json was altered", "data/manifest.json is not the dataset"],
    no_signature: ["is not signed"],
    strange_key: ["not signed by a trusted key"],
    other_manifest: ["release.json is not the one that answered"],
    no_manifest: ["not of a form this version reads"],
    no_release: ["Release 0123456789ab is not found"],
}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_what_does_not_hold_is_a_fault_and_the_rest_is_stated(spoil: Callable[[Asked], Asked], asked: Asked) -> None:
    lineage = spoil(asked).lineage()
    assert len(lineage.faults) == len(FAULTS[spoil])
    for fault, words in zip(lineage.faults, FAULTS[spoil], strict=True):
        assert words in fault
    assert lineage.record.prediction_id == asked.record.prediction_id
    assert lineage.release.verified is (spoil in {missing_image, altered_image, other_decision, score_left_out,
                                                  other_weights})  # fmt: skip
    # Of a manifest that is not the one that answered nothing is stated.
    assert (lineage.policy is None) is (spoil in {other_manifest, no_manifest, no_release})
    assert nodes_of(draw(lineage)) == NODES


def test_a_release_is_found_in_the_store(asked: Asked, made: Made, tmp_path: Path) -> None:
    # A bucket of its own: other tests want a store without the release.
    other = S3Store(asked.store.settings.in_bucket("lineage-release"))
    other.ensure_bucket()
    for _ in upload(made.folder, other):
        pass
    assert asked.record.image is not None
    other.put(asked.record.image.stored_key, prepare(FILM.read_bytes()).stored, "image/jpeg")
    lineage = replace(asked, store=other, releases=tmp_path / "nothing").lineage()
    assert lineage.faults == ()
    assert lineage.release.found == "store"
    assert lineage.release.verified


def test_a_key_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    class Hostile:
        def list(self, prefix: str) -> list[Any]:
            return [type("Found", (), {"key": prefix + name}) for name in ("../../escaped", "release.json")]

        def get(self, key: str) -> bytes:
            return b"{}"

    assert download("0123456789ab", Hostile(), tmp_path / "a" / "b") is not None  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"release.json"}


def nodes_of(picture: str) -> set[str]:
    root = ET.fromstring(picture)
    return {group.get("id", "") for group in root.iter("{http://www.w3.org/2000/svg}g")}


def test_the_picture_holds_every_step_and_no_markup_of_others(asked: Asked) -> None:
    lineage = asked.lineage()
    assert lineage.data is not None
    source = "<script>alert('&')</script>"
    picture = draw(lineage.model_copy(update={"data": lineage.data.model_copy(update={"source": source})}))
    assert nodes_of(picture) == NODES
    texts = "".join(ET.fromstring(picture).itertext())
    assert source in texts
    assert {element.tag.rpartition("}")[2] for element in ET.fromstring(picture).iter()} == {
        "svg", "title", "defs", "marker", "path", "rect", "text", "g"}  # fmt: skip
    for word in (asked.record.prediction_id, lineage.release.id, str(lineage.release.signer), "p = 0.999", "signed"):
        assert word in texts


def stored(record: Record, store: Store, folder: Path) -> None:
    """Put a record into the archive."""
    key = generate_key(folder / "writer.pem")
    trusting(folder, key)
    append(store, key, [record], "test")


def run_lineage(asked: Asked, tmp_path: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command on the archive, with a state folder that holds the release."""
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    if not (state / "releases").exists():
        (state / "releases").symlink_to(asked.releases)
    believed = [f"--{name}={tmp_path / name}" for name in ("archive-trust", "sealer-trust")]
    command = [PNEUMOSERVE, "lineage", *map(str, words), "--state", str(state), "--trust", str(asked.trust), *believed]
    environment = {**os.environ, **asked.store.settings.to_env()}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_draws_and_lists(asked: Asked, tmp_path: Path) -> None:
    stored(asked.record, asked.store, tmp_path)
    done = run_lineage(asked, tmp_path, asked.record.prediction_id, "--svg", tmp_path / "a.svg")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("by [b]x", "derived again from the recorded scores and the policy: yes", "trusted", "5141 films",
                 "3e371b8ed2e2", "OpenLineage run"):  # fmt: skip
        assert word in done.stdout
    assert nodes_of((tmp_path / "a.svg").read_text(encoding="utf-8")) == NODES
    listed = run_lineage(asked, tmp_path, asked.record.prediction_id, "--images").stdout.splitlines()
    digests = {line.split()[0] for line in listed if line.endswith((" train", " validation", " calibration"))}
    document = json.loads(run_lineage(asked, tmp_path, asked.record.prediction_id, "--json").stdout)
    assert digests == {digest for split in document["films"]["digests"].values() for digest in split}
    assert len(digests) == 5141
    assert Lineage.model_validate(document).faults == ()


def test_the_command_exits_with_1_where_a_step_fails(asked: Asked, tmp_path: Path) -> None:
    stored(asked.record, asked.store, tmp_path)
    no_signature(asked)
    done = run_lineage(asked, tmp_path, asked.record.prediction_id)
    assert done.returncode == 1
    assert "signer: not verified" in done.stdout
    assert "fault: Release" in done.stdout
    document = json.loads(run_lineage(asked, tmp_path, asked.record.prediction_id, "--json").stdout)
    assert document["release"]["signer"] is None
    assert ["is not signed" in fault for fault in document["faults"]] == [True]
    (asked.releases / asked.record.release).rename(tmp_path / "gone")
    done = run_lineage(asked, tmp_path, asked.record.prediction_id, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["record"]["decision"]["finding"] == "pneumonia"
    assert f"Release {asked.record.release} is not found" in document["faults"][0]


def test_the_command_used_wrongly(asked: Asked, tmp_path: Path) -> None:
    stored(asked.record, asked.store, tmp_path)
    unknown = run_lineage(asked, tmp_path, uuid7())
    assert (unknown.returncode, "no such record" in unknown.stderr) == (1, True)
    none = run_lineage(asked, tmp_path, "17")
    assert (none.returncode, "is a UUIDv7" in none.stderr) == (2, True)
