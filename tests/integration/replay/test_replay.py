"""Replay: recorded films through a real release once more, from a real store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json
from pneumoserve.decision import STOPPED, Decision
from pneumoserve.ids import uuid7
from pneumoserve.imaging import PREPROCESSING_VERSION
from pneumoserve.imaging.prepare import prepare
from pneumoserve.inference import infer
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.inprocess import InProcess, load_scorers
from pneumoserve.models.scorer import Scorer
from pneumoserve.names import DECISION, DETECTOR, TYPER
from pneumoserve.progress import ignore_progress
from pneumoserve.records import CallDetail, Entry, ErrorDetail, Record, RefusedInput, append, image_detail, image_key
from pneumoserve.release import Release, ReleaseError, verify
from pneumoserve.release.fetch import fetch
from pneumoserve.release.package import package, sign
from pneumoserve.release.push import upload
from pneumoserve.release.schema import INTENDED_USE, TYPE_NOTICE
from pneumoserve.replay import TOLERANCE, Report, changes_of, select_predictions
from pneumoserve.replay import replay as run_replay
from pneumoserve.signing import generate_key, write_public_key
from pneumoserve.store import MemoryStore, S3Settings, S3Store, Store
from tests.support import films
from tests.support.archives import reader_of
from tests.support.commands import trusting

FILMS = [path.read_bytes() for path in films.sample_films()[::4]]
# A film whose type the reference release states.
TYPED = (films.SAMPLE / "virus" / "person983_virus_1660.jpeg").read_bytes()
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
# The band of the stricter release, among the scores of the sample's pneumonias.
LOW, HIGH = 0.9995, 0.9999


@dataclass(frozen=True)
class Made:
    """Two releases of the same weights, the second of which finds pneumonia less easily; and who may sign."""

    release: Release
    stricter: Release
    trust: Path


def stricter_run(folder: Path) -> Path:
    """The reference run with a threshold that fewer films reach, and no band below it."""
    shutil.copytree(REFERENCE_RUN, folder)
    facts = json.loads((folder / "run.json").read_bytes())
    facts["policy"] |= {"detector_threshold": HIGH, "detector_band": {"low": LOW, "high": HIGH}}
    (folder / "run.json").write_bytes(canonical_json(facts))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("releases")
    key = generate_key(root / "key.pem")
    write_public_key(key, root / "trust")
    folders = [package(run, root / "releases", key) for run in (REFERENCE_RUN, stricter_run(root / "run"))]
    release, stricter = (verify(folder, root / "trust") for folder in folders)
    return Made(release, stricter, root / "trust")


@pytest.fixture(scope="module")
def scorers(made: Made) -> Iterator[dict[str, Scorer]]:
    with load_scorers(made.release) as models:
        yield models


@pytest.fixture
def store(s3_server: S3Settings) -> Iterator[Store]:
    own = S3Store(s3_server.in_bucket(f"replay-{os.urandom(4).hex()}"))
    S3Store(own.settings, patient=True).set_up()
    yield own
    own.close()


def answered(made: Made, scorers: dict[str, Scorer], data: bytes, model: str = DECISION, **details: Any) -> Record:
    """The record of a film as the front would have written it."""
    film = prepare(data)
    with ThreadPoolExecutor(1) as threads:
        inference = asyncio.run(infer(made.release, InProcess(scorers, threads), model, film))
    image = image_detail(film)
    return Record(
        **{
            "kind": "prediction",
            "prediction_id": uuid7(),
            "time": NOW.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "release": made.release.id,
            "release_digest": made.release.digest,
            "preprocessing_version": PREPROCESSING_VERSION,
            "call": CallDetail(call_id=uuid7(), index=0, count=1, model=model, protocol="v1", encoding="plain"),
            "image": image,
            "models": inference.models,
            "decision": inference.decision,
            **details,
        }
    )


def put_image(store: Store, data: bytes) -> None:
    film = prepare(data)
    store.put(image_key(film.stored_sha256), film.stored, "image/jpeg")


def put(store: Store, records: Sequence[Entry]) -> None:
    """Put entries on record, as a process does that serves nothing."""
    append(store, KEY, records, "test")


def changed(record: Record, **details: Any) -> Record:
    return Record.model_validate(record.model_dump(by_alias=True) | details)


def replayed(store: Store, release: Release, scorers: dict[str, Scorer], **options: Any) -> Report:
    wanted = {"since": None, "release": None, "sample": None, "seed": 0} | options
    return run_replay(store, release, scorers, select_predictions(reader_of(store, KEY), **wanted), ignore_progress)


@pytest.fixture(scope="module")
def fifteen(made: Made, scorers: dict[str, Scorer]) -> list[Record]:
    return [answered(made, scorers, data) for data in FILMS]


def test_the_same_release_repeats_every_answer_bit_for_bit(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    others = {films.LEG_DICOM: DECISION, films.CHEST_DICOM: DECISION, films.sample_films()[0]: DETECTOR,
              films.sample_films()[1]: TYPER}  # fmt: skip
    records = [*fifteen, *(answered(made, scorers, path.read_bytes(), model) for path, model in others.items())]
    for data in (*FILMS, *(path.read_bytes() for path in others)):
        put_image(store, data)
    call = CallDetail(call_id=uuid7(), index=0, count=1, model=DECISION, protocol="v1", encoding="plain")
    refusal = changed(
        fifteen[0],
        kind="refusal",
        prediction_id=uuid7(),
        call=call.model_dump(),
        image=None,
        models=(),
        decision=None,
        refused=RefusedInput(input_sha256=None, input_bytes=None).model_dump(),
        error=ErrorDetail(status=400, message="no.").model_dump(),
    )
    shadow = changed(fifteen[0], prediction_id=uuid7(), arm="shadow")
    put(store, [*records, refusal, shadow])
    report = replayed(store, made.release, scorers)
    assert report.ok
    assert report.predictions == report.repeated.bit_for_bit == len(records)
    assert report.compared == ()


def test_what_a_stopped_release_answered_is_repeated_too(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    stopped = [changed(each, stop=uuid7(), decision=STOPPED.model_dump()) for each in fifteen[:2]]
    # Its scores were those of a finding, and no stop is named: nothing explains this answer.
    unexplained = changed(fifteen[2], decision=STOPPED.model_dump())
    for data in FILMS[:3]:
        put_image(store, data)
    put(store, [*stopped, unexplained])
    report = replayed(store, made.release, scorers)
    assert report.repeated.bit_for_bit == 2
    assert [(each.prediction_id, each.differs) for each in report.repeated.mismatches] == [
        (unexplained.prediction_id, ("decision",))
    ]


def test_records_from_before_answers_leaned_are_repeated_too(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    """Their decisions say neither `leaning` nor `type_probability`, and all else is held to the same standard."""
    records = [*fifteen, answered(made, scorers, TYPED)]
    for data in (*FILMS, TYPED):
        put_image(store, data)
    before = [as_version_4(record) for record in records]
    assert all("leaning" not in line["decision"] for line in before)
    put(store, [Record.model_validate(line) for line in before])
    report = replayed(store, made.release, scorers)
    assert report.ok
    assert report.repeated.bit_for_bit == len(records)
    typed = before[-1]
    assert typed["decision"]["pneumonia_type"] == "viral"
    other = typed | {"prediction_id": uuid7(), "decision": typed["decision"] | {"confidence": 0.5}}
    put(store, [Record.model_validate(other)])
    (mismatch,) = replayed(store, made.release, scorers).repeated.mismatches
    assert (mismatch.prediction_id, mismatch.differs) == (other["prediction_id"], ("decision",))


def test_a_release_from_before_its_words_loads_and_repeats_its_records(
    store: Store, made: Made, scorers: dict[str, Scorer], tmp_path: Path
) -> None:
    release = earlier_release(made, tmp_path)
    assert release.manifest.intended_use == INTENDED_USE
    assert release.manifest.type_notice == TYPE_NOTICE
    records = [answered(Made(release, made.stricter, made.trust), scorers, data) for data in FILMS]
    for data in FILMS:
        put_image(store, data)
    put(store, [Record.model_validate(as_version_4(record)) for record in records])
    report = replayed(store, release, scorers)
    assert report.ok
    assert report.repeated.bit_for_bit == len(FILMS)


def earlier_release(made: Made, folder: Path) -> Release:
    """The release as a packaging of version 0.2.0 would have stated it, with that time's band of the type."""
    manifest = json.loads((made.release.folder / "release.json").read_bytes()) | {"schema": "pneumoserve.release/2"}
    for name in ("intended_use", "type_notice"):
        del manifest[name]
    del manifest["policy"]["type_evidence"]
    manifest["policy"]["typer_band"] = {"low": 0.4497, "high": 0.5503}
    data = canonical_json(manifest)
    copy = shutil.copytree(made.release.folder, folder / sha256(data)[:12])
    (copy / "release.json").write_bytes(data)
    (copy / "release.json.sig").unlink()
    key = generate_key(folder / "key.pem")
    write_public_key(key, folder / "trust")
    sign(copy, key)
    return verify(copy, folder / "trust")


def as_version_4(record: Record) -> dict[str, Any]:
    line = record.model_dump(mode="json", by_alias=True) | {"schema": "pneumoserve.record/4"}
    for name in ("leaning", "type_probability"):
        del line["decision"][name]
    return line


@pytest.mark.parametrize("change", [{"leaning": None}, {"type_probability": 0.5}])
def test_a_leaning_or_a_types_probability_that_is_another_is_a_mismatch(
    change: dict[str, Any], store: Store, made: Made, scorers: dict[str, Scorer]
) -> None:
    typed = answered(made, scorers, TYPED)
    assert typed.decision is not None
    put_image(store, TYPED)
    put(store, [changed(typed, decision=typed.decision.model_dump() | change)])
    (mismatch,) = replayed(store, made.release, scorers).repeated.mismatches
    assert mismatch.differs == ("decision",)


def next_float(value: float) -> float:
    return math.nextafter(value, math.inf)


@pytest.mark.parametrize(
    ("model", "change", "differs"),
    [
        (0, {"logit": next_float}, ("logit",)),
        (0, {"probability": next_float}, ("probability",)),
        (1, {"logit": next_float}, ("logit",)),
        (0, {"weights": lambda _: "0" * 64}, ("models",)),
    ],
)
def test_one_bit_otherwise_is_a_mismatch_with_its_id(
    model: int, change: dict[str, Any], differs: tuple[str, ...], store: Store, made: Made,
    scorers: dict[str, Scorer], fifteen: list[Record],
) -> None:  # fmt: skip
    original = next(record for record in fifteen if len(record.models) == 2)
    uses = [use.model_dump() for use in original.models]
    for name, edit in change.items():
        uses[model][name] = edit(uses[model][name])
    for data in FILMS:
        put_image(store, data)
    put(store, [changed(record, models=uses) if record is original else record for record in fifteen])
    report = replayed(store, made.release, scorers)
    assert not report.ok
    assert [(each.prediction_id, each.differs) for each in report.repeated.mismatches] == [
        (original.prediction_id, differs)
    ]
    assert report.repeated.bit_for_bit == len(fifteen) - 1


def test_another_decision_is_a_mismatch(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    original = next(record for record in fifteen if record.decision and record.decision.finding == "normal")
    assert original.decision is not None
    sentence = original.decision.model_dump() | {"finding": "pneumonia"}
    for data in FILMS:
        put_image(store, data)
    put(store, [changed(original, decision=sentence)])
    (mismatch,) = replayed(store, made.release, scorers).repeated.mismatches
    assert mismatch.differs == ("decision",)


def in_another_profile(record: Record, moved: float) -> Record:
    """The record of a machine that computes a little otherwise; `moved` is by how much its probabilities differ."""
    uses = [
        use.model_dump() | {"profile": {**use.profile, "cpu": "another"}, "logit": use.logit + moved,
                            "probability": abs(use.probability - moved)}
        for use in record.models
    ]  # fmt: skip
    assert record.decision is not None
    sentence = record.decision.model_dump()
    for name in ("confidence", "type_probability"):
        sentence[name] = None if sentence[name] is None else abs(sentence[name] - moved)
    return changed(record, models=uses, decision=sentence)


def test_another_profile_is_held_to_decision_and_tolerance(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    for data in FILMS:
        put_image(store, data)
    beyond = fifteen[0]
    put(store, [in_another_profile(each, (2 if each is beyond else 0.5) * TOLERANCE) for each in fifteen])
    report = replayed(store, made.release, scorers)
    assert report.repeated.bit_for_bit == 0
    assert report.repeated.by_tolerance == len(fifteen) - 1
    (mismatch,) = report.repeated.mismatches
    assert mismatch.prediction_id == beyond.prediction_id
    assert mismatch.standard == "tolerance"
    assert mismatch.differs == ("probability", "decision")
    assert report.repeated.largest_difference == pytest.approx(2 * TOLERANCE)


def test_whatever_server_has_answered_the_bits_must_be_the_same(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    for data in FILMS:
        put_image(store, data)
    servers = ("torchserve", "inprocess")
    put(store, [by_server(each, servers[index % 2]) for index, each in enumerate(fifteen)])
    report = replayed(store, made.release, scorers)
    assert (report.repeated.bit_for_bit, report.repeated.by_tolerance) == (len(fifteen), 0)


def by_server(record: Record, server: str) -> Record:
    uses = [use.model_dump() | {"profile": {**use.profile, "server": server}} for use in record.models]
    return changed(record, models=uses)


def test_bad_evidence_is_told_by_its_kind(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    good, missing, altered, other_pixels, old, incomplete, damaged, renamed, moved, *_ = fifteen
    images = [record.image for record in fifteen]
    assert all(images)
    for data in FILMS:
        if prepare(data).stored_sha256 != missing.image.stored_sha256:  # type: ignore[union-attr]
            put_image(store, data)
    store.put(altered.image.stored_key, good_image(store, good), "image/jpeg")  # type: ignore[union-attr]
    store.put("elsewhere", good_image(store, moved), "image/jpeg")
    store.put(image_key(digest := sha256(b"\xff\xd8\xff")), b"\xff\xd8\xff", "image/jpeg")
    put(
        store,
        [
            good,
            missing,
            altered,
            changed(other_pixels, image=other_pixels.image.model_dump() | {"pixels_sha256": "0" * 64}),  # type: ignore[union-attr]
            changed(old, preprocessing_version="0"),
            changed(incomplete, image=None),
            changed(renamed, image=renamed.image.model_dump() | {"stored_sha256": "0" * 64}),  # type: ignore[union-attr]
            changed(moved, image=moved.image.model_dump() | {"stored_key": "elsewhere"}),  # type: ignore[union-attr]
            changed(
                damaged,
                image=damaged.image.model_dump() | {"stored_sha256": digest, "stored_key": image_key(digest)},  # type: ignore[union-attr]
            ),
        ],
    )
    report = replayed(store, made.release, scorers)
    assert not report.ok
    assert report.predictions == 9
    assert report.repeated.bit_for_bit == 1
    assert {each.prediction_id: each.fault for each in report.bad_evidence} == {
        missing.prediction_id: "missing_image",
        altered.prediction_id: "altered_image",
        renamed.prediction_id: "altered_image",
        moved.prediction_id: "altered_image",
        other_pixels.prediction_id: "other_pixels",
        old.prediction_id: "other_preprocessing",
        incomplete.prediction_id: "incomplete_record",
        damaged.prediction_id: "unreadable_image",
    }


def infant(made: Made, scorers: dict[str, Scorer], store: Store) -> Record:
    """A record of before: an infant of .99 years, whose copy says 12 months, as ages were rounded then."""
    dataset = pydicom.dcmread(films.CHEST_DICOM)
    dataset.PatientAge = "051W"
    record = answered(made, scorers, films.written(dataset))
    copy = prepare(films.written(dataset)).stored.replace(b"AS\x04\x00011M", b"AS\x04\x00012M")
    store.put(image_key(sha256(copy)), copy, "application/dicom")
    assert record.image is not None
    image = record.image.model_dump() | {
        "age_years": 0.99,
        "stored_sha256": sha256(copy),
        "stored_key": image_key(sha256(copy)),
    }
    return changed(record, image=image)


def test_the_decision_is_replayed_for_the_age_on_record(store: Store, made: Made, scorers: dict[str, Scorer]) -> None:
    record = infant(made, scorers, store)
    assert record.decision is not None
    assert record.image is not None
    assert "outside_population" in record.decision.reasons
    of_two_years = changed(record, prediction_id=uuid7(), image=record.image.model_dump() | {"age_years": 2.0})
    lateral = changed(record, prediction_id=uuid7(), image=record.image.model_dump() | {"view_position": "LL"})
    put(store, [record, of_two_years, lateral])
    report = replayed(store, made.release, scorers)
    assert report.repeated.mismatches == ()
    assert report.repeated.bit_for_bit == 1
    assert {(each.prediction_id, each.fault) for each in report.bad_evidence} == {
        (of_two_years.prediction_id, "other_facts"),
        (lateral.prediction_id, "other_facts"),
    }


def good_image(store: Store, record: Record) -> bytes:
    assert record.image is not None
    return store.get(record.image.stored_key)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_another_release_tells_what_changed(
    store: Store, made: Made, scorers: dict[str, Scorer], fifteen: list[Record]
) -> None:
    for data in FILMS:
        put_image(store, data)
    moved = fifteen[3]
    uses = [use.model_dump() for use in moved.models]
    uses[0]["probability"] = abs(uses[0]["probability"] - 0.25)
    put(store, [changed(record, models=uses) if record is moved else record for record in fifteen])
    report = replayed(store, made.stricter, scorers)
    assert report.ok
    assert report.repeated.bit_for_bit == report.repeated.by_tolerance == 0
    (compared,) = report.compared
    assert (compared.release, compared.predictions, compared.decisions) == (made.release.id, 15, 15)
    wanted = expected_changes(made, fifteen)
    assert compared.changes["pneumonia_to_normal"]
    assert compared.changes["from_referred"]
    assert {change: set(ids) for change, ids in compared.changes.items() if ids} == wanted
    assert compared.agreeing == 15 - len(set().union(*wanted.values()))
    detector = compared.scores[DETECTOR]
    assert detector.count == 15
    assert detector.largest == pytest.approx(0.25)
    assert detector.largest_id == moved.prediction_id
    assert abs(detector.mean) == pytest.approx(0.25 / 15)
    assert detector.quantiles[1:4] == (0.0, 0.0, 0.0)


def expected_changes(made: Made, records: list[Record]) -> dict[str, set[str]]:
    """By hand: in the stricter release only probabilities from HIGH on are a pneumonia, from LOW on a case."""
    wanted: dict[str, set[str]] = {}
    for record in records:
        assert record.decision is not None
        p = record.models[0].probability
        if record.decision.finding == "pneumonia" and p < LOW:
            wanted.setdefault("pneumonia_to_normal", set()).add(record.prediction_id)
        if record.decision.referred and p < LOW:
            wanted.setdefault("from_referred", set()).add(record.prediction_id)
        if not record.decision.referred and LOW <= p < HIGH:
            wanted.setdefault("to_referred", set()).add(record.prediction_id)
        if record.decision.referred and LOW <= p < HIGH:
            wanted.setdefault("referred_otherwise", set()).add(record.prediction_id)
    return wanted


NORMAL = Decision(finding="normal", pneumonia_type=None, confidence=0.9, referred=False, reasons=())
BACTERIAL = Decision(finding="pneumonia", pneumonia_type="bacterial", confidence=0.9, referred=False, reasons=())
VIRAL = BACTERIAL.model_copy(update={"pneumonia_type": "viral"})
UNTYPED = Decision(finding="pneumonia", pneumonia_type=None, confidence=0.9, referred=True, reasons=("uncertain_type",))
NOTHING = Decision(finding=None, pneumonia_type=None, confidence=0.6, referred=True, reasons=("uncertain_finding",))


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (NORMAL, BACTERIAL, ("normal_to_pneumonia",)),
        (VIRAL, NORMAL, ("pneumonia_to_normal",)),
        (BACTERIAL, VIRAL, ("bacterial_to_viral",)),
        (VIRAL, BACTERIAL, ("viral_to_bacterial",)),
        (NORMAL, NOTHING, ("to_referred",)),
        (NOTHING, VIRAL, ("from_referred",)),
        (NORMAL, UNTYPED, ("normal_to_pneumonia", "to_referred")),
        (UNTYPED, NOTHING, ("referred_otherwise",)),
        (NORMAL, NORMAL.model_copy(update={"confidence": 0.8}), ()),
        (NOTHING, NOTHING.model_copy(update={"reasons": ("outside_population",)}), ()),
    ],
)
def test_every_change_of_a_decision_has_a_name(before: Decision, after: Decision, wanted: tuple[str, ...]) -> None:
    assert changes_of(before, after) == wanted


def test_a_sample_hangs_on_ids_and_seed_alone(
    store: Store, s3_server: S3Settings, made: Made, fifteen: list[Record]
) -> None:
    backwards = S3Store(s3_server.in_bucket(f"replay-{os.urandom(4).hex()}"))
    backwards.set_up()
    put(store, fifteen)
    put(backwards, fifteen[::-1])

    def drawn(where: Store, seed: int) -> list[str]:
        return [record.prediction_id for record in select_predictions(reader_of(where, KEY), None, None, 5, seed)]

    assert drawn(store, 0) == drawn(backwards, 0)
    assert len(set(drawn(store, 0))) == 5
    assert drawn(store, 0) != drawn(store, 1)
    backwards.close()


def test_records_are_taken_by_time_and_release(store: Store, made: Made, fifteen: list[Record]) -> None:
    day_before = (NOW - timedelta(days=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    elsewhere = {"release": made.stricter.id, "release_digest": made.stricter.digest}
    put(store, [fifteen[0], changed(fifteen[1], time=day_before), changed(fifteen[2], **elsewhere)])

    def taken(since: datetime | None, release: str | None) -> set[str]:
        return {record.prediction_id for record in select_predictions(reader_of(store, KEY), since, release, None, 0)}

    ids = [record.prediction_id for record in fifteen[:3]]
    assert taken(None, None) == set(ids)
    assert taken(NOW, None) == {ids[0], ids[2]}
    assert taken(NOW + timedelta(milliseconds=1), None) == set()
    assert taken(None, made.release.id) == {ids[0], ids[1]}


# The command line, as a person runs it.


def run(*words: str | Path, store: S3Store, environment: dict[str, str] | None = None) -> Any:
    settings = {f"S3_{name.upper()}": str(value) for name, value in vars(store.settings).items()}
    return subprocess.run(
        [sys.executable, "-c", "from pneumoserve.cli import main; main()", *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **settings, **(environment or {})},
    )  # fmt: skip


def test_the_command_replays_through_a_release_of_the_store(
    store: Store, made: Made, fifteen: list[Record], tmp_path: Path
) -> None:
    for data in FILMS:
        put_image(store, data)
    uses = [use.model_dump() for use in fifteen[0].models]
    uses[0]["logit"] = next_float(uses[0]["logit"])
    put(store, fifteen[1:])
    list(upload(made.release.folder, store))
    words = ("archive", "replay", "--release", made.release.id, "--trust", made.trust, "--state", tmp_path / "state",
             *trusting(tmp_path, KEY))  # fmt: skip
    done = run(*words, "--json", store=store)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["predictions"], report["repeated"]["bit_for_bit"], report["ok"]) == (14, 14, True)
    put(store, [changed(fifteen[0], models=uses)])
    done = run(*words, store=store)
    assert done.returncode == 1
    assert f"mismatch {fifteen[0].prediction_id}: logit" in done.stdout
    assert run(*words, "--of", "0" * 12, store=store).returncode == 1
    assert run(*words, "--since", "yesterday", store=store).returncode == 2


@pytest.mark.parametrize("harm", ["altered", "stranger", "extra", "another", "absent"])
def test_a_release_of_the_store_is_verified_before_it_is_loaded(
    harm: str, store: Store, made: Made, fifteen: list[Record], tmp_path: Path
) -> None:
    put(store, fifteen[:1])
    where = f"releases/{made.release.id}/"
    if harm != "absent":
        list(upload(made.release.folder, store))
    trust = made.trust
    if harm == "altered":
        key = f"{where}model-store/{DETECTOR}.mar"
        store.put(key, store.get(key) + b"\0", "application/octet-stream")
    if harm == "stranger":
        trust = tmp_path / "trust"
        write_public_key(Ed25519PrivateKey.generate(), trust)
    if harm == "extra":
        store.put(f"{where}more.txt", b"", "text/plain")
    if harm == "another":
        for item in [item.key for item in store.list(where)]:
            store.put(item.replace(made.release.id, "0" * 12), store.get(item), "application/octet-stream")
    wanted = "0" * 12 if harm == "another" else made.release.id
    words = ("archive", "replay", "--release", wanted, "--trust", trust, "--state", tmp_path / "state")
    done = run(*words, *trusting(tmp_path, KEY), store=store)
    assert done.returncode == 1, done.stdout
    sentences = {
        "altered": "was altered",
        "stranger": "trusted key",
        "extra": "not part of it",
        "another": "was asked for",
        "absent": "nor in the store",
    }
    assert sentences[harm] in done.stderr


def test_a_store_cannot_choose_where_a_release_is_written(made: Made, tmp_path: Path) -> None:
    misleading = MemoryStore()
    misleading.put(f"releases/{made.release.id}/../../planted", b"planted", "text/plain")
    with pytest.raises(ReleaseError, match="leads out"):
        fetch(misleading, made.release.id, tmp_path / "out", made.trust)
    assert not (tmp_path / "planted").exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_without_onnx_runtime_the_command_says_so(
    store: Store, made: Made, fifteen: list[Record], tmp_path: Path
) -> None:
    put(store, fifteen[:1])
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('none', name='onnxruntime')\n")
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = ("archive", "replay", "--release", made.release.folder, "--trust", made.trust, "--state", tmp_path / "s")
    done = run(*words, *trusting(tmp_path, KEY), store=store, environment={"PYTHONPATH": search})
    assert done.returncode == 2
    assert "onnxruntime is missing" in done.stderr
