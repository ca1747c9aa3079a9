"""Leads and auditors: one study with all that is on record, decisions between readers, counts, incidents."""

from __future__ import annotations

import re
from typing import Any, Final, get_args

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.responses import JSONResponse

from pneumoserve.console.access import person_of
from pneumoserve.console.heat_maps import HeatMapError
from pneumoserve.console.names import names_of
from pneumoserve.console.pages import go, sentence_of, show, show_problem, status_of
from pneumoserve.console.reading import may_see_images, verdict_of
from pneumoserve.console.services import Services
from pneumoserve.console.session import let_see, may_see, text_of
from pneumoserve.lineage import trace
from pneumoserve.lineage.svg import draw
from pneumoserve.names import TYPER
from pneumoserve.records import (
    LONGEST_COMMENT,
    Adjudication,
    Alert,
    AlertEvent,
    Flag,
    Incident,
    IncidentKind,
    Label,
    Page,
    Record,
    View,
    Withdrawal,
    find_record,
)
from pneumoserve.review import Case, ClaimError, ReviewError, VerdictError, find_incidents, measure_agreement
from pneumoserve.store import StoreError

router = APIRouter()
_LONGEST_REASON: Final = 200
_PLAIN: Final = re.compile(r"[^\x00-\x1f\x7f]*")


@router.get("/")
def show_home(request: Request, empty: str = "") -> Response:
    """Where each role begins."""
    services: Services = request.app.state.services
    counts = services.cases.count()
    return show(request, "home.html", empty=bool(empty), faults=services.faults(counts), counts=counts)


# --- one study


@router.post("/studies/find")
def find_study(request: Request) -> Response:
    """Go to the study whose number or id somebody said."""
    services: Services = request.app.state.services
    return go(request, f"/studies/{services.cases.find(text_of(request, 'study'))}")


@router.get("/studies/{case_id}")
def show_case(request: Request, case_id: str) -> Response:
    """The answer, and everything on record of a study."""
    services: Services = request.app.state.services
    case, page = _open(request, services, case_id)
    services.room.record_view(case_id, person_of(request).name, page)
    # To find a record, a day of the archive is listed: only a pneumonia has a pattern to show.
    numbers = range(1, len(case.images) + 1) if case.decision.finding == "pneumonia" else ()
    patterns = [_bacterial(_record(services, case, number)) for number in numbers]
    with_images = may_see_images(request, case)
    shown: dict[str, Any] = {
        "case": case,
        "patterns": patterns,
        "with_images": with_images,
        "names": names_of(services, case) if with_images else None,
        "prevalence": services.describe_prevalence(case),
        "labels": case.of(Label),
        "adjudications": case.of(Adjudication),
        "alerts": case.of(Alert),
        "events": case.of(AlertEvent),
        "incidents": case.of(Incident),
        "withdrawals": case.of(Withdrawal),
        "flags": case.of(Flag),
        "views": case.of(View),
    }
    return show(request, "case.html", **shown)


@router.get("/studies/{case_id}/records/{number}")
def show_record(request: Request, case_id: str, number: int) -> Response:
    """The record of one image, the first is 1."""
    services: Services = request.app.state.services
    case, _ = _open(request, services, case_id)
    record = _record(services, case, number)
    text = "" if record is None else record.model_dump_json(indent=2, by_alias=True)
    return show(request, "record.html", case=case, number=number, text=text)


@router.get("/studies/{case_id}/heat-maps/{number}")
def show_heat_map(request: Request, case_id: str, number: int) -> Response:
    """Where covering one image changes what the detector says of it, as JSON that the viewer draws over the image."""
    services: Services = request.app.state.services
    case, _ = _open(request, services, case_id)
    if not may_see_images(request, case):
        raise ClaimError("A heat map lies over its image, and the images of this study are not yours to see.")
    record = _record(services, case, number)
    if record is None:
        raise HeatMapError("There is no heat map: the archive has no record of this image that a trusted key signed.")
    heat_map = services.heat_maps.make(record)
    services.room.record_view(case_id, person_of(request).name, "heat_map")
    return JSONResponse(heat_map.to_json())


@router.get("/studies/{case_id}/lineage/{number}")
def show_lineage(request: Request, case_id: str, number: int) -> Response:
    """Where the answer of one image comes from, drawn."""
    services: Services = request.app.state.services
    case, _ = _open(request, services, case_id)
    record = _record(services, case, number)
    if record is None:
        raise HTTPException(404)
    picture = draw(trace(record, services.store, services.releases, services.trust))
    return Response(picture, media_type="image/svg+xml")


def _open(request: Request, services: Services, case_id: str) -> tuple[Case, Page]:
    """A study whose answer this person may know, and as which page that counts.

    Raises:
        ClaimError: they may not, or not yet.
        ReviewError: there is no such study.
    """
    person = person_of(request)
    case = services.cases.load(case_id)
    if may_see(request, case_id):
        return case, "case"
    if case.is_read_by(person.name):
        return case, "answer"
    if "lead" in person.roles and case.to_adjudicate:
        raise ClaimError("The readers of this study differ: decide first, without the model's answer.")
    if person.roles & {"lead", "auditor"}:
        return case, "case"
    if "reader" in person.roles:
        raise ClaimError("You see the answer of a study once your own reading of it is saved.")
    raise ClaimError("This study is not yours: open it by the link of its alert, or state there why you must see it.")


def _record(services: Services, case: Case, number: int) -> Record | None:
    """The record of an image; None where the archive no longer has it.

    Raises:
        HTTPException: 404, the study has no such image.
    """
    if not 1 <= number <= len(case.images):
        raise HTTPException(404)
    return find_record(services.reader, case.images[number - 1].prediction_id)


def _bacterial(record: Record | None) -> float | None:
    """How likely the bacterial pattern is by one image's record; None where the typer was not asked."""
    scores = [] if record is None else [use.probability for use in record.models if use.name == TYPER]
    return scores[0] if scores else None


@router.get("/studies/{case_id}/break-glass")
def ask_to_break_glass(request: Request, case_id: str) -> Response:
    """Ask for the reason of somebody who needs to see a study that is not theirs."""
    services: Services = request.app.state.services
    services.cases.load(case_id)
    return show(request, "break_glass.html", case_id=case_id, why="", longest=_LONGEST_REASON, problem=None)


@router.post("/studies/{case_id}/break-glass")
def break_glass(request: Request, case_id: str) -> Response:
    """Put the reason on record, then show the study for half an hour."""
    services: Services = request.app.state.services
    why = text_of(request, "why")
    if not 0 < len(why) <= _LONGEST_REASON or not _PLAIN.fullmatch(why):
        problem = f"State your reason in one line of up to {_LONGEST_REASON} characters, without naming the patient."
        shown = {"case_id": case_id, "why": why, "longest": _LONGEST_REASON, "problem": problem}
        return show(request, "break_glass.html", 422, **shown)
    services.room.record_view(case_id, person_of(request).name, "case", why)
    let_see(request, case_id)
    return go(request, f"/studies/{case_id}")


# --- decisions between readers


@router.get("/adjudications")
def list_adjudications(request: Request) -> Response:
    """The studies whose readers differ."""
    services: Services = request.app.state.services
    return show(request, "adjudications.html", case_ids=services.room.list_to_adjudicate())


@router.get("/adjudications/{case_id}")
def show_adjudication(request: Request, case_id: str) -> Response:
    """The images and what each reader said, without their names and without the model's answer."""
    services: Services = request.app.state.services
    case = _to_adjudicate(request, services, case_id)
    services.room.record_view(case_id, person_of(request).name, "images")
    return _show_adjudication(request, case, {"finding": "", "type": "", "comment": ""})


@router.post("/adjudications/{case_id}")
def adjudicate(request: Request, case_id: str) -> Response:
    """Put the lead's decision on record."""
    services: Services = request.app.state.services
    case = _to_adjudicate(request, services, case_id)
    typed = {field: text_of(request, field) for field in ("finding", "type", "comment")}
    try:
        if typed["finding"] not in {"normal", "pneumonia", "cannot_tell"}:
            raise VerdictError("Choose a finding, or say that nobody can tell.")
        known = typed["finding"] != "cannot_tell"
        stated = {**typed, "finding": typed["finding"] if known else "", "no_result": "yes"}
        verdict = verdict_of({**stated, "certainty": "sure" if known else "cannot_tell"})
        services.room.adjudicate(case_id, person_of(request).name, verdict)
    except (ReviewError, StoreError) as error:
        if "hx-request" in request.headers:
            return show_problem(request, status_of(error), sentence_of(error))
        return _show_adjudication(request, case, typed, error)
    return go(request, f"/studies/{case_id}")


def _to_adjudicate(request: Request, services: Services, case_id: str) -> Case:
    case = services.cases.load(case_id)
    if not case.to_adjudicate:
        raise ClaimError("No decision is asked for of this study; its readers agree, or it is decided.")
    if case.is_read_by(person_of(request).name):
        raise ClaimError("You are one of this study's readers, so another lead decides.")
    return case


def _show_adjudication(
    request: Request, case: Case, typed: dict[str, str], error: ReviewError | StoreError | None = None
) -> Response:
    services: Services = request.app.state.services
    shown: dict[str, Any] = {
        "case_id": case.case_id,
        "images": case.images,
        "names": names_of(services, case),
        "labels": case.of(Label),
        "typed": typed,
        "longest": LONGEST_COMMENT,
        "problem": None if error is None else sentence_of(error),
    }
    return show(request, "adjudicate.html", 200 if error is None else status_of(error), **shown)


# --- how it goes


@router.get("/overview")
def show_overview(request: Request) -> Response:
    """What waits, how long, and what comes of alerts."""
    services: Services = request.app.state.services
    return _show_counts(request, "overview.html", agreement=measure_agreement(services.database))


@router.get("/overview/numbers")
def show_numbers(request: Request) -> Response:
    """The same numbers alone, for a page that stays open."""
    return _show_counts(request, "part_numbers.html")


def _show_counts(request: Request, template: str, **more: Any) -> Response:
    services: Services = request.app.state.services
    counts = services.cases.count()
    return show(request, template, counts=counts, faults=services.faults(counts), now=services.now(), **more)


@router.get("/incidents")
def list_incidents(request: Request) -> Response:
    """What went wrong, for those who govern the service."""
    services: Services = request.app.state.services
    return show(request, "incidents.html", incidents=find_incidents(services.database))


@router.get("/incidents/new")
def ask_for_incident(request: Request, study: str = "") -> Response:
    """The form for something that went wrong."""
    return _show_incident(request, {"study": study, "kind": "", "comment": ""})


@router.get("/incidents/reported")
def confirm_incident(request: Request) -> Response:
    """Say that it is on record: who reports one need not be among those who see them all."""
    return show(request, "incident_saved.html")


@router.post("/incidents")
def report_incident(request: Request) -> Response:
    """Put an incident on record."""
    services: Services = request.app.state.services
    typed = {field: text_of(request, field) for field in ("study", "kind", "comment")}
    try:
        kind: IncidentKind | None = next((each for each in get_args(IncidentKind) if each == typed["kind"]), None)
        if kind is None:
            raise VerdictError("Choose what went wrong.")
        case_id = services.cases.find(typed["study"])
        services.cases.report_incident(case_id, person_of(request).name, kind, typed["comment"])
    except (ReviewError, StoreError) as error:
        if "hx-request" in request.headers:
            return show_problem(request, status_of(error), sentence_of(error))
        return _show_incident(request, typed, error)
    return go(request, "/incidents/reported")


def _show_incident(request: Request, typed: dict[str, str], error: ReviewError | StoreError | None = None) -> Response:
    shown: dict[str, Any] = {"typed": typed, "kinds": get_args(IncidentKind), "longest": LONGEST_COMMENT}
    problem = None if error is None else sentence_of(error)
    return show(request, "incident.html", 200 if error is None else status_of(error), problem=problem, **shown)
