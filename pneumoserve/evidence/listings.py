"""Which kinds of records are listed one by one, in which part, and how.

A new kind is one entry of `LISTINGS`. What people wrote about a study is left out: it may say more than a hash does.
Whoever has the right to read it finds the record by its reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from pneumoserve.records import (
    Acceptance,
    AcceptanceApproval,
    Adjudication,
    Baseline,
    DriftWindow,
    Incident,
    MetricsLook,
    ReleaseResume,
    ReleaseStop,
    RolloutEvent,
    SamplePlan,
    SiteUse,
    View,
    Withdrawal,
)
from pneumoserve.review import study_number
from pneumoserve.signing import stated_signers


@dataclass(frozen=True)
class Listing:
    """A kind of records as a table of a part.

    `head` and `row` leave out time, release and reference, which each has. `standing`: what was put on record before
    the period still holds in it. `wanted`: of a kind that is not listed whole, which ones are.
    """

    form: type[BaseModel]
    part: str
    title: str
    empty: str
    head: tuple[str, ...]
    row: Callable[[Any], tuple[str, ...]]
    standing: bool = False
    wanted: Callable[[Any], bool] = lambda _: True


def _describe_criteria(run: Acceptance) -> str:
    return "; ".join(
        f"{each.figure}: {each.rate:g}, bound {each.bound:g}, limit {each.limit:g}" for each in run.criteria
    )


def _describe_limits(look: MetricsLook) -> str:
    return "; ".join(
        f"{each.figure}: {'too few readings' if each.bound is None else f'bound {each.bound:.4g}'}, "
        f"limit {each.limit:g}{', passed' if each.passed else ''}"
        for each in look.results
    )


def _describe_gates(event: RolloutEvent) -> str:
    return "; ".join(f"{each.gate}: {each.outcome}. {each.sentence}" for each in event.verdicts) or "-"


def _describe_source(entry: Baseline | DriftWindow) -> tuple[str, ...]:
    source = f"{entry.site or 'callers without a name'}, {entry.source}"
    return source, str(entry.studies), entry.first[:10], entry.last[:10]


LISTINGS: Final = (
    Listing(
        SiteUse, "inventory", "Who answers for the use at the site; the last row of a site and a release counts",
        "No clinical owner is on record; put one there with `pneumoserve evidence site`.",
        ("site", "clinical owner", "contact", "decided by", "purpose", "patients", "limits", "stated by"),
        lambda use: (
            use.site, f"{use.owner}, {use.role}", use.contact, use.governance, use.purpose, use.population, use.limits,
            use.by,
        ),
        standing=True,
    ),
    Listing(
        Acceptance, "approvals", "Acceptances at the site",
        "No acceptance is on record: no release was judged on the site's own images with `pneumoserve accept`.",
        ("site", "outcome", "look", "patients: sick, well", "criteria", "report SHA-256"),
        lambda run: (
            run.site, run.outcome, str(run.look), f"{run.sick_patients}, {run.well_patients}", _describe_criteria(run),
            run.report,
        ),
        standing=True,
    ),
    Listing(
        AcceptanceApproval, "approvals", "Signatures under acceptances", "Nobody has approved an acceptance.",
        ("acceptance", "keys that signed, as stated"),
        lambda each: (each.acceptance_id, " and ".join(stated_signers(each.signature.encode())) or "-"),
        standing=True,
    ),
    Listing(
        RolloutEvent, "rollouts", "Steps of rollouts", "No rollout is on record in this period.",
        ("beside", "rollout", "step", "share", "gates", "why"),
        lambda event: (
            event.stable, event.rollout_id, event.what.replace("_", " "), f"{event.percent} %", _describe_gates(event),
            event.why or "-",
        ),
    ),
    Listing(
        SamplePlan, "metrics", "Plans of the random check",
        "No plan of a random check is on record: confident answers are not read, so that misses stay unseen.",
        ("from day", "studies a day", "probability of a draw"),
        lambda plan: (
            plan.first_day, f"{plan.capacity:g}",
            "; ".join(f"{name}: {share:.3g}" for name, share in sorted(plan.probabilities.items())),
        ),
        standing=True,
    ),
    Listing(
        MetricsLook, "metrics", "Looks that a plan of stop rules asked for",
        "No plan looked at the metrics in this period.",
        ("site", "look", "from", "to before", "studies, read", "limits", "plan SHA-256"),
        lambda each: (
            each.site or "all", str(each.look), each.first_day, each.before, f"{each.studies}, {each.readings}",
            _describe_limits(each), each.plan,
        ),
    ),
    Listing(
        Baseline, "drift", "Baselines", "No baseline is on record; `pneumoserve drift --renew` chooses one.",
        ("source", "studies", "from", "to", "by", "why"),
        lambda each: (*_describe_source(each), each.by, each.why),
        standing=True,
    ),
    Listing(
        DriftWindow, "drift", "Alarms", "No alarm is on record in this period.",
        ("source", "studies", "from", "to", "p of scores, images, referrals", "explained by"),
        lambda each: (
            *_describe_source(each), f"{each.scores_p:.2g}, {each.images_p:.2g}, {each.referrals_p:.2g}",
            each.cause.replace("_", " "),
        ),
        wanted=lambda each: each.cause is not None,
    ),
    Listing(
        ReleaseStop, "drift", "Stops", "No release was stopped.", ("stop", "by", "why"),
        lambda each: (each.stop_id, each.by, each.why),
        standing=True,
    ),
    Listing(
        ReleaseResume, "drift", "Releases that were resumed", "No release was resumed.", ("stops", "by", "why"),
        lambda each: (" and ".join(each.stop_ids), each.by, each.why),
        standing=True,
    ),
    Listing(
        Incident, "incidents", "Incidents", "No incident is on record in this period.",
        ("study", "kind", "by"),
        lambda each: (
            "-" if each.case_id is None else study_number(each.case_id), each.kind.replace("_", " "), each.by,
        ),
    ),
    Listing(
        Adjudication, "incidents", "Decisions where readers differ", "No reading had to be decided in this period.",
        ("study", "finding", "by"),
        lambda each: (study_number(each.case_id), each.finding or "cannot tell", each.by),
    ),
    Listing(
        Withdrawal, "incidents", "Answers that were withdrawn, since their images were rejected",
        "No answer was withdrawn in this period.", ("study", "images", "why"),
        lambda each: (study_number(each.case_id), str(len(each.prediction_ids)), each.why.replace("_", " ")),
    ),
    Listing(
        View, "access", "Break-glass: pages that were opened without the right to, for a stated reason",
        "Nobody opened a study without the right to.",
        ("study", "page", "by"),
        lambda each: (study_number(each.case_id), each.page, each.by),
        wanted=lambda view: bool(view.why),
    ),
)  # fmt: skip
_OF_FORM: Final = {listing.form: listing for listing in LISTINGS}


def find_listing(entry: BaseModel) -> Listing | None:
    """How an entry is listed; None where its kind is not, or not this one of them."""
    listing = _OF_FORM.get(type(entry))
    return listing if listing is not None and listing.wanted(entry) else None


def state_entry(entry: BaseModel) -> dict[str, Any]:
    """An entry for machines: all fields, but of one about a study nothing that a person wrote."""
    free = {"comment", "why"} if "case_id" in type(entry).model_fields else set()
    return entry.model_dump(mode="json", by_alias=True, exclude=free)
