"""Results to a FHIR server, each by one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar, Final

from pneumoserve.intake.errors import PeerRefusalError
from pneumoserve.intake.sender import Outbox
from pneumoserve.intake.spool import BUNDLE, FHIR_JSON, Form, Spool
from pneumoserve.intake.web import Reply, WebPeer

# Changed or there before, or created.
_DONE: Final = ("200", "201")


class FhirDestination(Outbox):
    """A FHIR R4 server at a URL such as https://ehr.example/fhir."""

    forms: ClassVar[tuple[Form, ...]] = (BUNDLE,)

    def __init__(self, spool: Spool, peer: WebPeer) -> None:
        super().__init__(spool, f"FHIR {peer.url}")
        self._peer = peer

    def send(self, reports: Sequence[bytes]) -> None:
        """Post transactions.

        Raises:
            PeerAwayError: it may take them later.
            PeerRefusalError: it never will, or does not say that it did.
        """
        for bundle in reports:
            reply = self._peer.post("", bundle, FHIR_JSON, FHIR_JSON)
            if reply.status != 200:
                raise self._peer.refuse(reply.status)
            self._check(reply, len(json.loads(bundle)["entry"]))

    def _check(self, reply: Reply, sent: int) -> None:
        try:
            answer = json.loads(reply.body)
            statuses = [str(entry["response"]["status"]) for entry in answer["entry"]]
            is_answer = answer["type"] == "transaction-response"
        except (ValueError, KeyError, TypeError):
            is_answer, statuses = False, []
        if not is_answer or len(statuses) != sent or not all(status.startswith(_DONE) for status in statuses):
            raise PeerRefusalError(f"{self.name} does not say that it has a whole result; look at its log.")
