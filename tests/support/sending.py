"""A study with a result, sent to destinations as intake does it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pneumoserve.intake.destinations import open_destination
from pneumoserve.intake.fhir_sender import FhirDestination
from pneumoserve.intake.rules import IntakeRules
from pneumoserve.intake.spool import Spool
from pneumoserve.intake.studies import Studies
from pneumoserve.intake.web import WebPeer
from pneumoserve.store import MemoryStore
from tests.support.intake import FakeService, make_incoming, make_spool


class Sending:
    """A study with a result, and the destinations that are to have it."""

    def __init__(
        self, *addresses: str, credentials: Path | None = None, fhir: str | None = None, capture: bool = False
    ) -> None:
        self.spool: Spool = make_spool(MemoryStore())
        self.destinations = [
            open_destination(self.spool, "PNEUMOSERVE", each, credentials=credentials) for each in addresses
        ]
        if fhir is not None:
            self.destinations.append(FhirDestination(self.spool, WebPeer(fhir)))
        rules = IntakeRules(quiet_seconds=0, secondary_capture=capture)
        self.studies = Studies(self.spool, rules, FakeService(), self.destinations)
        self.spool.keep(make_incoming(), flagged=False)
        (self.study,) = self.spool.studies()

    def look(self) -> None:
        if self.spool.studies():
            self.studies.advance(self.study)

    def reasons(self) -> list[str]:
        """Why a person must look."""
        return [failure.reason for failure in self.spool.all_failures()]

    def names(self) -> set[str]:
        """What is known of the one batch."""
        self.look()
        return next(iter(self.spool.batches(self.study).values()), set())


@contextlib.contextmanager
def sending(*addresses: str, **options: Any) -> Iterator[Sending]:
    """A study whose result goes to these; `options` are those of Sending."""
    made = Sending(*addresses, **options)
    for each in made.destinations:
        each.start()
    try:
        yield made
    finally:
        for each in made.destinations:
            each.stop()
        made.studies.finish()
