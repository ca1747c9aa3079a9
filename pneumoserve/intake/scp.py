"""The storage SCP: C-ECHO and C-STORE. Success means that the object is durable in the spool."""

from __future__ import annotations

import functools
import io
import logging
import socket
import time
from typing import TYPE_CHECKING, Any, Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from pneumoserve.imaging.codecs import ACCEPTED_SYNTAXES
from pneumoserve.intake import metrics, taking
from pneumoserve.intake.commitment import take_outcome
from pneumoserve.intake.errors import IntakeRulesError
from pneumoserve.intake.rules import KEY_OBJECTS, SOP_CLASSES, STORAGE_COMMITMENT, VERIFICATION, IntakeRules
from pneumoserve.intake.spool import Spool
from pneumoserve.intake.tls import Tls

if TYPE_CHECKING:
    from pynetdicom.transport import AssociationServer

# Result, source and reason of a rejection (PS3.8 9.3.4).
_CALLING: Final = (1, 1, 3)
_CALLED: Final = (1, 1, 7)
_REASONS: Final = {_CALLING: "calling AE title or address not allowed", _CALLED: "called AE title not known"}
_TOO_MANY: Final = "too many associations"
_SYNTAXES: Final = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_MAX_PDU: Final = 131_072
# Some peers count the headers differently. Far longer ones would fill the memory.
_LONGEST_PDU: Final = 2 * _MAX_PDU
_CHUNK: Final = 65_536
# For a peer's next PDU, and for all of it once it has begun.
_TIMEOUT_SECONDS: Final = 30
# An Error Comment has this many characters at most (PS3.7 C.4.2).
_COMMENT: Final = 64

_log: Final = logging.getLogger(__name__)


class _Overflow(io.BytesIO):
    """Takes the place of a data set that is too large, and keeps nothing, so that its sender still gets a status."""

    def write(self, data: Any) -> int:
        return len(data)


class Receiver:
    """Listens until it is closed; port 0 is a free one. `notes`: key object selections are taken too.

    Raises:
        IntakeRulesError: the address cannot be listened on, or the files of TLS not be used.
    """

    def __init__(
        self, spool: Spool, rules: IntakeRules, at: tuple[str, int], tls: Tls | None = None, *, notes: bool = False
    ) -> None:
        self._spool = spool
        self._rules = rules
        self._notes = notes
        entity = AE(rules.ae_title)
        entity.maximum_pdu_size = _MAX_PDU
        entity.maximum_associations = rules.max_associations
        entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = _TIMEOUT_SECONDS
        entity.add_supported_context(VERIFICATION)
        for sop_class in SOP_CLASSES:
            entity.add_supported_context(sop_class, sorted(ACCEPTED_SYNTAXES))
        if notes:
            entity.add_supported_context(KEY_OBJECTS, _SYNTAXES)
        # What destinations say of results. Others get no commitment: no complete object is kept.
        entity.add_supported_context(STORAGE_COMMITMENT, _SYNTAXES, scu_role=False, scp_role=True)
        handlers: list[Any] = [
            (evt.EVT_N_EVENT_REPORT, take_outcome, [spool]),
            (evt.EVT_N_ACTION, lambda _: (taking.NOT_SUPPORTED, None)),
            (evt.EVT_CONN_OPEN, _limit_reads),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_REJECTED, self._count_rejected),
            (evt.EVT_PDU_RECV, _limit_size),
            (evt.EVT_CONN_CLOSE, _note_cut_off),
            (evt.EVT_C_STORE, self._store),
        ]
        secured = None if tls is None else tls.listen()
        try:
            # Without `block` there is a server.
            self._server = cast(
                "AssociationServer", entity.start_server(at, block=False, evt_handlers=handlers, ssl_context=secured)
            )
        except OSError as error:
            raise IntakeRulesError(
                f"DICOM cannot be listened for on port {at[1]} ({error.strerror}); give another."
            ) from None

    @property
    def port(self) -> int:
        """The port."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Take no more associations, and end those that are open."""
        self._server.shutdown()
        for association in self._server.active_associations:
            association.abort()

    def _admit(self, event: evt.Event) -> None:
        """Reject whoever may not send, before anything is negotiated."""
        (calling, called), address = _titles_of(event), event.assoc.requestor.address
        if called not in self._rules.titles:
            fault = _CALLED
        elif not self._rules.allows(calling, address):
            fault = _CALLING
        else:
            return
        self._note_rejected(_REASONS[fault], address)
        event.assoc.acse.send_reject(*fault)
        event.assoc.kill()

    def _count_rejected(self, event: evt.Event) -> None:
        """An association that pynetdicom itself rejected."""
        self._note_rejected(_TOO_MANY, event.assoc.requestor.address)

    def _note_rejected(self, reason: str, address: str) -> None:
        metrics.REJECTED.labels(reason).inc()
        _log.warning("an association from %s was rejected: %s", address, reason)

    def _store(self, event: evt.Event) -> Dataset:
        status, comment = taking.answer(lambda: self._keep(event), event.assoc.requestor.address)
        response = Dataset()
        response.Status = status
        if comment:
            response.ErrorComment = comment[:_COMMENT]
        return response

    def _keep(self, event: evt.Event) -> taking.Told:
        request = event.request
        assert isinstance(request, C_STORE)  # noqa: S101 - its handler is bound to nothing else
        arrival = taking.Arrival(
            sop_class=str(request.AffectedSOPClassUID),
            instance=str(request.AffectedSOPInstanceUID),
            syntax=event.context.transfer_syntax,
            data_set=None if isinstance(request.DataSet, _Overflow) else event.encoded_dataset(include_meta=False),
            flagged=_titles_of(event)[1] == self._rules.flagged_ae_title,
        )
        return taking.keep(self._spool, self._rules, arrival, notes=self._notes)


def _titles_of(event: evt.Event) -> tuple[str, str]:
    """The calling and the called AE title of an association."""
    primitive = event.assoc.requestor.primitive
    return (primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()) if primitive else ("", "")


def _limit_reads(event: evt.Event) -> None:
    """Read no PDU that is too long or does not go on: pynetdicom reads any length, and waits forever in one."""
    connection: Any = event.assoc.dul.socket
    connection.recv = functools.partial(_receive, connection.socket)


def _receive(connection: socket.socket, count: int) -> bytes:
    """So many bytes of a PDU; fewer where the peer ends the connection.

    Raises:
        OSError: they are too many, or do not come in time.
    """
    if count > _LONGEST_PDU:
        raise OSError("The PDU is longer than was negotiated.")
    received, give_up = bytearray(), time.monotonic() + _TIMEOUT_SECONDS
    while len(received) < count:
        connection.settimeout(max(give_up - time.monotonic(), 0.001))
        chunk = connection.recv(min(count - len(received), _CHUNK))
        if not chunk:
            break
        received += chunk
    connection.settimeout(_TIMEOUT_SECONDS)
    return bytes(received)


def _note_cut_off(event: evt.Event) -> None:
    """Say that an association ended before an object was whole: its sender was told no status."""
    if event.assoc.dimse.message is not None:
        event.assoc.dimse.message = None
        address = event.assoc.requestor.address
        _log.warning("an association from %s ended in an object, which is not kept; let it send again", address)


def _limit_size(event: evt.Event) -> None:
    """Keep no more of an object than the limit while it arrives."""
    message = event.assoc.dimse.message
    if message is not None and message.data_set is not None and message.data_set.tell() > taking.MAX_OBJECT:
        message.data_set = _Overflow()
