"""What evidence says of an archive, part by part: what is there, what is not, and no word about a patient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.evidence import Found, Period, Trusts, build_files, collect_evidence
from pneumoserve.evidence.listings import LISTINGS
from pneumoserve.evidence.parts import _find_silence
from pneumoserve.ids import time_text
from pneumoserve.progress import ignore_progress
from pneumoserve.records import EntryPlace, append, find_line
from pneumoserve.review import ReviewDatabase
from pneumoserve.signing import key_id
from tests.support.archives import trust_in
from tests.support.entries import KEY, RELEASE, refusal
from tests.support.evidence import SECRET, SITE, Approvers, fill
from tests.support.metrics import DAY
from tests.support.reviews import Ward, case_of

TODAY = date.today()
APPROVERS = Approvers(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())
TRUSTS = Trusts(
    trust_in(APPROVERS.first, APPROVERS.second), trust_in(KEY), trust_in(Ed25519PrivateKey.generate())
)  # fmt: skip


def collect(ward: Ward, folder: Path, period: Period | None = None) -> Found:
    return collect_evidence(
        ward.reader, ward.database, folder, TRUSTS, period or Period(None, TODAY), [], ignore_progress
    )  # fmt: skip


@dataclass
class Filled:
    ward: Ward
    release: str
    found: Found
    files: dict[str, bytes]

    def read(self, part: str) -> Any:
        return json.loads(self.files[f"{part}.json"])

    @property
    def page(self) -> str:
        return self.files["index.html"].decode()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("filled")
    ward = Ward(ReviewDatabase(f"sqlite:///{folder / 'review.sqlite'}"))
    release = fill(ward, APPROVERS)
    found = collect(ward, folder)
    yield Filled(ward, release, found, build_files(found, "0.2.0"))
    ward.database.close()


def test_the_same_archive_gives_the_same_bytes(filled: Filled, tmp_path: Path) -> None:
    assert build_files(collect(filled.ward, tmp_path), "0.2.0") == filled.files


def test_each_kind_of_records_is_listed_and_found_by_its_reference(filled: Filled) -> None:
    for listing in LISTINGS:
        placed = filled.found.reading.listed[listing.form]
        assert placed, listing.title
        for each in placed:
            place = EntryPlace.parse(each.place.text)
            assert place is not None
            line = find_line(filled.ward.reader, place)
            assert line is not None
            assert type(each.entry).model_validate_json(line) == each.entry
            assert each.place.text in filled.page


def test_it_names_no_patient_and_nothing_that_was_written_about_a_study(filled: Filled) -> None:
    for name, data in filled.files.items():
        assert SECRET.encode() not in data, name


def test_the_inventory_has_releases_with_limits_and_owner(filled: Filled) -> None:
    by_id = {each["release"]: each for each in filled.read("inventory")["releases"]}
    assert by_id.keys() == {RELEASE, filled.release}
    assert by_id[RELEASE]["counts"] == {"answers": 174, "referred": 30, "refusal": 1}
    assert by_id[RELEASE]["callers"] == {"hospital-a": 174}
    assert by_id[RELEASE]["stated"] is None
    assert "hint to a person" in by_id[filled.release]["stated"]["intended_use"]
    assert by_id[filled.release]["limits"][0].startswith("Trained on films of children of 1 to 5 years")
    for text in (SITE["owner"], "its release.json was not found here", "from 1 to below 6 years"):
        assert text in filled.page
    assert f"releases/{filled.release}/MODEL_CARD.md" in filled.files


def test_approvals_count_the_keys_that_are_trusted(filled: Filled) -> None:
    names = [key_id(key.public_key()) for key in (APPROVERS.first, APPROVERS.second)]
    approvals = filled.read("approvals")
    assert [each["by"] for each in approvals["accepted"]] == [names]
    signed = {each["release"]: each["signed_by"] for each in approvals["releases"]}
    assert signed == {filled.release: names[:1], RELEASE: []}


def test_rollouts_stand_in_the_order_of_their_steps(filled: Filled) -> None:
    steps = [each["entry"]["what"] for each in filled.read("rollouts")["rollout"]]
    assert steps == ["gates", "approved", "promoted"]
    assert "approved by lead-2" in filled.page


def test_figures_have_intervals_and_few_labels_are_told(filled: Filled) -> None:
    figures = {each["release"]: each["figures"] for each in filled.read("metrics")["releases"]}
    assert figures[RELEASE]["product_sensitivity"]["interval"]["value"] == pytest.approx(0.92, abs=0.01)
    assert figures[filled.release]["product_sensitivity"]["interval"] is None
    assert "10 readings more" in filled.page


def test_access_counts_people_and_lists_break_glass(filled: Filled) -> None:
    access = filled.read("access")
    assert access["people"]["r.1"] == {"incidents reported": 1, "opened images": 174, "readings": 174}
    assert access["people"]["dr.5"] == {"alerts acknowledged": 1, "opened case by break-glass": 1}
    (opened,) = access["view"]
    assert (opened["entry"]["by"], opened["entry"]["case_id"]) == ("dr.5", case_of("normal 0"))
    assert sum(each["entries"] for each in access["counted_from"]) == 174 * 2 + 5


def test_errors_and_the_faults_of_the_archive_are_named(filled: Filled) -> None:
    (error,) = filled.read("errors")["errors"]
    assert (error["kind"], error["status"], error["count"]) == ("refusal", 415, 1)
    verification = filled.read("verification")
    # The images of these records were never stored.
    assert [each["kind"] for each in verification["findings"]] == ["missing_image"]
    assert "seconds" not in verification["summary"]
    assert "objects that are not as they were written: 1" in filled.page


def test_a_period_leaves_out_what_was_before_but_for_what_still_holds(filled: Filled, tmp_path: Path) -> None:
    day = DAY.date()
    after = build_files(collect(filled.ward, tmp_path, Period(day + timedelta(days=1), TODAY)), "0.2.0")
    assert json.loads(after["rollouts.json"])["rollout"] == []
    assert len(json.loads(after["approvals.json"])["acceptance"]) == 1
    assert json.loads(after["access.json"])["people"] == {}
    (use, _) = json.loads(after["inventory.json"])["releases"]
    assert (use["counts"], use["first_answer"][:10]) == ({}, day.isoformat())
    before = collect(filled.ward, tmp_path, Period(None, day - timedelta(days=1)))
    assert not before.reading.uses
    assert "No study was answered in this period" in build_files(before, "0.2.0")["index.html"].decode()


def test_an_empty_archive_says_what_is_missing(tmp_path: Path) -> None:
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}"))
    files = build_files(collect(ward, tmp_path), "0.2.0")
    ward.database.close()
    page = files["index.html"].decode()
    for sentence in (
        "No release has answered.", "No clinical owner is on record", "No acceptance is on record",
        "No rollout is on record", "No study was answered in this period", "No plan of a random check is on record",
        "No baseline is on record", "No incident is on record", "Nobody has opened or read a study.",
        "Every call had an answer.", "Nothing is sealed yet", "it is as it was written",
    ):  # fmt: skip
        assert sentence in page


def test_an_entry_of_a_later_version_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}"))
    later = refusal().model_copy(update={"schema_": "pneumoserve.later/1", "time": time_text(DAY)})
    append(ward.store, KEY, [later], "front")
    ward.database.follow = lambda _: 0
    found = collect(ward, tmp_path)
    ward.database.close()
    assert found.reading.unread == {"pneumoserve.later/1": 1}
    assert "pneumoserve.later/1" in build_files(found, "0.2.0")["index.html"].decode()


@pytest.mark.parametrize(
    ("hours", "silent"),
    [
        (set(), []),
        ({"2026-11-01T00", "2026-11-01T02"}, []),
        (
            {"2026-11-01T00", "2026-11-01T23", "2026-11-02T02"},
            [("2026-11-01 01:00", "2026-11-01 23:00", "22"), ("2026-11-02 00:00", "2026-11-02 02:00", "2")],
        ),
    ],
)
def test_a_silence_of_two_whole_hours_is_a_time_without_a_front(hours: set[str], silent: list[object]) -> None:
    assert list(_find_silence(hours)) == silent
