"""Results to a DICOMweb server by STOW-RS (PS3.18 10.5): sent is what its answer says of each instance."""

from __future__ import annotations

import io
import secrets
from collections.abc import Sequence
from typing import Final

import pydicom
from pydicom.dataset import Dataset

from pneumoserve.intake.errors import PeerAwayError, PeerRefusalError
from pneumoserve.intake.sender import OUT_OF_RESOURCES, Outbox
from pneumoserve.intake.spool import Spool
from pneumoserve.intake.web import Reply, WebPeer

_DICOM_JSON: Final = "application/dicom+json"
# Those whose answers say what became of each instance.
_ANSWERED: Final = {200, 202, 409}


class StowDestination(Outbox):
    """A DICOMweb server at a URL such as https://pacs.example/dicom-web."""

    def __init__(self, spool: Spool, peer: WebPeer) -> None:
        super().__init__(spool, peer.url)
        self._peer = peer

    def send(self, reports: Sequence[bytes]) -> None:
        """Store DICOM files.

        Raises:
            PeerAwayError: it may take them later.
            PeerRefusalError: it never will, or does not say that it did.
        """
        boundary = secrets.token_hex(16)
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        reply = self._peer.post("/studies", _make_body(reports, boundary), kind, _DICOM_JSON)
        if reply.status not in _ANSWERED:
            raise self._peer.refuse(reply.status)
        self._check(reply, {_uid_of(report) for report in reports})

    def _check(self, reply: Reply, sent: set[str]) -> None:
        try:
            module = Dataset.from_json(reply.body.decode())
            stored = {str(item.ReferencedSOPInstanceUID) for item in module.get("ReferencedSOPSequence", [])}
            reasons = {int(item.FailureReason) for item in module.get("FailedSOPSequence", [])}
        except Exception:  # noqa: BLE001 - it fails in many ways inside pydicom, whose texts may name somebody
            raise PeerRefusalError(
                f"{self.name} does not say in {_DICOM_JSON} what it stored ({reply.status}); look at its log."
            ) from None
        if sent <= stored:
            return
        shown = ", ".join(f"{reason:04X}" for reason in sorted(reasons)) or "no reason"
        if reasons and all(reason in OUT_OF_RESOURCES for reason in reasons):
            raise PeerAwayError(f"{self.name} has no room for a result now ({shown}).")
        raise PeerRefusalError(f"{self.name} did not store a result ({shown}); see PS3.18 I.2, and its log.")


def _make_body(reports: Sequence[bytes], boundary: str) -> bytes:
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + report + b"\r\n" for report in reports) + f"--{boundary}--\r\n".encode()


def _uid_of(report: bytes) -> str:
    file = pydicom.dcmread(io.BytesIO(report), specific_tags=["SOPInstanceUID"])
    return str(file.SOPInstanceUID)
