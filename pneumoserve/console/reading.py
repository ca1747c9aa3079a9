"""Readers: the next study, its images, their verdict. Nothing here knows what the model answered."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response

from pneumoserve.console.access import person_of
from pneumoserve.console.images import load
from pneumoserve.console.pages import go, sentence_of, show, status_of
from pneumoserve.console.services import Services
from pneumoserve.console.session import may_see, text_of
from pneumoserve.records import LONGEST_COMMENT
from pneumoserve.review import Case, ClaimError, Image, ReviewError, Study, Verdict
from pneumoserve.store import StoreError

router = APIRouter()
# What the form has before anything is typed.
_EMPTY: Final = {"finding": "", "certainty": "", "type": "", "comment": "", "no_result": ""}
_NOT_CLAIMED: Final = "You have not claimed this study, or your time for it ran out; claim it again, or take the next."


@router.post("/studies/next")
def take_next_study(request: Request) -> Response:
    """Claim what is due first, and open it."""
    services: Services = request.app.state.services
    study = services.room.next_study(person_of(request).name)
    return go(request, "/?empty=1" if study is None else f"/studies/{study.case_id}/read")


@router.post("/studies/{case_id}/claim")
def claim_study(request: Request, case_id: str) -> Response:
    """Claim a study again whose time ran out; what was typed stays."""
    services: Services = request.app.state.services
    study = services.room.claim(case_id, person_of(request).name)
    if "hx-request" in request.headers:
        return show(request, "part_claimed.html", until=study.until)
    return _show(request, case_id, study, _read_form(request))


@router.post("/studies/{case_id}/give-back")
def give_study_back(request: Request, case_id: str) -> Response:
    """Let somebody else read it."""
    services: Services = request.app.state.services
    services.room.release(case_id, person_of(request).name)
    return go(request, "/")


@router.get("/studies/{case_id}/read")
def show_study(request: Request, case_id: str) -> Response:
    """The images of a claimed study, and the form for the verdict."""
    services: Services = request.app.state.services
    name = person_of(request).name
    study = services.room.find_held_study(case_id, name)
    if study is None:
        raise ClaimError(_NOT_CLAIMED)
    services.room.record_view(case_id, name, "images")
    return _show(request, case_id, study, _EMPTY)


@router.post("/studies/{case_id}/read")
def save_reading(request: Request, case_id: str) -> Response:
    """Put the verdict on record, once; then the answer may be seen."""
    services: Services = request.app.state.services
    name = person_of(request).name
    typed = _read_form(request)
    try:
        services.room.save_reading(case_id, name, verdict_of(typed))
    except (ReviewError, StoreError) as error:
        if "hx-request" in request.headers:
            # The page stays as it is, with all that was typed.
            shown = {"case_id": case_id, "sentence": sentence_of(error), "again": isinstance(error, ClaimError)}
            return show(request, "part_not_saved.html", status_of(error), **shown)
        return _show(request, case_id, _find_held(services, case_id, name), typed, error)
    return go(request, f"/studies/{case_id}")


def _read_form(request: Request) -> dict[str, str]:
    return {field: text_of(request, field) for field in _EMPTY}


def _find_held(services: Services, case_id: str, name: str) -> Study | None:
    """The study, if the reader still has it and the database still answers."""
    try:
        return services.room.find_held_study(case_id, name)
    except ReviewError:
        return None


def _show(
    request: Request,
    case_id: str,
    study: Study | None,
    typed: dict[str, str],
    error: ReviewError | StoreError | None = None,
) -> Response:
    shown: dict[str, Any] = {
        "case_id": case_id,
        "images": () if study is None else study.images,
        "until": None if study is None else study.until,
        "typed": typed,
        "longest": LONGEST_COMMENT,
        "problem": None if error is None else sentence_of(error),
    }
    return show(request, "read.html", 200 if error is None else status_of(error), **shown)


def verdict_of(typed: dict[str, str]) -> Verdict:
    """What a form states. Whether it can be a verdict is for the reading room to say."""
    stated: dict[str, Any] = {
        "finding": typed["finding"] or None,
        "certainty": typed["certainty"],
        "pneumonia_type": typed["type"] or None,
        "comment": typed["comment"],
        "no_result_seen": typed["no_result"] == "yes",
    }
    return Verdict(**stated)


@router.get("/studies/{case_id}/images/{number}")
def show_image(request: Request, case_id: str, number: int) -> Response:
    """The pixels of one image of a study, the first is 1; how to read and show them is in `Image-Detail`, as JSON."""
    services: Services = request.app.state.services
    images = _visible(request, services, case_id)
    if not 1 <= number <= len(images):
        raise HTTPException(404)
    image = load(images[number - 1], services.store, services.decoders)
    detail = {"bits": image.bits, "width": image.width, "height": image.height, "low": image.low, "high": image.high}
    return Response(image.pixels, headers={"Image-Detail": json.dumps(detail)}, media_type="application/octet-stream")


def _visible(request: Request, services: Services, case_id: str) -> tuple[Image, ...]:
    """The images of a study that this person may see: claimed, read, to be decided, or for a stated reason."""
    person = person_of(request)
    study = services.room.find_held_study(case_id, person.name) if "reader" in person.roles else None
    if study is not None:
        return study.images
    case = services.cases.load(case_id)
    if may_see_images(request, case):
        return case.images
    raise ClaimError(_NOT_CLAIMED)


def may_see_images(request: Request, case: Case) -> bool:
    """Whether a person may see a study's images without having claimed it."""
    person = person_of(request)
    return case.is_read_by(person.name) or "lead" in person.roles or may_see(request, case.case_id)
