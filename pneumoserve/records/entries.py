"""What an entry of the archive may be, and the entries that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import orjson

from pneumoserve.ledger import Reader
from pneumoserve.records.acceptance import Acceptance, AcceptanceApproval
from pneumoserve.records.label import Label
from pneumoserve.records.reading_request import ReadingRequest
from pneumoserve.records.record import Record
from pneumoserve.records.review_entries import REVIEW_ENTRIES, DriftWindow, Incident, ReviewEntry
from pneumoserve.records.rollout_event import RolloutEvent
from pneumoserve.records.site_use import SiteUse

Entry = Record | Label | ReadingRequest | RolloutEvent | Acceptance | AcceptanceApproval | SiteUse | ReviewEntry
# Of a release: no study has a part in them.
OF_RELEASES: Final = (RolloutEvent, Acceptance, AcceptanceApproval, SiteUse)
_SCHEMAS: Final[dict[str, type[Entry]]] = {
    "pneumoserve.record/1": Record,
    "pneumoserve.record/2": Record,
    "pneumoserve.record/3": Record,
    "pneumoserve.record/4": Record,
    "pneumoserve.record/5": Record,
    "pneumoserve.record/6": Record,
    "pneumoserve.label/1": Label,
    "pneumoserve.label/2": Label,
    "pneumoserve.reading/1": ReadingRequest,
    "pneumoserve.rollout/1": RolloutEvent,
    "pneumoserve.acceptance/1": Acceptance,
    "pneumoserve.acceptance_approval/1": AcceptanceApproval,
    "pneumoserve.site_use/1": SiteUse,
    "pneumoserve.drift/1": DriftWindow,
    "pneumoserve.incident/1": Incident,
    **{form.model_fields["schema_"].default: form for form in REVIEW_ENTRIES},
}


def kind_of(entry: Entry) -> str:
    """What kind of entry it is, as its schema says it: `label`, `draw` and so on."""
    return entry.schema_.removeprefix("pneumoserve.").partition("/")[0]


def id_of(entry: Entry) -> str | None:
    """The id of an entry, whatever its form calls it; None of a form that has none of its own."""
    kind = kind_of(entry)
    name = {
        "record": "prediction_id", "reading": "request_id", "alert_event": "event_id", "rollout": "event_id",
        "sample_plan": "plan_id", "metrics_look": "look_id",
    }  # fmt: skip
    found: str | None = getattr(entry, name.get(kind, f"{kind}_id"), None)
    return found


def parse_entry(line: bytes) -> Entry:
    """An entry of any version that was ever written.

    Raises:
        ValueError: it is none.
    """
    kind = _SCHEMAS.get(orjson.loads(line).get("schema"))
    if kind is None:
        raise ValueError("an entry of a form that this version does not read; use the version that wrote it")
    return kind.model_validate_json(line)


def read_entries(
    reader: Reader, since: datetime | None = None, release: str | None = None, roles: tuple[str, ...] = ("",)
) -> Iterator[Entry]:
    """All entries made at or after `since`, of one release or all, by writers whose names begin with a role.

    Raises:
        StoreError: the store does not answer.
        ValueError: an entry is of a form that this version does not read.
    """
    for segment in reader.segments(since, release, roles):
        for line in segment.lines:
            entry = parse_entry(line)
            if since is None or datetime.fromisoformat(entry.time) >= since:
                yield entry
