"""`pneumoserve archive …` on a store in memory: what a person types, and what they read."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pneumoserve.canonical import digest_of
from pneumoserve.cli import archive_show, output
from pneumoserve.decision import Finding
from pneumoserve.ledger import DEFAULT_LOCK_DAYS
from pneumoserve.local.state import State
from pneumoserve.records import READING_WRITERS, Record, append, image_key, parse_address
from pneumoserve.store import MemoryStore
from tests.support.commands import Ran, invoke, use_store
from tests.support.entries import id_made, label_of, prediction, refusal, request_of
from tests.support.films import SAMPLE

Run = Callable[..., Ran]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.make()
    return made


@pytest.fixture
def run(store: MemoryStore, state: State, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `pneumoserve WORDS… --state STATE`, whose store is the one in memory."""

    use_store(store, monkeypatch)

    def typed(*words: str, **environment: str) -> Ran:
        return invoke([*words, "--state", str(state.folder)], environment)

    return typed


def locked_until(store: MemoryStore) -> datetime | None:
    return store.lock_end("seals/00000001.json")


def test_a_first_try_of_seal_locks_nothing(run: Run, store: MemoryStore, state: State) -> None:
    append(store, state.archive_key, [refusal()], "front")
    done = run("archive", "seal")
    assert done.returncode == 0, done.stderr
    assert "nothing is locked: no --lock-days asked for it" in done.stdout
    assert "locked" not in done.stderr
    assert locked_until(store) is None


def test_seal_locks_ten_years_in_a_store_that_was_named_and_says_so_before(
    run: Run, store: MemoryStore, state: State
) -> None:
    append(store, state.archive_key, [refusal()], "front")
    done = run("archive", "seal", S3_ENDPOINT="http://store.example:9000")
    until = datetime.now(UTC) + timedelta(days=DEFAULT_LOCK_DAYS)
    assert done.returncode == 0, done.stderr
    assert f"locked until {until:%Y-%m-%d} (3650 days, GOVERNANCE)" in done.stderr
    assert "nobody without the right to bypass locks" in done.stderr
    assert abs((locked_until(store) or until) - until) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("words", "answer", "is_locked"),
    [([], "n\n", False), ([], "y\n", True), (["--yes"], "", True)],
)
def test_a_terminal_is_asked_before_anything_is_locked(
    words: list[str], answer: str, is_locked: bool, run: Run, store: MemoryStore, state: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[str] = []

    def confirm(question: str, **_: object) -> bool:
        asked.append(question)
        return answer == "y\n"

    append(store, state.archive_key, [refusal()], "front")
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    done = run("archive", "seal", "--lock-days", "2", "--lock-mode", "COMPLIANCE", *words)
    assert (done.returncode, bool(asked), store.exists("seals/00000001.json")) == (
        0 if is_locked else 1, bool(answer), is_locked,
    )  # fmt: skip
    if is_locked:
        assert "nobody can remove them" in done.stderr
        assert "(2 days, COMPLIANCE)" in done.stderr
    else:
        assert "Nothing was sealed" in done.stderr


@pytest.mark.parametrize(
    "to",
    ["s3:/bucket/x", "s3:", "S3://bucket/x", "s3//bucket/x", "s3:///x", "s3://B", "gs://b/x", "file:///x", "k:s@h", ""],
)
def test_an_export_to_nowhere_is_refused(to: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = run("archive", "export", "--to", to)
    assert done.returncode == 2
    assert "s3://bucket/prefix in the same store" in done.stderr
    assert "k:s@h" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("to", "found"),
    [
        ("exports", None),
        ("./s3:typo", None),
        ("/data/s3/x", None),
        ("s3/x", None),
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/a/b?c#d/", ("bucket", "a/b?c#d")),
    ],
)
def test_an_export_goes_to_a_folder_or_a_bucket(to: str, found: tuple[str, str] | None) -> None:
    assert parse_address(to) == found


# --- show and list


FILM = (SAMPLE / "originals" / "virus" / "person1121_virus_1846.jpeg").read_bytes()


def of_film(film: bytes) -> Record:
    record = prediction()
    assert record.image is not None
    digest = digest_of(film)
    detail = {"stored_sha256": digest, "stored_key": image_key(digest), "format": "jpeg"}
    return record.model_copy(update={"image": record.image.model_copy(update=detail)})


def test_a_record_is_shown_in_words(run: Run, store: MemoryStore, state: State) -> None:
    record = prediction()
    append(store, state.archive_key, [record], "front")
    append(store, state.archive_key, [label_of(record)], "label")
    append(store, state.archive_key, [request_of(record)], READING_WRITERS)
    shown = run("archive", "show", record.prediction_id)
    assert shown.returncode == 0, shown.stderr
    for words in (
        f"prediction  {record.prediction_id}\n", "pneumonia, viral pattern\n", "0.900 pneumonia, 0.800 viral\n",
        "referred: type not sure enough, no frontal view\n", "Never withhold antibiotics",
        "model pneumonia, by v1 (json)",
        f"release     {record.release}\n", "dicom, 1024 x 768 pixels, 180,000 bytes", "CR, CHEST, PA, 3.5 years, F",
        "images/sha256/33/" + "3" * 64, "pneumonia-detector 1: pneumonia 0.900000; weights aaaaaaaaaaaa…",
        "pneumonia-typer 1: bacterial 0.200000", "radiologist, r.17: pneumonia, bacterial\n",
        "asked for by rollout", f"pneumoserve lineage {record.prediction_id}\n",
        f"pneumoserve archive replay --of {record.release} --since {record.time}\n",
    ):  # fmt: skip
        assert words in shown.stdout, words
    assert "a" * 20 not in shown.stdout
    document = json.loads(run("archive", "show", record.prediction_id, "--json").stdout)
    assert {**document, "labels": []} == {**record.model_dump(mode="json", by_alias=True), "labels": []}
    assert [label["author"] for label in document["labels"]] == ["r.17"]


@pytest.mark.parametrize(
    ("finding", "typed", "words"),
    [
        ("pneumonia", True, "probability 0.900 pneumonia, 0.800 viral\n"),
        ("normal", False, "probability 0.900 normal\n"),
        (None, True, "a human must look; leans pneumonia\n"),
        (None, False, "a human must look; leans normal\n"),
    ],
)
def test_a_decision_from_before_version_5_is_shown_with_what_it_leans_to(
    finding: Finding | None, typed: bool, words: str, run: Run, store: MemoryStore, state: State
) -> None:
    record = prediction(typed=typed)
    assert record.decision is not None
    earlier: dict[str, object] = {"finding": finding, "leaning": None, "type_probability": None}
    if finding is None:
        earlier["pneumonia_type"] = None
    decision = record.decision.model_copy(update=earlier)
    before = record.model_copy(update={"schema_": "pneumoserve.record/4", "decision": decision})
    append(store, state.archive_key, [before], "front")
    assert words in run("archive", "show", record.prediction_id).stdout


def test_a_call_without_an_answer_is_shown_in_words(run: Run, store: MemoryStore, state: State) -> None:
    record = refusal()
    append(store, state.archive_key, [record], "front")
    shown = run("archive", "show", record.prediction_id).stdout
    for words in ("refusal", "refused, status 415", "Send a JPEG", "not kept", "none was asked", "none so far"):
        assert words in shown
    assert "replay" not in shown
    asked = run("archive", "show", record.prediction_id, "--image", "x.png")
    assert (asked.returncode, asked.stderr) == (1, "There is no image of this call: only what was decoded is kept.")


def test_an_image_is_written_as_it_lies_in_the_archive(
    run: Run, store: MemoryStore, state: State, tmp_path: Path
) -> None:
    record, file = of_film(FILM), tmp_path / "xray.png"
    assert record.image is not None
    append(store, state.archive_key, [record], "front")

    def show() -> Ran:
        return run("archive", "show", record.prediction_id, "--json", "--image", str(file))

    assert show().stderr == "The store no longer has the image of this record."
    store.put(record.image.stored_key, FILM + b"x", "image/jpeg")
    assert "is not the one of this record" in show().stderr
    store.put(record.image.stored_key, FILM, "image/jpeg")
    shown = show()
    assert (shown.returncode, json.loads(shown.stdout)["prediction_id"]) == (0, record.prediction_id)
    with Image.open(file) as written, Image.open(io.BytesIO(FILM)) as given:
        assert (written.format, written.mode, written.size) == ("PNG", "L", given.size)
        assert np.array_equal(np.asarray(written), np.asarray(given.convert("L")))
    again = show()
    assert (again.returncode, again.stderr) == (2, "xray.png is there already; name a new file.")


def test_an_image_is_drawn_in_a_terminal(
    run: Run, store: MemoryStore, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, out = of_film(FILM), io.StringIO()
    assert record.image is not None
    append(store, state.archive_key, [record], "front")
    store.put(record.image.stored_key, FILM, "image/jpeg")
    words = ("archive", "show", record.prediction_id, "--image", "-")
    assert run(*words).returncode == 2
    terminal = Console(file=out, force_terminal=True, color_system="truecolor", width=80, highlight=False, markup=False)
    monkeypatch.setattr(archive_show, "console", terminal)
    assert run(*words).returncode == 0
    drawn = [line for line in out.getvalue().splitlines() if "▀" in line]
    assert {line.count("▀") for line in drawn} == {72}
    with Image.open(io.BytesIO(FILM)) as given:
        assert len(drawn) == round(36 * given.height / given.width)
    grays = set(re.findall(r"38;2;(\d+);\1;\1", out.getvalue()))
    assert len(grays) > 50


@pytest.fixture
def listed(store: MemoryStore, state: State) -> list[Record]:
    """Ten predictions, the newest first; the second one is referred without a finding."""
    records = [prediction(id_made(NOON - timedelta(minutes=number)), typed=number % 2 == 0) for number in range(10)]
    decision = records[1].decision
    assert decision is not None
    changed = {"finding": None, "referred": True, "reasons": ("uncertain_finding", "outside_population")}
    records[1] = records[1].model_copy(update={"decision": decision.model_copy(update=changed)})
    append(store, state.archive_key, records[::-1], "front")
    append(store, state.archive_key, [refusal(id_made(NOON))], "front")
    append(store, state.archive_key, [label_of(records[0])], "label")
    return records


def test_a_list_fits_into_80_columns_and_goes_on_page_by_page(run: Run, listed: list[Record]) -> None:
    pages: list[str] = []
    after: list[str] = []
    while True:
        shown = run("archive", "list", "--limit", "4", *after)
        assert shown.returncode == 0, shown.stderr
        assert max(len(line.rstrip()) for line in shown.stdout.splitlines()) <= 80
        pages.append(shown.stdout)
        found = re.search(r"^there are more: add (--after) ([0-9a-f-]{36})$", shown.stdout, re.MULTILINE)
        if found is None:
            break
        after = [found[1], found[2]]
    assert len(pages) == 3
    ids = [each for page in pages for each in re.findall(r"^([0-9a-f-]{36}) ", page, re.MULTILINE)]
    assert ids == [record.prediction_id for record in listed]
    for words in ("2026-05-01 12:00:00 ", "a human must look", "uncertain_finding", "viral pattern", "0.900 normal"):
        assert words in pages[0]


@pytest.mark.slow
def test_a_list_is_of_what_was_asked_for(run: Run, listed: list[Record]) -> None:
    def ids(*words: str) -> list[str]:
        done = run("archive", "list", "--json", *words)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["prediction_id"] for line in done.stdout.splitlines()]

    everything = [record.prediction_id for record in listed]
    assert ids() == ids("--day", "2026-05-01") == ids("--since", "2026-05-01", "--until", "2026-05-01") == everything
    assert ids("--day", "2026-05-02") == ids("--until", "2026-04-30") == ids("--release", "ba9876543210") == []
    assert ids("--finding", "none") == ids("--reason", "outside_population") == everything[1:2]
    assert ids("--finding", "normal") == ids("--not-referred") == everything[3::2]
    assert ids("--referred", "--limit", "2") == everything[:2]
    assert len(ids("--kind", "refusal")) == 1
    assert "415" in run("archive", "list", "--kind", "refusal").stdout
    assert run("archive", "list", "--kind", "failure").stdout == "the archive has no such record\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--day", "2026-05-01", "--since", "2026-05-01"], "Give either --day, or --since and --until."),
        (["--since", "2026-05-02", "--until", "2026-05-01"], "--since is a day after --until; exchange them."),
        (["--release", "[/red]"], "--release is the id of a release, 12 hex digits, as an answer states it."),
        (["--reason", "rumour"], "--reason is one of uncertain_finding, "),
        (["--after", "17"], "a UUIDv7"),
        (["--day", "yesterday"], "--day"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_a_list_that_is_asked_for_wrongly(words: list[str], sentence: str, run: Run, listed: list[Record]) -> None:
    assert listed
    done = run("archive", "list", *words)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_a_page_goes_on_after_a_record_that_is_there(run: Run, listed: list[Record]) -> None:
    assert listed
    done = run("archive", "list", "--after", id_made(NOON))
    assert (done.returncode, "no such record" in done.stderr) == (1, True)
