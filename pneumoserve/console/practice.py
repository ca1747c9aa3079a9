"""Practitioners: an alert, what it says and advises, and what they do about it. They are no readers of that study."""

from __future__ import annotations

from typing import Any, Final, get_args

from fastapi import APIRouter, HTTPException, Request, Response

from pneumoserve.alerts import LinkError
from pneumoserve.console.access import person_of
from pneumoserve.console.names import names_of
from pneumoserve.console.pages import go, show
from pneumoserve.console.services import Services
from pneumoserve.console.session import text_of
from pneumoserve.records import AlertEvent, Ordered
from pneumoserve.review import OpenAlert, VerdictError

router = APIRouter()
_NO_LINK: Final = "This link leads to no alert; open it from the message again, or ask whoever runs the console."


@router.get("/alerts")
def list_alerts(request: Request) -> Response:
    """The alerts that this person answered, until they are closed; links in messages end after two weeks."""
    services: Services = request.app.state.services
    found = services.desk.list_answered_by(person_of(request).name)
    links = {alert.alert_id: services.links.make(alert.alert_id, services.now()) for alert in found}
    return show(request, "alerts.html", alerts=found, links=links)


@router.get("/alerts/{link}")
def show_alert(request: Request, link: str) -> Response:
    """What a link leads to. Opening it changes nothing at the alert; without a name it tells nothing either."""
    services: Services = request.app.state.services
    alert = _find(services, link)
    if request.state.person is None:
        return show(request, "alert_unsigned.html", link=link, noted=False)
    name = person_of(request).name
    services.room.record_view(alert.case_id, name, "alert")
    case = services.cases.load(alert.case_id)
    events = [event for event in case.of(AlertEvent) if event.alert_id == alert.alert_id]
    closed = any(event.what == "closed" for event in events)
    shown: dict[str, Any] = {"link": link, "alert": alert, "case": case, "events": events, "closed": closed}
    shown |= {"names": names_of(services, case), "prevalence": services.describe_prevalence(case)}
    return show(request, "alert.html", orders=get_args(Ordered), **shown)


@router.post("/alerts/{link}/acknowledge")
def acknowledge_alert(request: Request, link: str) -> Response:
    """Take note: by name, or by nobody in particular, which ends no escalation of an uncertain finding."""
    services: Services = request.app.state.services
    alert = _find(services, link)
    person = request.state.person
    if person is not None:
        services.desk.acknowledge(alert.alert_id, person.name)
        return go(request, f"/alerts/{link}")
    # That nobody in particular took note is on record once, however often a link is used.
    if alert.acknowledged is None:
        services.desk.acknowledge(alert.alert_id, None)
    return show(request, "alert_unsigned.html", link=link, noted=True)


@router.post("/alerts/{link}/order")
def order(request: Request, link: str) -> Response:
    """Put on record what the practitioner ordered. It is no label: nobody knows by it what the child had."""
    services: Services = request.app.state.services
    alert = _find(services, link)
    stated = text_of(request, "ordered")
    ordered: Ordered | None = next((each for each in get_args(Ordered) if each == stated), None)
    if ordered is None:
        raise VerdictError("Choose what you ordered: a blood test, an expert's opinion, or nothing.")
    services.desk.order(alert.alert_id, person_of(request).name, ordered)
    return go(request, f"/alerts/{link}")


def _find(services: Services, link: str) -> OpenAlert:
    try:
        alert_id = services.links.alert_of(link, services.now())
    except LinkError as error:
        raise HTTPException(404, str(error)) from None
    alert = services.cases.find_alert(alert_id)
    if alert is None:
        # Its message may be quicker than this console, which follows the archive every few seconds.
        services.follow()
        alert = services.cases.find_alert(alert_id)
    if alert is None:
        raise HTTPException(404, _NO_LINK)
    return alert
