"""Looks, outcomes and approvals of an acceptance, and its page."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.decision import Decision, Finding
from pneumoserve.ledger import SegmentKey
from pneumoserve.monitoring.acceptance import (
    JudgedFilm,
    measure_figures,
    measure_strata,
    read_runs,
    run_look,
)
from pneumoserve.monitoring.acceptance_page import render_page
from pneumoserve.monitoring.plan import AcceptancePlan, SitePlanError, load_acceptance_plan
from pneumoserve.records import (
    ACCEPTANCE_WRITERS,
    Acceptance,
    AcceptanceApproval,
    AcceptanceError,
    append,
    approvers_of,
    check_acceptance,
    find_acceptance,
)
from pneumoserve.records.parquet import _row
from pneumoserve.release.data import Item
from pneumoserve.rollout import store_evaluator
from pneumoserve.rollout.errors import RolloutError
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.store_evaluator import StoreEvaluator
from pneumoserve.signing import Trust, add_signature, key_id, load_trust, write_public_key
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.entries import KEY

RELEASE: Any = SimpleNamespace(
    id="919e240e759e",
    manifest=SimpleNamespace(policy=SimpleNamespace(detector_threshold=0.4, assumed_prevalence=0.5)),
)
PLAN = {
    "site": "General hospital",
    "reference": "two radiologists, blind",
    "drawn": "consecutive",
    "sickPatients": 120,
    "wellPatients": 120,
    "looks": 2,
    "criteria": {"productSensitivity": 0.9, "specificity": 0.7, "confidentFalseAlarms": 0.1},
    "expected": {"productSensitivity": 0.98, "specificity": 0.85, "confidentFalseAlarms": 0.03},
}


def plan(**changes: Any) -> AcceptancePlan:
    return AcceptancePlan.model_validate({**PLAN, **changes})


def film(number: int, sick: bool, answer: Finding | None, probability: float, patient: str = "") -> JudgedFilm:
    cls = "bacterial" if sick else "normal"
    item = Item(f"{number:064x}", cls, patient or f"{cls}-{number}", "train", f"{number:012x}")
    decision = Decision(
        finding=answer, pneumonia_type=None, confidence=0.9, referred=answer is None,
        reasons=() if answer else ("uncertain_finding",),
    )  # fmt: skip
    return JudgedFilm(item, decision, probability, "DX" if number % 2 else "CR", "1 to 5", f"Maker {number % 2}")


def films(sick: int, well: int, missed: int = 0, called: int = 0, alarmed: int = 0) -> list[JudgedFilm]:
    """Films of as many patients; of the sick so many are missed, of the well so many called and alarmed."""
    ill = [film(number, True, "normal" if number < missed else "pneumonia", 0.9) for number in range(sick)]
    fine = [
        film(1000 + number, False, "pneumonia" if number < alarmed else "normal", 0.5 if number < called else 0.1)
        for number in range(well)
    ]
    return ill + fine


def look(judged: list[JudgedFilm], earlier: tuple[Acceptance, ...] = (), **changes: Any) -> Acceptance:
    return run_look(RELEASE, plan(**changes), judged, earlier, 0).entry


def test_all_criteria_are_shown_and_the_release_is_accepted() -> None:
    found = look(films(120, 120, missed=2, called=12), looks=1)
    assert (found.outcome, found.look, found.sick_patients) == ("accepted", 1, 120)
    assert all(result.shown for result in found.criteria)


def test_one_criterion_that_is_not_shown_is_enough() -> None:
    found = look(films(120, 120, missed=8), looks=1)
    assert found.outcome == "refused"
    assert [result.figure for result in found.criteria if not result.shown] == ["product_sensitivity"]


def test_an_early_look_asks_for_more_evidence_and_counts_what_is_missing() -> None:
    first = look(films(60, 60, missed=2))
    assert (first.outcome, first.look) == ("insufficient", 1)
    assert first.missing_sick >= 60
    assert first.missing_well == 60
    # What is far off is refused at once.
    assert look(films(60, 60, missed=20)).outcome == "refused"


def test_too_few_patients_show_nothing_and_spend_no_look() -> None:
    run = run_look(RELEASE, plan(), films(50, 70), (), 0)
    assert (run.entry.look, run.entry.outcome) == (0, "insufficient")
    assert (run.entry.missing_sick, run.entry.missing_well) == (10, 0)
    assert not run.entry.criteria
    assert "figures" not in run.document
    # Two films of a patient are one patient.
    twice = [
        film(number, number < 120, "pneumonia" if number < 120 else "normal", 0.9, f"{number // 2}")
        for number in range(240)
    ]
    assert look(twice, looks=1).missing_sick == 60
    # And the next run is still the first look.
    assert look(films(60, 60), (run.entry,)).look == 1


def test_looks_are_counted_and_end() -> None:
    first = look(films(60, 60, missed=2))
    with pytest.raises(AcceptanceError, match="at these very films"):
        look(films(60, 60, missed=2), (first,))
    second = look(films(121, 120, missed=2, called=12), (first,))
    assert (second.look, second.outcome) == (2, "accepted")
    with pytest.raises(AcceptanceError, match=r"has ended: look 2 of 2 says accepted"):
        look(films(122, 120), (first, second))
    other = first.model_copy(update={"labels": "0" * 64, "look": 2})
    with pytest.raises(AcceptanceError, match="All 2 looks"):
        look(films(123, 120), (first, other))


def test_the_same_evidence_shows_less_at_an_early_look() -> None:
    judged = films(120, 120, missed=4, called=12)
    alone, early = look(judged, looks=1), look(judged)
    assert early.criteria[0].bound < alone.criteria[0].bound


def test_a_set_of_one_class_is_refused() -> None:
    for judged in (films(60, 0), films(0, 60)):
        with pytest.raises(AcceptanceError, match="add films of both"):
            look(judged)


def test_a_rollout_asks_for_the_acceptance_that_its_plan_names(
    trusted: tuple[Trust, list[Ed25519PrivateKey]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (first, second, _) = trusted
    store = MemoryStore()
    accepted = look(films(120, 120), looks=1)
    append(store, KEY, [accepted, approval(accepted, first)], ACCEPTANCE_WRITERS)
    for name in ("_release", "_set"):
        monkeypatch.setattr(StoreEvaluator, name, lambda _self, each: each)
    monkeypatch.setattr(store_evaluator, "check_unseen", lambda _evidence, _release: None)
    asked = Plan.model_validate(
        {
            "candidate": RELEASE.id,
            "evidence": "labels",
            "steps": [{"percent": 100}],
            "acceptance": accepted.acceptance_id,
        }
    )

    def check(rollout: Plan) -> None:
        StoreEvaluator(reader_of(store, KEY), KEY, tmp_path / "trust", tmp_path).check_plan(rollout, "0" * 12)

    check(asked.model_copy(update={"acceptance": None}))
    with pytest.raises(RolloutError, match="approved by 1 of 2 people"):
        check(asked)
    append(store, KEY, [approval(accepted, second)], ACCEPTANCE_WRITERS)
    check(asked)


def test_films_of_one_patient_make_a_bound_no_tighter() -> None:
    once = films(100, 100, missed=2)
    twice = once + [film(5000 + n, each.item.cls != "normal", each.decision.finding, 0.9, each.item.patient)
                    for n, each in enumerate(once)]  # fmt: skip
    first, second = (measure_figures(judged, 0.4)["product_sensitivity"] for judged in (once, twice))
    assert (first.rate, first.low, first.high, first.patients) == (second.rate, second.low, second.high, 100)
    assert (first.films, second.films) == (100, 200)


def test_an_export_has_acceptances_whole() -> None:
    accepted = look(films(120, 120), looks=1)
    line = canonical_json(accepted)
    table, row = _row(SegmentKey("acceptance-x-00000000", 1, "2026-05-01", RELEASE.id), line)
    assert (table, row["schema"], row["entry"].encode()) == ("reviews", "pneumoserve.acceptance/1", line)


def test_what_the_figures_count() -> None:
    judged = [
        film(1, True, "normal", 0.5),  # above the threshold, and yet missed
        film(2, True, None, 0.3),  # below it, and referred
        film(3, True, "pneumonia", 0.9),
        film(4, False, "pneumonia", 0.9),
        film(5, False, None, 0.5),
        film(6, False, "normal", 0.1),
        film(7, False, "normal", 0.1),
    ]
    found = {name: rate.rate for name, rate in measure_figures(judged, 0.4).items()}
    assert found == {
        "sensitivity": pytest.approx(2 / 3, abs=1e-4),
        "product_sensitivity": pytest.approx(2 / 3, abs=1e-4),
        "specificity": 0.5,
        "confident_false_alarms": 0.25,
        "referred_among_normals": 0.25,
        "referred_among_pneumonias": pytest.approx(1 / 3, abs=1e-4),
        "wrong_among_confident_normals": pytest.approx(1 / 3, abs=1e-4),
        "wrong_among_confident_pneumonias": 0.5,
    }


def test_small_cells_are_suppressed() -> None:
    cells = measure_strata([*films(12, 40), film(2001, True, "pneumonia", 0.9)], 0.4)
    assert cells["modality: CR"]["sensitivity"] is None
    assert cells["modality: DX"]["sensitivity"] is None
    assert cells["modality: CR"]["specificity"]["films"] == 20
    assert cells["age: 1 to 5"]["sensitivity"]["films"] == 13
    assert cells["device: Maker 0"]["specificity"]["films"] == 20


class _Seen(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("judged", [films(120, 120, missed=2, called=12), films(5, 5)])
def test_the_page_says_what_the_document_does(judged: list[JudgedFilm]) -> None:
    run = run_look(RELEASE, plan(site="<script>alert(1)</script>", looks=1), judged, (), 3)
    page = _Seen()
    page.feed(render_page(run.document))
    assert "script" not in page.tags
    assert run.entry.outcome in page.text
    assert "Not cleared for clinical use" in page.text
    assert "3 patients have a number" in page.text
    assert (page.tags.count("svg") == 2) == bool(run.entry.look)
    assert run.entry.report == digest_of(canonical_json(run.document))


@pytest.fixture
def trusted(tmp_path: Path) -> tuple[Trust, list[Ed25519PrivateKey]]:
    keys = [Ed25519PrivateKey.generate() for _ in range(3)]
    for key in keys[:2]:
        write_public_key(key, tmp_path / "trust")
    return load_trust(tmp_path / "trust"), keys


def approval(acceptance: Acceptance, key: Ed25519PrivateKey) -> AcceptanceApproval:
    return AcceptanceApproval(
        time=acceptance.time,
        release=acceptance.release,
        acceptance_id=acceptance.acceptance_id,
        signature=add_signature(canonical_json(acceptance), key).decode(),
    )


def test_two_trusted_people_approve_what_is_on_record(trusted: tuple[Trust, list[Ed25519PrivateKey]]) -> None:
    trust, (first, second, stranger) = trusted
    store = MemoryStore()
    accepted, other = look(films(120, 120), looks=1), look(films(120, 120, missed=8), looks=1)
    append(store, KEY, [accepted, other], ACCEPTANCE_WRITERS)
    append(
        store,
        KEY,
        [approval(accepted, first), approval(accepted, first), approval(accepted, stranger)],
        ACCEPTANCE_WRITERS,
    )
    # Another acceptance's signature counts for none but that one.
    forged = approval(other, second).model_copy(update={"acceptance_id": accepted.acceptance_id})
    append(store, KEY, [forged], ACCEPTANCE_WRITERS)
    reader = reader_of(store, KEY)
    found, approvals = find_acceptance(reader, accepted.acceptance_id)
    assert found == accepted
    assert approvers_of(found, approvals, trust) == [key_id(first.public_key())]
    assert len(approvers_of(found, [*approvals, approval(accepted, second)], trust)) == 2
    with pytest.raises(AcceptanceError, match="approved by 1 of 2 people"):
        check_acceptance(reader, accepted.acceptance_id, RELEASE.id, trust)
    for name, release in ((other.acceptance_id, RELEASE.id), (accepted.acceptance_id, "0" * 12)):
        with pytest.raises(AcceptanceError, match="name one that accepted"):
            check_acceptance(reader, name, release, trust)
    append(store, KEY, [approval(accepted, second)], ACCEPTANCE_WRITERS)
    check_acceptance(reader_of(store, KEY), accepted.acceptance_id, RELEASE.id, trust)
    revoked = replace(trust, revoked_keys=frozenset({key_id(first.public_key())}))
    assert approvers_of(found, approvals, revoked) == []
    assert read_runs(reader, plan(looks=1), RELEASE.id) == [accepted, other]
    assert read_runs(reader, plan(looks=2), RELEASE.id) == []
    with pytest.raises(AcceptanceError, match="no such acceptance"):
        find_acceptance(reader, "019ad3c2")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"criteria": {}, "expected": {}}, "criteria must name a figure"),
        ({"expected": {"specificity": 0.9}}, "the same figures"),
        ({"criteria": {"specificity": 0.9}, "expected": {"specificity": 0.9}}, "must be better than its criterion"),
        (
            {"criteria": {"referredAmongNormals": 0.1}, "expected": {"referredAmongNormals": 0.2}},
            "referredAmongNormals must be better",
        ),
        ({"looks": 0}, "looks: Input should be greater"),
        ({"drawn": "picked"}, "drawn: Input should be 'consecutive', 'random' or 'weighted'"),
        ({"colour": 1}, "colour: Extra inputs"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(canonical_json({**PLAN, **changes}).decode())
    with pytest.raises(SitePlanError, match=sentence):
        load_acceptance_plan(path)


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("a: [")
    for name, sentence in (("plan.yaml", "no YAML"), ("nowhere.yaml", "The plan nowhere.yaml cannot be read")):
        with pytest.raises(SitePlanError, match=sentence):
            load_acceptance_plan(tmp_path / name)
