"""What was found, subject by subject, in the order in which it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from pneumoserve.evidence.archive_reading import Placed, Reading, Written
from pneumoserve.evidence.contents import Part, Period, Table
from pneumoserve.evidence.listings import LISTINGS, Listing, state_entry
from pneumoserve.evidence.pictures import draw_days, draw_figures
from pneumoserve.evidence.releases import ReleaseFacts
from pneumoserve.ledger import VerificationReport
from pneumoserve.monitoring import (
    REFERENCE,
    Counted,
    Metrics,
    describe_counts,
    describe_effort,
    describe_figures,
    describe_release,
    describe_tested,
)
from pneumoserve.records import APPROVERS, Acceptance, AcceptanceApproval, approvers_of
from pneumoserve.review import CLOSED_AFTER
from pneumoserve.signing import Trust

_HOUR: Final = timedelta(hours=1)
# A front that has nothing to do writes once an hour: two whole hours without a line are no chance.
_SILENT: Final = 2
_FIGURES: Final = (
    "figure", "what it says", "value (95 % interval)", "all unjudged sick or well", "naive", "always normal",
)  # fmt: skip
_IN_RECORD: Final = "What people wrote about it is in the record: `pneumoserve archive show REFERENCE`."


@dataclass(frozen=True)
class Trusts:
    """The keys that are trusted here: of people for releases, of the archive's writers, of its sealers."""

    approvers: Trust
    writers: Trust
    sealers: Trust


@dataclass(frozen=True)
class Found:
    """All that evidence is made of; nothing is measured where no study was answered in the period."""

    reading: Reading
    releases: Mapping[str, ReleaseFacts]
    measured: Sequence[tuple[Counted, Metrics]]
    verification: VerificationReport
    trusts: Trusts

    @property
    def period(self) -> Period:
        """Of which days it speaks."""
        return self.reading.period


def build_parts(found: Found) -> list[Part]:
    """Every part, those without anything on record too: that nothing is there is evidence."""
    return [_with_listings(build(found), found) for build in _PARTS]


def _with_listings(part: Part, found: Found) -> Part:
    """A part with the tables of its kinds of records, each row with its reference."""
    tables, data = list(part.tables), dict(part.data)
    for listing in LISTINGS:
        if listing.part == part.name:
            placed = found.reading.listed.get(listing.form, [])
            tables.append(_list(listing, placed))
            data[_name_of(listing)] = [
                {"record": asdict(each.place), "entry": state_entry(each.entry)} for each in placed
            ]
    return Part(part.name, part.title, part.asks, part.lines, tables, part.pictures, data)


def _name_of(listing: Listing) -> str:
    return str(listing.form.model_fields["schema_"].default).removeprefix("pneumoserve.").partition("/")[0]


def _list(listing: Listing, placed: Sequence[Placed]) -> Table:
    rows = [
        (f"{entry.time[:10]} {entry.time[11:19]}", entry.release, *listing.row(entry), place.text)
        for entry, place, _ in placed
    ]
    return Table(listing.title, ("time", "release", *listing.head, "record"), rows, listing.empty)


# --- releases


def _build_inventory(found: Found) -> Part:
    uses = {release: use for release, use in sorted(found.reading.uses.items()) if use.first is not None}
    lines = [f"Releases that have answered up to {found.period.until} (UTC): {len(uses)}."]
    pictures = []
    if days := sorted(day for use in uses.values() for day in use.days):
        pictures.append(draw_days({name: use.days for name, use in uses.items() if use.days}, days[0], days[-1]))
    rows = [
        (
            release, use.digest[:16], (use.first or "-")[:10], (use.last or "-")[:10], *(
                f"{use.counts[name]:,}" for name in ("answers", "referred", "in shadow")
            ), ", ".join(f"{caller}: {count:,}" for caller, count in sorted(use.callers.items())) or "-",
        )
        for release, use in uses.items()
    ]  # fmt: skip
    stated = [_state_release(found.releases[release]) for release in uses]
    limits = [(each.id, point) for each in (found.releases[release] for release in uses) for point in each.limits]
    tables = [
        Table(
            "Releases in use",
            ("release", "digest", "first answer", "last answer", "answers", "referred", "in shadow", "callers"),
            rows, "No release has answered.",
        ),
        Table(
            "What they are for", ("release", "intended use", "patients", "assumed prevalence", "policy"),
            stated, "No release has answered.",
        ),
        Table("Limits that their model cards state", ("release", "limit"), limits, "No model card was found."),
    ]  # fmt: skip
    data = {
        "releases": [
            {
                "release": release, "digest": use.digest, "first_answer": use.first, "last_answer": use.last,
                "counts": dict(sorted(use.counts.items())), "reasons": dict(sorted(use.reasons.items())),
                "callers": dict(sorted(use.callers.items())), "limits": found.releases[release].limits,
                "stated": _describe_statement(found.releases[release]),
            }
            for release, use in uses.items()
        ],
        "counted_from": _sources(found, "calls"),
    }  # fmt: skip
    asks = "Which releases answer here, since when, what for, for whom, within which limits, and who answers for it?"
    return Part("inventory", "Inventory", asks, lines, tables, pictures, data)


def _state_release(facts: ReleaseFacts) -> tuple[str, ...]:
    manifest = facts.manifest
    if manifest is None:
        return facts.id, "its release.json was not found here", "-", "-", "-"
    population = manifest.policy.population
    years = f"from {population.min_age_years:g} to below {population.below_age_years:g} years"
    age = "is referred" if population.unknown_dicom_age == "refer" else "is accepted"
    fitted = "" if manifest.recalibration is None else " Refitted to labelled images of a site."
    return (
        facts.id, manifest.intended_use, f"{years}; a DICOM object without an age {age}",
        f"{manifest.policy.assumed_prevalence:.0%}", manifest.policy.why + fitted,
    )  # fmt: skip


def _describe_statement(facts: ReleaseFacts) -> dict[str, Any] | None:
    """The same for machines; all else stands in the release.json beside it."""
    if facts.manifest is None:
        return None
    stated = facts.manifest.model_dump(mode="json", include={"intended_use", "type_notice"})
    return stated | facts.manifest.policy.model_dump(mode="json", include={"population", "assumed_prevalence"})


def _build_approvals(found: Found) -> Part:
    rows, data = [], []
    for facts in found.releases.values():
        signed = [
            each.key_id
            + ("" if each.expires is None else f" (until {each.expires})")
            + (", since revoked" if each.key_id in found.trusts.approvers.revoked_keys else "")
            for each in facts.signatures
        ]
        unknown = [key for key in facts.stated if key not in found.trusts.approvers.keys]
        rows.append(
            (
                facts.id, " and ".join(signed) or "nobody who is trusted here", " and ".join(unknown) or "-",
                "yes" if facts.revoked else "no",
            )
        )  # fmt: skip
        data.append({"release": facts.id, "signed_by": signed, "unknown": unknown, "revoked": facts.revoked})
    accepted = list(_list_accepted(found))
    tables = [
        Table(
            "Who signed the releases", ("release", "signed by keys", "signed by keys that are not trusted", "revoked"),
            rows, "No release is named in the archive.",
        ),
        Table(
            "Acceptances that count", ("release", "site", "acceptance", "approved by keys", f"{APPROVERS} people"),
            [
                (
                    run.release, run.site, run.acceptance_id, " and ".join(names) or "nobody",
                    "yes" if len(names) >= APPROVERS else f"no, {APPROVERS - len(names)} missing",
                )
                for run, names in accepted
            ],
            "No release is accepted at this site.",
        ),
    ]  # fmt: skip
    need = found.trusts.approvers.signatures
    lines = [
        f"A release starts here if {need} trusted {'key' if need == 1 else 'keys'} signed it. "
        "Who holds which key is known to the hospital: a key's id is in the table of keys."
    ]
    asks = "Who approved each release, and what did its trial on the site's own images show?"
    approved = [{"acceptance_id": run.acceptance_id, "release": run.release, "by": names} for run, names in accepted]
    data_of = {"releases": data, "accepted": approved, "needed": APPROVERS}
    return Part("approvals", "Approvals and acceptance", asks, lines, tables, data=data_of)


def _list_accepted(found: Found) -> Iterator[tuple[Acceptance, list[str]]]:
    """Runs that accepted a release, each with the trusted keys that approved it."""
    approvals = [each.entry for each in found.reading.listed.get(AcceptanceApproval, [])]
    for run in (each.entry for each in found.reading.listed.get(Acceptance, [])):
        if run.outcome == "accepted":
            mine = [each for each in approvals if each.acceptance_id == run.acceptance_id]
            yield run, approvers_of(run, mine, found.trusts.approvers)


def _build_rollouts(_: Found) -> Part:
    lines = [
        "A step is taken by the program that runs the rollout, by its plan; where a person approved or stopped it, the "
        "record says who."
    ]
    asks = "How did a release come to answer, step by step, by which gates, and who let it?"
    return Part("rollouts", "Rollouts", asks, lines)


# --- figures


def _build_metrics(found: Found) -> Part:
    lines = [REFERENCE if found.measured else "No study was answered in this period, so that there are no figures."]
    tables, pictures = [], []
    for release, metrics in found.measured:
        counted = release.tally
        said = describe_counts(counted, release.open, CLOSED_AFTER.days, release.stopped)
        if counted.studies:
            said += [*describe_effort(counted, release.effort), *describe_tested(release.tested)]
        lines.append(f"Release {release.release}: {'; '.join(said)}")
        if not counted.studies:
            continue
        rows = [
            (row.name, row.sentence, row.shown, row.bounds or "-", row.naive, row.always_normal)
            for row in describe_figures(metrics.observed)
        ]
        title = f"Figures of release {release.release}"
        tables.append(Table(title, _FIGURES, rows))
        if picture := draw_figures(metrics.observed, title):
            pictures.append(picture)
    data = {"releases": [describe_release(*each, CLOSED_AFTER.days) for each in found.measured]}
    asks = "How often is a release right among studies like these, at which prevalence, and how sure is that?"
    return Part("metrics", "Metrics", asks, lines, tables, pictures, {**data, "counted_from": _sources(found, "calls")})


def _build_drift(_: Found) -> Part:
    asks = "Do studies still look like those that a person chose as normal, and what was done where they do not?"
    lines = ["While a release is stopped, every answer of it is referred to a human. A person alone resumes it."]
    return Part("drift", "Drift and stop rules", asks, lines)


# --- people


def _build_incidents(found: Found) -> Part:
    alerts = found.reading.alerts
    table = Table("Alerts", ("what", "how many"), _count_rows(alerts), "No alert is on record in this period.")
    data = {"alerts": dict(sorted(alerts.items())), "counted_from": _sources(found, "alerts")}
    asks = "What went wrong with a study, who was told of studies in time, and what did readers not agree on?"
    return Part("incidents", "Incidents, alerts and reviews", asks, [_IN_RECORD], [table], data=data)


def _build_access(found: Found) -> Part:
    acts = {person: dict(sorted(done.items())) for person, done in sorted(found.reading.acts.items())}
    rows = [(person, act, f"{count:,}") for person, done in acts.items() for act, count in done.items()]
    lines = [
        "People are named by the staff id that they signed in with. A role is not on record with an act: what somebody "
        "did says in which one.",
        f"Studies are keyed hashes: no patient is named here. {_IN_RECORD}",
    ]
    table = Table("Who did what", ("who", "what", "how often"), rows, "Nobody has opened or read a study.")
    asks = "Who saw which pages of studies, who read them, and who opened one without the right to?"
    data = {"people": acts, "counted_from": _sources(found, "access")}
    return Part("access", "Who saw what", asks, lines, [table], data=data)


# --- the archive and the service


def _build_errors(found: Found) -> Part:
    rows = [
        (day, kind, str(status), f"{count:,}") for (day, kind, status), count in sorted(found.reading.errors.items())
    ]
    silent = list(_find_silence(found.reading.hours))
    lines = [
        "A refusal is a call at fault (4xx), a failure one that the service could not answer (5xx). Calls that the "
        "gateway or the network ended are not on record.",
        "A front that has nothing to do still writes once an hour. So a longer silence is a time without any front.",
    ]
    tables = [
        Table("Calls without an answer", ("day", "kind", "status", "how many"), rows, "Every call had an answer."),
        Table("Times without any front", ("from", "to", "whole hours"), silent, "There is no such time."),
    ]
    data = {
        "errors": [{"day": day, "kind": kind, "status": int(status), "count": count}
                   for (day, kind, status), count in sorted(found.reading.errors.items())],
        "silent": [{"from": begin, "to": end, "hours": int(hours)} for begin, end, hours in silent],
        "counted_from": _sources(found, "calls"),
    }  # fmt: skip
    asks = "Which calls got no answer, and when was the service away?"
    return Part("errors", "Errors and down times", asks, lines, tables, data=data)


def _find_silence(hours: set[str]) -> Iterator[tuple[str, str, str]]:
    """From when to when no front wrote, between two hours in which one did."""
    moments = [datetime.fromisoformat(f"{hour}:00") for hour in sorted(hours)]
    for before, after in pairwise(moments):
        silent = round((after - before) / _HOUR) - 1
        if silent >= _SILENT:
            yield f"{before + _HOUR:%Y-%m-%d %H:%M}", f"{after:%Y-%m-%d %H:%M}", str(silent)


def _build_verification(found: Found) -> Part:
    report = found.verification
    summary = {name: value for name, value in asdict(report.summary).items() if name != "seconds"}
    stamped = (
        f"{summary['stamps']} seals bear a time stamp of a trusted authority, the last one is seal "
        f"{summary['last_stamped']}."
        if summary["stamps"]
        else "No time stamp of an authority was checked; `--time-stamp-trust` names those that count."
    )
    faults = len(report.findings)
    outcome = f"objects that are not as they were written: {faults}" if faults else "it is as it was written"
    lines = [f"The whole archive was verified, whatever the period; {outcome}.", stamped]
    if summary["last_seal"]:
        lines.append(
            f"The last seal is {summary['last_seal']}:{summary['last_seal_hash']} of {summary['last_seal_time']}. Who "
            "kept an earlier one elsewhere checks it with `pneumoserve archive verify --last-seal`."
        )
    else:
        lines.append(
            "Nothing is sealed yet: until `pneumoserve archive seal` ran, a removed end of a chain goes unseen."
        )
    unread = found.reading.unread
    if unread:
        lines.append(
            f"{sum(unread.values())} entries are of forms that this version does not read: {', '.join(unread)}."
        )
    tables = [
        Table(
            "What was verified", ("what", "how many"),
            [(name.replace("_", " "), "-" if value is None else str(value)) for name, value in summary.items()],
        ),
        Table(
            "Faults", ("what", "where", "why", "sealed"),
            [(each.kind, each.key, each.sentence, "yes" if each.sealed else "no") for each in report.findings],
            "No fault was found.",
        ),
        Table(
            "Faults that somebody looked into", ("where", "why it counts no more", "since", "by key"),
            [(each.finding.key, each.reason, each.time, each.key_id) for each in report.acknowledged],
            "None.",
        ),
        Table("Writers that came late", ("writer", "why"), sorted(report.late.items()), "None."),
    ]  # fmt: skip
    data = {
        "summary": summary,
        "findings": [asdict(each) for each in report.findings],
        "acknowledged": [asdict(each) for each in report.acknowledged],
        "late": report.late,
        "unread_forms": dict(sorted(unread.items())),
    }
    asks = "Is all that this evidence rests on as it was written?"
    return Part("verification", "Verification of the archive", asks, lines, tables, data=data)


def _build_keys(found: Found) -> Part:
    rows, data = [], []
    for whose, trust in (
        ("approvers", found.trusts.approvers),
        ("writers", found.trusts.writers),
        ("sealers", found.trusts.sealers),
    ):
        for key in sorted(trust.keys):
            use = found.reading.keys.get(key)
            state = "revoked" if key in trust.revoked_keys else "trusted"
            segments = "-" if use is None else f"{use.segments:,} segments, {use.first[:10]} to {use.last[:10]}"
            rows.append((key, whose, state, segments))
            data.append({"key": key, "whose": whose, "state": state, "segments": None if use is None else asdict(use)})
    lines = [
        "Whose word counts where this was made: approvers sign releases and acceptances, writers the records, sealers "
        "how far all had come. A key's id is the beginning of the SHA-256 of its public half."
    ]
    table = Table("Keys", ("key", "whose", "state", "signed"), rows, "No key is trusted.")
    asks = "Whose signatures does all this rest on?"
    return Part("keys", "Keys and signers", asks, lines, [table], data={"keys": data})


def _count_rows(counts: Counter[str]) -> list[tuple[str, str]]:
    return [(name, f"{count:,}") for name, count in sorted(counts.items())]


def _sources(found: Found, kind: str) -> list[dict[str, Any]]:
    """Which segments of which writers a count is made of; `pneumoserve archive verify` checks each of them."""
    written: dict[str, Written] = found.reading.sources.get(kind, {})
    return [{"writer": writer, **asdict(each)} for writer, each in sorted(written.items())]


_PARTS: Final[tuple[Callable[[Found], Part], ...]] = (
    _build_inventory,
    _build_approvals,
    _build_rollouts,
    _build_metrics,
    _build_drift,
    _build_incidents,
    _build_access,
    _build_errors,
    _build_verification,
    _build_keys,
)
