"""The storage SCP: C-ECHO and C-STORE. Success means that the object is durable in the spool."""

from __future__ import annotations

import io
import logging
import time
from typing import TYPE_CHECKING, Any, Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from pneumoserve.imaging import MAX_BYTES, ImageError
from pneumoserve.imaging.codecs import ACCEPTED_SYNTAXES
from pneumoserve.intake import metrics
from pneumoserve.intake.commitment import take_outcome
from pneumoserve.intake.errors import IntakeRulesError
from pneumoserve.intake.header import make_file, read_header
from pneumoserve.intake.rules import KEY_OBJECTS, SOP_CLASSES, STORAGE_COMMITMENT, VERIFICATION, IntakeRules
from pneumoserve.intake.selections import REJECTIONS, Selection, read_selection
from pneumoserve.intake.spool import Incoming, Kept, Spool
from pneumoserve.intake.tls import Tls
from pneumoserve.store import StoreError

if TYPE_CHECKING:
    from pynetdicom.transport import AssociationServer

SUCCESS: Final = 0x0000
# PS3.7 C.5.11: the SOP class is not supported.
NOT_SUPPORTED: Final = 0x0122
# PS3.4 B.2.3: out of resources, so that the sender tries again; does not match; cannot be understood.
OUT_OF_RESOURCES: Final = 0xA700
MISMATCH: Final = 0xA900
NOT_UNDERSTOOD: Final = 0xC000
# Result, source and reason of a rejection (PS3.8 9.3.4).
_CALLING: Final = (1, 1, 3)
_CALLED: Final = (1, 1, 7)
_REASONS: Final = {_CALLING: "calling AE title or address not allowed", _CALLED: "called AE title not known"}
_TOO_MANY: Final = "too many associations"
_SYNTAXES: Final = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_MAX_PDU: Final = 131_072
_MAX_OBJECT: Final = MAX_BYTES
# Of a peer that sends nothing more.
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
            (evt.EVT_N_ACTION, lambda _: (NOT_SUPPORTED, None)),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_REJECTED, self._count_rejected),
            (evt.EVT_PDU_RECV, _limit_size),
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
        started = time.perf_counter()
        try:
            status, comment = self._keep(event)
        except StoreError as error:
            status, comment = OUT_OF_RESOURCES, "The spool does not answer; send it again"
            _log.error("an object was refused, since the spool does not answer: %s", error)
        except Exception as error:  # noqa: BLE001 - pynetdicom would log what was sent
            status, comment = OUT_OF_RESOURCES, "A fault of this service; send it again"
            _log.error("an object was refused by a fault of ours (%s)", type(error).__name__)
        if status == SUCCESS:
            metrics.STORE_SECONDS.observe(time.perf_counter() - started)
        else:
            _log.warning("an object from %s was refused with %04X: %s", event.assoc.requestor.address, status, comment)
        metrics.OBJECTS.labels(f"{status:04X}").inc()
        response = Dataset()
        response.Status = status
        if comment:
            response.ErrorComment = comment[:_COMMENT]
        return response

    def _keep(self, event: evt.Event) -> tuple[int, str]:
        """Status and comment of an object."""
        request = event.request
        assert isinstance(request, C_STORE)  # noqa: S101 - its handler is bound to nothing else
        if request.AffectedSOPClassUID not in (*SOP_CLASSES, KEY_OBJECTS):
            return NOT_SUPPORTED, "This SOP class is not supported; send CR or DX"
        if isinstance(request.DataSet, _Overflow):
            return NOT_UNDERSTOOD, f"The object is larger than {_MAX_OBJECT >> 20} MiB; send it compressed"
        sop_class, instance = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        file = make_file(event.encoded_dataset(include_meta=False), sop_class, instance, event.context.transfer_syntax)
        selection = None
        try:
            if sop_class == KEY_OBJECTS:
                selection = read_selection(file)
            header = read_header(file) if selection is None else selection.header
        except ImageError:
            return NOT_UNDERSTOOD, "The object is damaged or cut short; send it complete"
        if (header.SOPClassUID, header.SOPInstanceUID) != (sop_class, instance):
            return MISMATCH, "Data set and request name different SOP UIDs"
        incoming = Incoming(str(header.StudyInstanceUID), instance, file)
        if selection is None:
            flagged = _titles_of(event)[1] == self._rules.flagged_ae_title
            kept = self._spool.keep(incoming, flagged=flagged)
        else:
            kept = self._follow(selection, incoming)
        if kept == "refused":
            return NOT_UNDERSTOOD, "This SOP Instance UID came before with other content"
        return SUCCESS, ""

    def _follow(self, selection: Selection, incoming: Incoming) -> Kept:
        """Do what a key object selection asks for; one that asks for nothing is not kept."""
        why = REJECTIONS.get(selection.title)
        if why is not None:
            return self._spool.keep_rejection(incoming, why, selection.studies)
        if selection.title in self._rules.flag_titles:
            for study in selection.studies:
                self._spool.flag(study, selection.title)
        else:
            metrics.OUTCOMES.labels("selection").inc()
        return "kept"


def _titles_of(event: evt.Event) -> tuple[str, str]:
    """The calling and the called AE title of an association."""
    primitive = event.assoc.requestor.primitive
    return (primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()) if primitive else ("", "")


def _limit_size(event: evt.Event) -> None:
    """Keep no more of an object than the limit while it arrives."""
    message = event.assoc.dimse.message
    if message is not None and message.data_set is not None and message.data_set.tell() > _MAX_OBJECT:
        message.data_set = _Overflow()
