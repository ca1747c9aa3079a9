"""`pneumoserve evidence` as it is typed, and `archive show` of what it names."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import digest_of
from pneumoserve.cli import reviews
from pneumoserve.cli.reviews import Review
from pneumoserve.records import EntryPlace
from pneumoserve.review import ReviewDatabase
from pneumoserve.signing import key_id, write_private_key, write_public_key
from pneumoserve.store import MemoryStore
from tests.support.commands import Ran, invoke, trusting, use_store
from tests.support.entries import KEY
from tests.support.evidence import SITE, Approvers, fill, put_release
from tests.support.reviews import Ward

Run = Callable[..., Ran]
MINE, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}"))
    yield made
    made.database.close()


@pytest.fixture
def run(ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the ward's archive, signing with `MINE` and trusting it; `--out` is `e.zip` here."""

    @contextlib.contextmanager
    def review_of(*_: object) -> Iterator[Review]:
        yield Review(ward.database, ward.reader, ward.store)

    monkeypatch.setattr(reviews, "review_of", review_of)
    monkeypatch.chdir(tmp_path)
    write_private_key(MINE, tmp_path / "mine.pem")
    write_public_key(MINE, tmp_path / "trust")
    write_public_key(OTHER, tmp_path / "others")
    believed = trusting(tmp_path, KEY)
    return lambda *words: invoke(
        ["evidence", "--out=e.zip", "--key=mine.pem", "--trust=trust", *believed, *words], {}
    )  # fmt: skip


def test_it_is_written_checked_and_found_out_where_it_was_altered(run: Run, tmp_path: Path) -> None:
    ran = run()
    assert ran.returncode == 0, ran.stderr
    assert "11 files" in ran.stdout
    checked = invoke(["evidence", "verify", "e.zip", "--trust", "trust", "--json"], {})
    assert json.loads(checked.stdout)["signers"] == [key_id(MINE.public_key())]
    assert json.loads(checked.stdout)["sha256"] in ran.stdout
    for trust, change, sentence in (("others", b"", "not trusted here"), ("trust", b"x", "holds more than its files")):
        with Path("e.zip").open("ab") as file:
            file.write(change)
        found = invoke(["evidence", "verify", "e.zip", "--trust", trust], {})
        assert found.returncode == 1
        assert sentence in found.stderr
    assert invoke(["evidence", "verify", "none.zip", "--trust", "trust"], {}).returncode == 2


def test_faults_of_the_archive_are_told_once_it_is_written(run: Run, ward: Ward) -> None:
    fill(ward, Approvers(MINE, OTHER))
    ran = run("--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["faults"] == 1
    assert "archive verify" in ran.stderr
    with zipfile.ZipFile("e.zip") as packed:
        assert b"no, 1 missing" in packed.read("index.html")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--until", "2999-01-01"], "is a day to come"),
        (["--since", "2026-02-01", "--until", "2026-01-01"], "exchange them"),
        (["--trust", "nowhere"], "There is no trust folder"),
    ],
)
def test_what_is_asked_wrongly_is_told(run: Run, words: list[str], sentence: str) -> None:
    ran = run(*words)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert not Path("e.zip").exists()


def test_without_a_file_to_write_it_asks_for_one() -> None:
    ran = invoke(["evidence"], {})
    assert ran.returncode == 2
    assert "--out" in ran.stderr


# --- what a site states


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Ran]:
    store = MemoryStore()
    use_store(store, monkeypatch)
    write_private_key(KEY, tmp_path / "key.pem")
    release = put_release(store, MINE)
    believed = trusting(tmp_path, KEY)
    file = tmp_path / "site.yaml"
    words = ["--by=lead-2", f"--key={tmp_path / 'key.pem'}", "--json"]

    def run(document: Any, of: str = release) -> Ran:
        file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return invoke(["evidence", "site", str(file), f"--release={of}", *words], {})

    run.show = lambda place, *more: invoke(["archive", "show", place, *believed, *more], {})  # type: ignore[attr-defined]
    run.store = store  # type: ignore[attr-defined]
    return run


def test_an_owner_is_put_on_record_and_shown_by_reference(state: Any) -> None:
    ran = state(SITE)
    assert ran.returncode == 0, ran.stderr
    (item,) = state.store.list("records/")
    line = state.store.get(item.key).split(b"\n")[1]
    assert json.loads(line) == json.loads(ran.stdout)
    name = item.key.rpartition("/")[2].removesuffix(".jsonl")
    place = EntryPlace(name[:-9], int(name[-8:]), digest_of(line))
    shown = state.show(place.text)
    assert json.loads(shown.stdout)["owner"] == SITE["owner"]
    assert state.show(EntryPlace(place.writer, 1, "0" * 64).text).returncode == 1
    assert state.show(place.text, "--image=x.png").returncode == 2


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("- a list", "see the example"),
        ("a: [", "is no YAML"),
        ({**SITE, "owner": ""}, "owner:"),
        ({name: text for name, text in SITE.items() if name != "owner"}, "owner: Field required"),
        ({**SITE, "more": "x"}, "more:"),
    ],
)
def test_what_is_no_statement_of_a_site_is_told(state: Any, document: Any, sentence: str) -> None:
    ran = state(document)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert sentence in ran.stderr


def test_of_a_release_that_nobody_knows_nothing_is_stated(state: Any) -> None:
    ran = state(SITE, "fedcba987654")
    assert ran.returncode == 2
    assert "There is no release" in ran.stderr
