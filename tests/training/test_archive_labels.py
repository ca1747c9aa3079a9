"""`accept` and `recalibrate` on labels of an archive: real films, release and S3 server, readings as on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.cli import reviews, stores
from pneumoserve.imaging.prepare import prepare
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.local.state import State
from pneumoserve.monitoring.acceptance import judge_films
from pneumoserve.records import Acceptance, image_detail, image_key, read_entries
from pneumoserve.release import read_manifest, verify
from pneumoserve.release.package import package
from pneumoserve.review import ReviewDatabase, Sampler
from pneumoserve.signing import write_public_key
from pneumoserve.store import S3Settings, S3Store
from tests.support.archives import reader_of
from tests.support.commands import Ran, invoke, use_store
from tests.support.entries import KEY
from tests.support.films import SAMPLE
from tests.support.metrics import DAY, read_all
from tests.support.reviews import CHANCE, NORMAL, PNEUMONIA, Ward, answer, case_of
from training import site_policy
from training.fit import ece, fit_platt
from training.site_policy import quantile
from training.source import open_dataset
from training.weighted import trace_weighted_roc, weighted_auc

Run = Callable[..., Ran]
PLAN = {
    "site": "the sample",
    "reference": "the graders of the data set, blind",
    "drawn": "weighted",
    "sickPatients": 10,
    "wellPatients": 8,
    "criteria": {"productSensitivity": 0.6, "specificity": 0.3},
    "expected": {"productSensitivity": 0.98, "specificity": 0.9},
}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Settings) -> Iterator[Ward]:
    """The sample's films as a day's studies that the reference answered, chance drew from and people read."""
    folder = tmp_path_factory.mktemp("archive")
    state = State(folder / "state")
    state.make()
    write_public_key(KEY, state.archive_trust)
    release = verify(package(REFERENCE_RUN, state.releases, state.signing_key), state.trust)
    store = S3Store(s3_server.in_bucket("archive-labels"))
    store.ensure_bucket()
    ward = Ward(ReviewDatabase(state.review_database), store, time=DAY)
    labelled, read = open_dataset(str(SAMPLE))
    records = []
    for film in judge_films(release, labelled.items, read, lambda: None):
        image = prepare(read(film.item))
        ward.store.put(image_key(image.stored_sha256), image.stored, "image/jpeg")
        record = answer(film.item.sha256, "normal", DAY, film.probability or 0.0, release.id)
        patient = record.call.model_copy(update={"patient": digest_of(film.item.patient.encode())})
        given = {
            "image": image_detail(image),
            "decision": film.decision,
            "call": patient,
            "release_digest": release.digest,
            "preprocessing_version": release.manifest.preprocessing_version,
        }
        records.append(record.model_copy(update=given))
    ward.put(*records)
    policy = release.manifest.policy
    Sampler(ward.database, ward.commit, CHANCE, lambda _: policy, ward.now).sample(DAY.date(), 15)
    ward.time += timedelta(hours=1)
    read_all(ward, {case_of(item.sha256): NORMAL if item.cls == "normal" else PNEUMONIA for item in labelled.items})
    yield ward
    ward.database.close()
    store.close()


@pytest.fixture
def run(ward: Ward, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    use_store(ward.store, monkeypatch)
    monkeypatch.setattr(reviews, "store_of", stores.store_of)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.yaml").write_text(canonical_json(PLAN).decode())
    folder = Path(str(ward.database._engine.url.database)).parent
    return lambda *words: invoke([*words, "--state", str(folder)], {})


def release_of(ward: Ward) -> str:
    with ward.database.read() as connection:
        return str(connection.exec_driver_sql("select release from cases limit 1").scalar_one())


def test_both_commands_take_labels_of_the_archive(
    ward: Ward, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = ("accept", "--release", release_of(ward), "--dataset", "labels", "--plan", "plan.yaml")
    done = run(*accept, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    answers = {each["answer"]: each for each in document["archive"]["answers"]}
    assert sum(each["studies"] for each in answers.values()) == 66
    assert sum(each["used"] for each in answers.values()) == document["films"] < 66
    assert document["archive"]["effective_sick"] <= document["sick_patients"]
    state = State(Path(str(ward.database._engine.url.database)).parent)
    on_record = read_entries(reader_of(ward.store, state.archive_key, KEY))
    (entry,) = (each for each in on_record if isinstance(each, Acceptance))
    assert entry.labels == document["labels"]
    assert "Each counts by one over its probability" in (Path(document["report"]) / "report.html").read_text()

    monkeypatch.setattr(site_policy, "LEAST_SICK", 10)
    monkeypatch.setattr(site_policy, "LEAST_WELL", 8)
    done = run("recalibrate", str(REFERENCE_RUN), "--dataset", "labels", "--out", "site")
    assert done.returncode == 0, done.stderr
    assert "each counts by one over its probability of being read" in done.stderr
    assert "Cross-fitted: each half of the patients" in done.stdout
    report = (tmp_path / "site" / "report" / "report.md").read_text()
    assert "Films count by their weights. The detector's ECE is" in report
    assert {"roc.png", "calibration.png"} <= {each.name for each in (tmp_path / "site" / "report").iterdir()}
    folder = package(tmp_path / "site", state.releases, state.signing_key)
    _, manifest = read_manifest(folder)
    assert manifest.schema_ == "pneumoserve.release/5"
    assert manifest.recalibration is not None
    # The very labels of the acceptance, by digest.
    assert (manifest.recalibration.drawn, manifest.recalibration.labels) == ("weighted", entry.labels)
    assert set(manifest.recalibration.counts) == {"normal", "bacterial", "viral", "pneumonia"}
    assert "labels of the archive" in manifest.policy.why
    assert "blind readings of studies in the archive" in (folder / "MODEL_CARD.md").read_text()

    # What a policy was fitted to is no test of it.
    refused = run(*accept[:2], folder.name, *accept[3:])
    assert refused.returncode == 2
    assert f"The policy of release {folder.name} was fitted to films of" in refused.stderr


def test_bad_input_is_answered_in_words(ward: Ward, run: Run, tmp_path: Path) -> None:
    accept = ("accept", "--release", release_of(ward), "--plan", "plan.yaml", "--dataset")
    recalibrate = ("recalibrate", str(REFERENCE_RUN), "--out", "out", "--dataset")
    refused = [
        (run(*accept, str(SAMPLE)), "give `--dataset labels`, or a plan that says whether"),
        (run(*accept, "labels", "--answered-by", "1" * 12), "Release 111111111111 has answered no study"),
        (run(*accept, "labels", "--site", "nowhere"), "so there are no sites"),
        (run(*recalibrate, "labels"), r"more patients with pneumonia"),
        (run(*recalibrate, "labels", "--drawn", "random"), "leave --drawn out"),
        (run(*recalibrate, str(SAMPLE), "--drawn", "random", "--since", "2026-01-01"), "`--dataset labels` alone"),
    ]
    for done, sentence in refused:
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    (tmp_path / "plan.yaml").write_text(canonical_json({**PLAN, "drawn": "random"}).decode())
    assert "labels of the archive take one with `drawn: weighted`" in run(*accept, "labels").stderr
    assert not (tmp_path / "out").exists()


def test_a_weight_counts_like_as_many_films() -> None:
    """A film of weight 3 is fitted and ranked as three films are."""
    random = np.random.default_rng(3)
    sick = np.arange(60) < 30
    logits = random.normal(np.where(sick, 1.0, -1.0), 1.5)
    weights = random.integers(1, 5, 60).astype(np.float64)
    times = weights.astype(int)
    fitted = fit_platt(logits, sick, balanced=True, counts=weights)
    repeated = fit_platt(np.repeat(logits, times), np.repeat(sick, times), balanced=True)
    assert (fitted.slope, fitted.intercept) == pytest.approx((repeated.slope, repeated.intercept), abs=1e-4)
    predicted = expit(logits)
    whole = ece(np.repeat(predicted, times), np.repeat(sick, times), balanced=True)
    assert ece(predicted, sick, balanced=True, counts=weights) == pytest.approx(whole)
    false_rate, true_rate = trace_weighted_roc(sick, logits, weights)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(weighted_auc(sick, logits, weights))
    alike = np.ones(times.sum())
    areas = (
        weighted_auc(sick, logits, weights),
        weighted_auc(np.repeat(sick, times), np.repeat(logits, times), alike),
    )
    assert areas[0] == pytest.approx(areas[1])
    # Of many films, quantiles are those of the films that they stand for.
    many, counts = random.normal(0, 1, 4000), random.integers(1, 5, 4000)
    wanted = quantile(np.repeat(many, counts), np.ones(counts.sum()), 0.02)
    assert quantile(many, counts.astype(np.float64), 0.02) == pytest.approx(wanted, abs=0.01)
