"""Destinations of results, each with a queue, a thread and a backoff of its own: none holds up another."""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModelInstance

from pneumoserve.canonical import digest_of
from pneumoserve.intake import metrics
from pneumoserve.intake.backoff import Backoff
from pneumoserve.intake.commitment import take_outcome
from pneumoserve.intake.errors import ContextRefusalError, IntakeRulesError, PeerAwayError, PeerRefusalError
from pneumoserve.intake.rules import STORAGE_COMMITMENT, VERIFICATION
from pneumoserve.intake.spool import CAPTURE, REPORT, Batch, Form, Spool
from pneumoserve.intake.tls import NO_TLS, Tls
from pneumoserve.store import NotFoundError, StoreError

_ADDRESS: Final = re.compile(
    r"(?P<title>[\x21-\x3f\x41-\x5b\x5d-\x7e]{1,16})@(?P<host>[^\s@]+):(?P<port>[0-9]{1,5})(?P<tls>/tls)?"
)
_SYNTAXES: Final = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_TIMEOUT_SECONDS: Final = 30
_ID_DIGITS: Final = 12
_PERMANENT: Final = 1
_SUCCESS: Final = 0x0000
_WARNINGS: Final = range(0xB000, 0xC000)
OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)
_SHOWN_DIGITS: Final = 8
_REQUEST_COMMITMENT: Final = 1
# How long an association stays open for what the peer may say on it.
_REPORT_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05
_LONGEST_REPORT: Final = timedelta(days=1)

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Another application entity; `secure`: by TLS."""

    title: str
    host: str
    port: int
    secure: bool = False

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}{'/tls' if self.secure else ''}"


def parse_address(text: str) -> Address:
    """An address such as ORTHANC@127.0.0.1:4242, with /tls at its end where it takes TLS.

    Raises:
        IntakeRulesError: it is none.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise IntakeRulesError("A DICOM address is AE@HOST:PORT, such as ORTHANC@10.0.0.7:4242; correct it.")
    return Address(match["title"], match["host"].strip("[]"), int(match["port"]), match["tls"] is not None)


def echo(own_title: str, to: Address, tls: Tls = NO_TLS) -> None:
    """C-ECHO.

    Raises:
        PeerAwayError, PeerRefusalError: it does not answer as it should, and why.
    """
    association = _associate(own_title, to, VERIFICATION, tls)
    try:
        status = association.send_c_echo()
    finally:
        association.release()
    if status.get("Status") != _SUCCESS:
        raise PeerAwayError(f"{to} did not answer C-ECHO; look at its log.")


def send(own_title: str, to: Address, dataset: Dataset, tls: Tls = NO_TLS) -> None:
    """C-STORE of a report.

    Raises:
        PeerAwayError: it may take it later.
        PeerRefusalError: it never will, unless somebody changes its settings or ours.
    """
    association = _associate(own_title, to, str(dataset.SOPClassUID), tls)
    try:
        answer = association.send_c_store(dataset)
    finally:
        if association.is_established:
            association.release()
    status = answer.get("Status")
    if status is None:
        raise PeerAwayError(f"{to} ended the association before it took a result.")
    if status in OUT_OF_RESOURCES:
        raise PeerAwayError(f"{to} has no room for a result now ({status:04X}).")
    if status != _SUCCESS and status not in _WARNINGS:
        raise PeerRefusalError(f"{to} refuses a result with {status:04X}; see PS3.4 B.2.3, and its log.")


def ask_for_commitment(
    own_title: str,
    to: Address,
    reports: Sequence[bytes],
    transaction: str,
    spool: Spool,
    is_known: Callable[[], bool],
    tls: Tls,
) -> bool:
    """Ask a peer to keep the files of a result that it took; whether it offers to say so.

    What it says goes to the spool. It may say so on this association, for which this waits a moment unless it
    `is_known`, or on one of its own.

    Raises:
        PeerAwayError, PeerRefusalError: it offers that, and cannot be asked.
    """
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, take_outcome, [spool])]
    try:
        association = _associate(own_title, to, STORAGE_COMMITMENT, tls, handlers)
    except ContextRefusalError:
        return False
    wanted = Dataset()
    wanted.TransactionUID, wanted.ReferencedSOPSequence = transaction, [_refer_to(report) for report in reports]
    try:
        answer, _ = association.send_n_action(
            wanted, _REQUEST_COMMITMENT, UID(STORAGE_COMMITMENT), StorageCommitmentPushModelInstance
        )
        status = answer.get("Status")
        until = time.monotonic() + _REPORT_SECONDS
        while status == _SUCCESS and association.is_established and time.monotonic() < until and not is_known():
            time.sleep(_POLL_SECONDS)
    finally:
        if association.is_established:
            association.release()
    if status is None:
        raise PeerAwayError(f"{to} ended the association before it said whether it keeps a result.")
    if status != _SUCCESS:
        raise PeerRefusalError(f"{to} does not say whether it keeps a result ({status:04X}); see its log.")
    return True


def _refer_to(report: bytes) -> Dataset:
    file = pydicom.dcmread(io.BytesIO(report), specific_tags=["SOPClassUID", "SOPInstanceUID"])
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = file.SOPClassUID, file.SOPInstanceUID
    return reference


def _associate(own_title: str, to: Address, sop_class: str, tls: Tls, handlers: list[Any] | None = None) -> Association:
    entity = AE(own_title)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_SECONDS
    entity.add_requested_context(sop_class, _SYNTAXES)
    secured = (tls.call(), to.host) if to.secure else None
    association = entity.associate(to.host, to.port, ae_title=to.title, tls_args=secured, evt_handlers=handlers)
    if association.is_established:
        return association
    if association.is_rejected:
        primitive = association.acceptor.primitive
        reason = "no reason given" if primitive is None else primitive.reason_str.lower()
        if primitive is not None and primitive.result == _PERMANENT:
            raise PeerRefusalError(f"{to} rejects the association ({reason}); add {own_title} to its AE titles.")
        raise PeerAwayError(f"{to} takes no association now ({reason}).")
    if association.rejected_contexts:
        raise ContextRefusalError(f"{to} does not take {UID(sop_class).name}; let it.")
    trusted = ", and that both sides trust each other's certificate" if to.secure else ""
    raise PeerAwayError(f"{to} cannot be reached; see that it runs, that nothing is between{trusted}.")


class Outbox(ABC):
    """The queue of one destination of results; `start` it, and `stop` it in the end."""

    # What it is sent of a result.
    forms: ClassVar[tuple[Form, ...]] = (REPORT, CAPTURE)

    def __init__(self, spool: Spool, name: str) -> None:
        self.id = digest_of(name.encode())[:_ID_DIGITS]
        self.name = name
        self._spool = spool
        self._backoff = Backoff()
        self._waiting: dict[Batch, None] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="results", daemon=True)

    @abstractmethod
    def send(self, reports: Sequence[bytes]) -> None:
        """Send what there is of a result.

        Raises:
            PeerAwayError: the destination may take it later.
            PeerRefusalError: it never will, unless somebody changes its settings or ours.
        """

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being sent, and send no more."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def offer(self, batch: Batch) -> None:
        """Have a batch's report sent; one that waits already waits once."""
        with self._changed:
            self._waiting.setdefault(batch)
            self._changed.notify()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            outcome = self._deliver(batch)
            if outcome != "waits":
                metrics.SENT.labels(self.name, outcome).inc()
            with self._changed:
                # Only now: while it is under way, it must not be offered once more.
                del self._waiting[batch]
                if outcome == "later":
                    self._waiting[batch] = None

    def _next(self) -> Batch | None:
        """The batch to send now; None at the end."""
        with self._changed:
            while not self._stopping:
                pause = self._backoff.seconds
                if self._waiting and pause == 0:
                    return next(iter(self._waiting))
                self._changed.wait(pause if self._waiting else None)
        return None

    def _hand_over(self, batch: Batch) -> bool:
        """Do what is left until the destination has a batch's report; False while it is to say that it keeps it."""
        # It may have been offered again before it was noted.
        if not self._spool.is_sent(batch, self.id):
            self.send(self._reports(batch))
            self._spool.note_sent(batch, self.id)
        return True

    def _reports(self, batch: Batch) -> list[bytes]:
        return [self._spool.report_of(batch, form) for form in self._spool.forms_of(batch, self.forms)]

    def _deliver(self, batch: Batch) -> str:
        """Send a batch's report; what became of it."""
        number = batch.study[:_SHOWN_DIGITS]
        try:
            if not self._hand_over(batch):
                return "waits"
        except NotFoundError:
            # It was finished or dropped meanwhile.
            return "sent"
        except (PeerAwayError, StoreError) as error:
            self._backoff.wait(error.after if isinstance(error, PeerAwayError) else 0.0)
            _log.warning("the result of study %s waits %.0f s: %s", number, self._backoff.seconds, error)
            return "later"
        except PeerRefusalError as error:
            _log.error("the result of study %s: a person must look: %s", number, error)
            return self._fail(batch, str(error))
        except Exception as error:  # noqa: BLE001 - without its thread a destination gets nothing more
            self._backoff.wait()
            # Its text may name somebody.
            _log.error("the result of study %s waits by a fault of intake (%s)", number, type(error).__name__)
            return "later"
        self._backoff = Backoff()
        return "sent"

    def _fail(self, batch: Batch, reason: str) -> str:
        """Leave a batch to a person; what became of it."""
        try:
            self._spool.fail(batch, self.id, reason)
        except StoreError as error:
            self._backoff.wait()
            _log.warning("that a person must look is not noted yet, since the spool does not answer: %s", error)
            return "later"
        return "failed"


class Destination(Outbox):
    """A PACS that takes results by C-STORE, and may say later that it keeps them."""

    def __init__(self, spool: Spool, own_title: str, address: Address, tls: Tls = NO_TLS) -> None:
        super().__init__(spool, str(address))
        self._own_title = own_title
        self._address = address
        self._tls = tls
        # Until it turns out that it does not offer to.
        self._commits = True

    def send(self, reports: Sequence[bytes]) -> None:
        """Store DICOM files, by an association each.

        Raises:
            PeerAwayError, PeerRefusalError: as `send`.
        """
        for report in reports:
            send(self._own_title, self._address, pydicom.dcmread(io.BytesIO(report)), self._tls)

    def _hand_over(self, batch: Batch) -> bool:
        known = self._spool.names_of(batch)
        # It may have been offered again before it was noted.
        if f"sent-{self.id}" in known:
            return True
        if f"asked-{self.id}" in known:
            if (datetime.now(UTC) - known[f"asked-{self.id}"]) > _LONGEST_REPORT:
                raise PeerRefusalError(f"{self.name} did not say within a day that it keeps a result; let it call us.")
            return False
        reports = self._reports(batch)
        if f"stored-{self.id}" not in known:
            self.send(reports)
        if self._commits:
            self._spool.note_stored(batch, self.id)
            self._commits = ask_for_commitment(
                self._own_title, self._address, reports,
                self._spool.await_answer(batch, self.id), self._spool, lambda: self._spool.is_sent(batch, self.id),
                self._tls,
            )  # fmt: skip
        if self._commits:
            self._spool.note_asked(batch, self.id)
        else:
            self._spool.forget_awaited(batch, self.id)
            self._spool.note_sent(batch, self.id)
        return True
