"""A policy that is fitted to a site: its rules, what it refuses, and the run that comes of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import recalibrate as benchmark
from pneumoserve.decision import Policy
from pneumoserve.lineage.nodes import _recalibration
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release import read_manifest
from pneumoserve.release.data import Item, read_labels
from pneumoserve.release.package import PackageError, package
from pneumoserve.release.schema import RunFacts
from tests.support import films
from tests.support.commands import invoke
from training import recalibrate, site_policy
from training.dataset import DatasetError
from training.fit import calibrate, judge, sigmoid
from training.recalibrate import SiteLabels
from training.scores import Scores, read_scores
from training.site_policy import LEAST_SICK, allowed_share, check_enough, fit_site_policy, quantile

FACTS = RunFacts.model_validate_json((REFERENCE_RUN / "run.json").read_bytes())
TYPER = FACTS.models[1].calibration


def scored(seed: int, sick: int = 400, well: int = 400, a_patient: int = 2) -> Scores:
    """Films of a site where every score is higher than in training; each patient has `a_patient` films."""
    draw = np.random.default_rng(seed)
    items = [
        Item(f"{number:064x}", "bacterial" if number < sick else "normal", f"{number // a_patient}", "train", "x")
        for number in range(sick + well)
    ]
    detector = np.concatenate([draw.normal(6, 1.5, sick), draw.normal(1.5, 1.5, well)])
    return Scores(
        items, *(each.astype(np.float32) for each in (detector, draw.normal(0, 2, sick + well), 6 + detector))
    )


def rates(policy_of: Scores, judged: Scores) -> dict[str, float]:
    fitted = fit_site_policy(policy_of, TYPER, FACTS.policy)
    verdicts = judge(calibrate(judged, fitted.calibration, TYPER), fitted.policy)
    sick, stated = judged.sick, ~verdicts.unsure & ~verdicts.refused
    return {
        "sensitivity": verdicts.called[sick].mean(),
        "missed": (~verdicts.called & stated)[sick].mean(),
        "alarmed": (verdicts.called & stated)[~sick].mean(),
    }


def test_the_rates_of_other_patients_are_those_that_were_asked_for() -> None:
    """In the mean of many fits: a single one of 200 patients is off by a film or two."""
    found = [rates(scored(seed), scored(seed + 1000, 2000, 2000)) for seed in range(8)]
    mean = {name: np.mean([each[name] for each in found]) for name in found[0]}
    assert mean["sensitivity"] == pytest.approx(1 - site_policy.MISSED, abs=0.005)
    assert mean["missed"] == pytest.approx(site_policy.MISSED_CONFIDENTLY, abs=0.005)
    assert mean["alarmed"] == pytest.approx(site_policy.ALARMED_CONFIDENTLY, abs=0.007)


def test_where_films_are_easy_a_tenth_is_read_all_the_same() -> None:
    easy = scored(1)
    moved = np.where(easy.sick, easy.detector + 6, easy.detector).astype(np.float32)
    films_of_site = Scores(easy.items, moved, easy.typer, easy.chest)
    fitted = fit_site_policy(films_of_site, TYPER, FACTS.policy)
    verdicts = judge(calibrate(films_of_site, fitted.calibration, TYPER), fitted.policy)
    for chosen in (easy.sick, ~easy.sick):
        assert verdicts.unsure[chosen].mean() == pytest.approx(site_policy.ALWAYS_REFERRED, abs=0.01)
    assert not (verdicts.called != easy.sick)[~verdicts.unsure].any()


def test_a_policy_fitted_to_half_of_an_unseen_source_holds_on_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures that `python -m benchmarks.recalibrate` publishes, of fewer splits."""
    monkeypatch.setattr(benchmark, "SPLITS", 4)
    found = benchmark.measure(read_scores(benchmark.SCORES)["site"], FACTS)["site"]
    for name, goal in benchmark.GOALS.items():
        reached = found[name]["mean"]
        assert reached >= goal if name in ("sensitivity", "specificity") else reached <= goal, name


def test_probabilities_mean_what_they_say_at_the_site() -> None:
    scores, other = scored(1), scored(2, 2000, 2000)
    before = sigmoid(calibrate(other, FACTS.models[0].calibration, TYPER).detector)
    fitted = fit_site_policy(scores, TYPER, FACTS.policy)
    after = sigmoid(calibrate(other, fitted.calibration, TYPER).detector)
    assert abs(after[~other.sick].mean() + after[other.sick].mean() - 1) < 0.02 < before[~other.sick].mean()


def test_what_labels_of_a_site_say_nothing_of_stays_as_it_is() -> None:
    fitted = fit_site_policy(scored(1), TYPER, FACTS.policy).policy
    kept = ("typer_threshold", "typer_band", "type_evidence", "population")
    assert {name: getattr(fitted, name) for name in kept} == {name: getattr(FACTS.policy, name) for name in kept}


def test_the_gate_is_only_ever_lowered() -> None:
    easy = scored(1)
    assert fit_site_policy(easy, TYPER, FACTS.policy).policy.chest_threshold == FACTS.policy.chest_threshold
    hard = Scores(easy.items, easy.detector, easy.typer, easy.chest - 12)
    assert (fit_site_policy(hard, TYPER, FACTS.policy).policy.chest_threshold or 0) < (
        FACTS.policy.chest_threshold or 0
    )
    assert fit_site_policy(easy, TYPER, without_gate(FACTS.policy)).policy.chest_threshold is None


def without_gate(policy: Policy) -> Policy:
    return policy.model_copy(update={"chest_threshold": None})


def test_few_patients_leave_less_room_for_misses() -> None:
    shares = [allowed_share(patients) for patients in (40, LEAST_SICK, 90, 110, 1000)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert 0 < shares[1] < shares[-1] == site_policy.MISSED


def test_points_between_films_are_found_on_the_logit() -> None:
    alike = np.ones(99)
    assert quantile(np.arange(1.0, 100.0), alike, 0.02) == pytest.approx(2.0)
    assert quantile(np.arange(1.0, 100.0), alike, 0.025) == pytest.approx(2.5)
    # With fewer films than the share can part, the lowest one.
    assert quantile(np.array([3.0, 4.0]), alike[:2], 0.02) == 3.0


def test_too_few_patients_are_refused_by_how_many_are_missing() -> None:
    assert LEAST_SICK == 74
    check_enough(scored(1, sick=74, well=29, a_patient=1))
    with pytest.raises(DatasetError, match=r"add films of 1 more patients with pneumonia \(73 of the 74"):
        check_enough(scored(1, sick=73, well=29, a_patient=1))
    # Films do not count: two of one patient are one.
    with pytest.raises(DatasetError, match=r"37 more patients with pneumonia .* and 14 more patients without \(15"):
        check_enough(scored(1, sick=74, well=30))


def test_each_half_is_judged_by_the_policy_of_the_other() -> None:
    scores = scored(3)
    # One half's sick films are made easy, so that a policy that saw them itself would show.
    first = recalibrate._first_half(scores)
    assert not {*scores.patients[first]} & {*scores.patients[~first]}
    assert abs(len({*scores.patients[first & scores.sick]}) - 100) <= 1
    moved = Scores(
        scores.items,
        np.where(first, scores.detector + 5, scores.detector).astype(np.float32),
        scores.typer,
        scores.chest,
    )
    verdicts = recalibrate.cross_fit(moved, FACTS)
    called = dict(zip((item.sha256 for item in verdicts.scores.items), verdicts.called, strict=True))
    judged = np.array([called[item.sha256] for item in moved.items])
    # The policy of the moved half misses many of the other, and that of the other calls nearly all of the moved.
    assert judged[~first & moved.sick].mean() < 0.5
    assert judged[first & ~moved.sick].mean() > 0.5


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the sample's films, of which there are too few but for this test."""
    out = tmp_path_factory.mktemp("site") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site_policy, "LEAST_SICK", 10)
        patch.setattr(site_policy, "LEAST_WELL", 10)
        recalibrate.recalibrate(REFERENCE_RUN, SiteLabels.of_dataset(str(films.SAMPLE), "random"), out)
    return out


def test_a_recalibrated_run_is_packaged_like_any(site: Path, tmp_path: Path) -> None:
    facts = RunFacts.model_validate_json((site / "run.json").read_bytes())
    folder = package(site, tmp_path / "releases", None)
    _, manifest = read_manifest(folder)
    assert (facts.schema_, manifest.schema_) == ("pneumoserve.run/4", "pneumoserve.release/4")
    assert manifest.recalibration is not None
    assert manifest.recalibration.drawn == "random"
    assert {cls: count.images for cls, count in manifest.recalibration.counts.items()} == dict.fromkeys(
        ("normal", "bacterial", "viral"), 22
    )
    assert {item.cls for item in read_labels(folder, manifest.recalibration.labels)} == {"normal", "bacterial", "viral"}
    assert [model.weights for model in manifest.models] == [model.weights for model in FACTS.models]
    assert manifest.models[0].calibration != FACTS.models[0].calibration
    assert manifest.models[1] == FACTS.models[1]
    assert all(name.startswith("site/") for name in manifest.metrics)
    lineage: Any = SimpleNamespace(recalibration=manifest.recalibration)
    assert f"labels {manifest.recalibration.labels}" in "".join(_recalibration(lineage))
    card = (folder / "MODEL_CARD.md").read_text()
    assert "cross-fitted" in card
    assert "new version of the device" in card
    assert "cross-fitted" in (folder / "report" / "report.md").read_text()


def test_labels_that_were_changed_are_not_packaged(site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(site, copy)
    (copy / "data" / "labels.json").write_text("{}")
    with pytest.raises(PackageError, match=r"labels\.json does not hold the labels"):
        package(copy, tmp_path / "releases", None)


def test_the_reference_release_keeps_its_bytes() -> None:
    """A field that only recalibrated ones have must not change the id of any other."""
    assert "recalibration" not in FACTS.model_dump(mode="json", by_alias=True)


def test_bad_input_is_answered_in_words(tmp_path: Path) -> None:
    def refused(source: Path, dataset: Path, out: Path = tmp_path / "out", drawn: str = "random") -> str:
        words = ["recalibrate", str(source), "--dataset", str(dataset), "--out", str(out), "--drawn", drawn]
        done = invoke(words if drawn else words[:-2], {})
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    # Of images that somebody picked, no figure stands for others.
    assert "Missing option '--drawn'" in refused(REFERENCE_RUN, films.SAMPLE, drawn="")
    assert "Invalid value for '--drawn'" in refused(REFERENCE_RUN, films.SAMPLE, drawn="picked")
    (tmp_path / "source").mkdir()
    assert "holds neither run.json nor release.json" in refused(tmp_path / "source", films.SAMPLE)
    assert "There is no release 000000000000" in refused(Path("0" * 12), films.SAMPLE)
    assert "There is no folder nowhere" in refused(REFERENCE_RUN, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "No films found in empty" in refused(REFERENCE_RUN, tmp_path / "empty")
    assert "more patients with pneumonia" in refused(REFERENCE_RUN, films.SAMPLE)
    assert "give an --out beside it" in refused(REFERENCE_RUN, films.SAMPLE, REFERENCE_RUN / "site")
    assert "is in use" in refused(REFERENCE_RUN, films.SAMPLE, films.SAMPLE)
    twice = tmp_path / "twice"
    for cls in ("normal", "virus"):
        (twice / cls).mkdir(parents=True)
        shutil.copy(films.SAMPLE / "normal" / "IM-0250-0001.jpeg", twice / cls / f"{cls}.jpeg")
    assert "are the same file in two classes" in refused(REFERENCE_RUN, twice)
    assert not (tmp_path / "out").exists()
