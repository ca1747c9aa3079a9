"""What people put on record: each kind is read back, and so is what earlier versions wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pneumoserve.canonical import canonical_json
from pneumoserve.ids import uuid7
from pneumoserve.ledger import SegmentKey, now_text
from pneumoserve.records import (
    LONGEST_COMMENT,
    Adjudication,
    Alert,
    AlertEvent,
    Baseline,
    Draw,
    DriftWindow,
    Flag,
    Incident,
    Label,
    LimitResult,
    MetricsLook,
    ReadingDetail,
    ReleaseResume,
    ReleaseStop,
    ReviewEntry,
    SamplePlan,
    SiteUse,
    View,
    Withdrawal,
    append,
    labels_of,
    parse_entry,
)
from pneumoserve.records import parquet as module
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.entries import KEY, label_of, prediction

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
ID, RELEASE, PREDICTION = uuid7(), "0123456789ab", uuid7()
OF = {"case_id": "a" * 64, "time": now_text(), "release": RELEASE}
FILMS = {"prediction_ids": (PREDICTION,)}
PLAN = SamplePlan(
    plan_id=ID, first_day="2026-01-01", time=now_text(), release=RELEASE, key_id="b" * 64, capacity=20, days=7,
    normal_below=0.1, pneumonia_from=0.9, counted={"normal/far": 70}, probabilities={"normal/far": 0.1},
)  # fmt: skip
ENTRIES: dict[str, ReviewEntry | SiteUse] = {
    "alert": Alert(**OF, **FILMS, alert_id=ID, reasons=("uncertain_finding", "pneumonia"), severity="urgent"),
    "alert-event": AlertEvent(**OF, event_id=ID, alert_id=ID, what="ordered", by="dr.5", ordered="blood_test"),
    "sample-plan": PLAN,
    "draw": Draw(**OF, **FILMS, draw_id=ID, plan_id=ID, stratum="normal/far", probability=0.1, key_id="b" * 64),
    "flag": Flag(**OF, flag_id=ID, title="113000^DCM"),
    "withdrawal": Withdrawal(**OF, **FILMS, withdrawal_id=ID, why="worklist_entry"),
    "view": View(**OF, view_id=ID, by="r.17", page="answer"),
    "adjudication": Adjudication(**OF, **FILMS, adjudication_id=ID, by="lead", finding=None, label_ids=(ID, ID)),
    "baseline": Baseline(
        release=RELEASE, time=now_text(), baseline_id=ID, site="pacs", source="DX", first=now_text(), last=now_text(),
        studies=1000, by="lead", why="a new detector plate",
    ),
    "drift": DriftWindow(
        release=RELEASE, time=now_text(), drift_id=ID, baseline_id=ID, source="jpeg", first=now_text(),
        last=now_text(), studies=200, scores_p=0.001, images_p=0.2, referrals_p=0.5, cause="case_mix",
    ),
    "metrics-look": MetricsLook(
        release=RELEASE, time=now_text(), look_id=ID, site="pacs", plan="c" * 64, look=1, first_day="2026-01-01",
        before="2026-02-01", level=0.01, studies=900, readings=80,
        results=(LimitResult(figure="referral_rate", limit=0.2, value=0.3, bound=0.25, passed=True),),
    ),
    "stop": ReleaseStop(release=RELEASE, time=now_text(), stop_id=ID, by="lead", why="pale images", evidence=(ID,)),
    "resume": ReleaseResume(release=RELEASE, time=now_text(), resume_id=ID, by="lead", why="mended", stop_ids=(ID,)),
    "incident-of-drift": Incident(
        release=RELEASE, time=now_text(), incident_id=ID, drift_id=ID, by="pneumoserve drift", kind="drift"
    ),
    "incident": Incident(**OF, **FILMS, incident_id=ID, by="r.17", kind="missed_pneumonia"),
    "site-use": SiteUse(
        release=RELEASE, time=now_text(), by="lead", site="hospital", owner="Dr A. Owner", role="radiologist",
        contact="4711", governance="imaging AI group", purpose="a second look", population="children", limits="none",
    ),
}  # fmt: skip
READING = ReadingDetail(
    case_id="a" * 64, prediction_ids=(PREDICTION, uuid7()), asked="qa_draw", no_result_seen=True, not_blind=(),
    probability=0.1, second_probability=0.2, second_drawn=True,
)  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_read_back_and_fits_its_published_schema(name: str) -> None:
    line = canonical_json(ENTRIES[name])
    assert parse_entry(line) == ENTRIES[name]
    assert (
        json.loads(line).keys()
        == json.loads((SCHEMAS / f"{name.removesuffix('-of-drift')}.schema.json").read_text())["properties"].keys()
    )


@pytest.mark.parametrize("name", ENTRIES)
def test_an_export_keeps_the_whole_entry(name: str) -> None:
    line = canonical_json(ENTRIES[name])
    table, row = module._row(SegmentKey("review-00000001", 1, "2026-01-01", RELEASE), line)
    assert table == "reviews"
    assert row.keys() == module.EXPORT_COLUMNS["reviews"].keys()
    assert row["entry"] == line.decode()


def test_a_label_of_the_first_version_stays_readable() -> None:
    line = canonical_json(
        {
            "schema": "pneumoserve.label/1", "label_id": ID, "prediction_id": PREDICTION, "time": now_text(),
            "release": RELEASE, "source": "radiologist", "author": "r.17", "finding": None, "pneumonia_type": None,
        }
    )  # fmt: skip
    assert json.loads(line).keys() == json.loads((SCHEMAS / "label-1.schema.json").read_text())["properties"].keys()
    label = parse_entry(line)
    assert isinstance(label, Label)
    assert (label.reading, label.certainty, label.prediction_ids) == (None, None, (PREDICTION,))


def test_a_reading_is_found_by_each_prediction_of_its_study() -> None:
    store, other = MemoryStore(), prediction()
    first = prediction()
    detail = READING.model_copy(update={"prediction_ids": (first.prediction_id, other.prediction_id)})
    reading = label_of(first).model_copy(update={"reading": detail})
    append(store, KEY, [first, other], "front")
    append(store, KEY, [reading], "label")
    assert [labels_of(reader_of(store, KEY), each.prediction_id) for each in (first, other)] == [[reading]] * 2


def test_an_export_has_a_reading_as_json() -> None:
    reading = label_of(prediction()).model_copy(update={"reading": READING})
    _, row = module._row(SegmentKey("label-00000001", 1, "2026-01-01", RELEASE), canonical_json(reading))
    assert json.loads(str(row["reading"]))["asked"] == "qa_draw"
    assert READING.blind
    assert not READING.model_copy(update={"not_blind": ("opened_alert",)}).blind


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("draw", {"probability": 0}),
        ("draw", {"prediction_ids": ()}),
        ("incident", {"comment": "x" * (LONGEST_COMMENT + 1)}),
        ("alert", {"reasons": ("because",)}),
        ("view", {"patient": "somebody"}),
    ],
)
def test_what_an_entry_cannot_say_is_refused(name: str, wrong: dict[str, object]) -> None:
    entry = ENTRIES[name]
    with pytest.raises(ValidationError):
        type(entry).model_validate({**entry.model_dump(by_alias=True), **wrong})
