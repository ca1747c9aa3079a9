"""An archive with something for every part of evidence: a hundred days ago, by people who have staff ids."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.evidence.releases import CARD
from pneumoserve.ids import time_text, uuid7
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.records import (
    Acceptance,
    AcceptanceApproval,
    Adjudication,
    AlertEvent,
    Baseline,
    CriterionResult,
    DriftWindow,
    GateResult,
    Incident,
    LimitResult,
    MetricsLook,
    ReleaseResume,
    ReleaseStop,
    RolloutEvent,
    SiteUse,
    View,
    Withdrawal,
    append,
)
from pneumoserve.release.card import model_card
from pneumoserve.release.schema import RunFacts
from pneumoserve.release.verify import MANIFEST, SIGNATURE
from pneumoserve.signing import add_signature
from pneumoserve.store import Store
from tests.support.entries import KEY, refusal
from tests.support.metrics import DAY, read_ward
from tests.support.reviews import Ward, answer, case_of

SITE = {
    "site": "hospital-a",
    "owner": "Dr A. Owner",
    "role": "head of paediatric radiology",
    "contact": "radiology desk, 4711",
    "governance": "imaging AI group, meets monthly",
    "purpose": "a second look at chest X-rays of the emergency ward",
    "population": "children of 1 to 5 years",
    "limits": "not on newborns; these are read without it",
}
# What somebody wrote about a study, which is nobody else's business.
SECRET = "Zq-Mustermann wrote this"
OTHER = "fedcba987654"


@dataclass(frozen=True)
class Approvers:
    """Two people who approve an acceptance, each with a key."""

    first: Ed25519PrivateKey
    second: Ed25519PrivateKey


def fill(ward: Ward, approvers: Approvers) -> str:
    """A ward whose studies were read, and all else that a site puts on record; the release that this is said of."""
    release = put_release(ward.store, approvers.first)
    read_ward(ward, capacity=500)
    now = time_text(DAY)
    run = Acceptance(
        time=now, release=release, acceptance_id=uuid7(), site="hospital-a", plan="a" * 64, labels="b" * 64,
        report="c" * 64, look=1, outcome="accepted", sick_patients=300, well_patients=300,
        criteria=(CriterionResult(figure="sensitivity", limit=0.95, rate=0.98, bound=0.96, patients=300, shown=True),),
    )  # fmt: skip
    signed = [add_signature(canonical_json(run), key).decode() for key in (approvers.first, approvers.second)]
    approvals = [
        AcceptanceApproval(time=now, release=release, acceptance_id=run.acceptance_id, signature=each)
        for each in signed
    ]
    append(ward.store, KEY, [run, *approvals], "acceptance")
    gate = GateResult(gate="missedPneumonia", outcome="pass", sentence="Missed 1 of 300, at most 6 are allowed.")
    rollout = {"rollout_id": uuid7(), "release": release, "stable": OTHER, "time": now}
    append(
        ward.store, KEY,
        [
            RolloutEvent(event_id=uuid7(), number=1, what="gates", percent=0, verdicts=(gate,), **rollout),
            RolloutEvent(event_id=uuid7(), number=2, what="approved", percent=10, why="approved by lead-2", **rollout),
            RolloutEvent(event_id=uuid7(), number=3, what="promoted", percent=100, **rollout),
        ],
        "rollout",
    )  # fmt: skip
    append(ward.store, KEY, [SiteUse(time=now, release=release, by="lead-2", **SITE)], "site")
    study, label = case_of("normal 0"), uuid7()
    of = {"case_id": study, "time": now, "release": release}
    source = {"release": release, "time": now, "site": "hospital-a", "source": "DX", "first": now, "last": now}
    stop, acted = uuid7(), {"release": release, "time": now, "by": "lead-2", "signature": ""}
    append(
        ward.store, KEY,
        [
            Incident(**of, prediction_ids=(uuid7(),), incident_id=uuid7(), by="r.1", kind="missed_pneumonia",
                     comment=SECRET),
            Adjudication(**of, prediction_ids=(uuid7(),), adjudication_id=uuid7(), by="lead-2", finding="pneumonia",
                         label_ids=(label, uuid7()), comment=SECRET),
            Withdrawal(**of, prediction_ids=(uuid7(),), withdrawal_id=uuid7(), why="quality"),
            View(**of, view_id=uuid7(), by="dr.5", page="case", why=SECRET),
            AlertEvent(**of, event_id=uuid7(), alert_id=uuid7(), what="acknowledged", by="dr.5"),
            Baseline(**source, baseline_id=uuid7(), studies=1000, by="lead-2", why="four quiet weeks"),
            DriftWindow(**source, drift_id=uuid7(), baseline_id=uuid7(), studies=200, scores_p=0.0001, images_p=0.2,
                        referrals_p=0.5, cause="case_mix"),
            MetricsLook(release=release, time=now, look_id=uuid7(), plan="d" * 64, look=1, first_day="2026-01-01",
                        before="2026-02-01", level=0.01, studies=900, readings=80,
                        results=(LimitResult(figure="referral_rate", limit=0.2, value=None, bound=None,
                                             passed=False),)),
            ReleaseStop(**acted, stop_id=stop, why="an alarm of drift"),
            ReleaseResume(**acted, resume_id=uuid7(), stop_ids=(stop,), why="the detector plate was changed"),
        ],
        "review",
    )  # fmt: skip
    refused = refusal(answer(None, "normal", DAY).prediction_id)
    ward.put(refused, answer("late", "normal", DAY + timedelta(hours=9), release=release))
    # Days so long ago are not looked at again.
    ward.database.rebuild(ward.reader)
    return release


def put_release(store: Store, *keys: Ed25519PrivateKey) -> str:
    """A release in the store, as far as evidence looks at it, signed by these; its id."""
    card = model_card(RunFacts.model_validate_json((REFERENCE_RUN / "run.json").read_bytes())).encode()
    stated = {"schema": "pneumoserve.release/3", "files": {CARD: digest_of(card)}}
    manifest = canonical_json({**json.loads((REFERENCE_RUN / "run.json").read_bytes()), **stated})
    signature = b""
    for key in keys:
        signature = add_signature(manifest, key, signature)
    release = digest_of(manifest)[:12]
    for name, data in ((MANIFEST, manifest), (SIGNATURE, signature), (CARD, card)):
        store.put(f"releases/{release}/{name}", data, "application/octet-stream")
    return release
