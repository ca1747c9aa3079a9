"""Taking an object into the spool, however it comes: the same rules, and the same statuses for its sender."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from pneumoserve.imaging import MAX_BYTES, ImageError
from pneumoserve.imaging.codecs import ACCEPTED_SYNTAXES
from pneumoserve.intake import metrics
from pneumoserve.intake.header import make_file, read_complete
from pneumoserve.intake.rules import KEY_OBJECTS, SOP_CLASSES, IntakeRules
from pneumoserve.intake.selections import REJECTIONS, Selection, read_selection
from pneumoserve.intake.spool import Incoming, Kept, Spool
from pneumoserve.store import StoreError

SUCCESS: Final = 0x0000
# PS3.7 C.5.11: the SOP class is not supported. PS3.18 I.2.2: neither is the transfer syntax.
NOT_SUPPORTED: Final = 0x0122
SYNTAX_NOT_SUPPORTED: Final = 0xC122
# PS3.4 B.2.3: out of resources, so that the sender tries again; does not match; cannot be understood.
OUT_OF_RESOURCES: Final = 0xA700
MISMATCH: Final = 0xA900
NOT_UNDERSTOOD: Final = 0xC000
MAX_OBJECT: Final = MAX_BYTES
TOO_LARGE: Final = (NOT_UNDERSTOOD, f"The object is larger than {MAX_OBJECT >> 20} MiB; send it compressed")
DAMAGED: Final = (NOT_UNDERSTOOD, "The object is damaged or cut short; send it complete")
WRONG_CLASS: Final = (NOT_SUPPORTED, "This SOP class is not supported; send CR or DX")
WRONG_SYNTAX: Final = (SYNTAX_NOT_SUPPORTED, "This transfer syntax is not supported; send another")
OTHER_CONTENT: Final = (NOT_UNDERSTOOD, "This SOP Instance UID came before with other content")

# What a sender is told: a status, and where it is no success a sentence.
Told = tuple[int, str]

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """An object as it came, and what its sender calls it.

    `data_set` is None where it was too large to be kept; `study` is the one that it must belong to, where one is named.
    """

    sop_class: str
    instance: str
    syntax: str
    data_set: bytes | None
    flagged: bool
    study: str | None = None


def keep(spool: Spool, rules: IntakeRules, arrival: Arrival, *, notes: bool) -> Told:
    """Keep an object; it is durable when success is told. `notes`: do what key object selections ask for, too.

    Raises:
        StoreError: the spool does not answer.
    """
    if arrival.sop_class not in SOP_CLASSES and not (notes and arrival.sop_class == KEY_OBJECTS):
        return WRONG_CLASS
    if arrival.syntax not in ACCEPTED_SYNTAXES:
        return WRONG_SYNTAX
    if arrival.data_set is None:
        return TOO_LARGE
    file = make_file(arrival.data_set, arrival.sop_class, arrival.instance, arrival.syntax)
    selection = None
    try:
        if arrival.sop_class == KEY_OBJECTS:
            selection = read_selection(file)
        header = read_complete(file) if selection is None else selection.header
    except ImageError:
        return DAMAGED
    mismatch = _mismatch(arrival, header)
    if mismatch is not None:
        return mismatch
    incoming = Incoming(str(header.StudyInstanceUID), arrival.instance, file)
    if selection is None:
        kept = spool.keep(incoming, flagged=arrival.flagged)
    else:
        kept = _follow(spool, rules, selection, incoming)
    return OTHER_CONTENT if kept == "refused" else (SUCCESS, "")


def _mismatch(arrival: Arrival, header: Dataset) -> Told | None:
    if (header.SOPClassUID, header.SOPInstanceUID) != (arrival.sop_class, arrival.instance):
        return MISMATCH, "Data set and request name different SOP UIDs"
    if arrival.study not in (None, header.StudyInstanceUID):
        return MISMATCH, "The object is of another study than the address names"
    return None


def _follow(spool: Spool, rules: IntakeRules, selection: Selection, incoming: Incoming) -> Kept:
    """Do what a key object selection asks for; one that asks for nothing is not kept."""
    why = REJECTIONS.get(selection.title)
    if why is not None:
        return spool.keep_rejection(incoming, why, selection.studies)
    if selection.title in rules.flag_titles:
        for study in selection.studies:
            spool.flag(study, selection.title)
    else:
        metrics.OUTCOMES.labels("selection").inc()
    return "kept"


def answer(take: Callable[[], Told], sender: str) -> Told:
    """What the sender of an object is told, whatever happens; counted, and logged with its address."""
    started = time.perf_counter()
    try:
        status, comment = take()
    except StoreError as error:
        status, comment = OUT_OF_RESOURCES, "The spool does not answer; send it again"
        _log.error("an object was refused, since the spool does not answer: %s", error)
    except Exception as error:  # noqa: BLE001 - a library would log what was sent
        status, comment = OUT_OF_RESOURCES, "A fault of this service; send it again"
        _log.error("an object was refused by a fault of ours (%s)", type(error).__name__)
    if status == SUCCESS:
        metrics.STORE_SECONDS.observe(time.perf_counter() - started)
    else:
        _log.warning("an object from %s was refused with %04X: %s", sender, status, comment)
    metrics.OBJECTS.labels(f"{status:04X}").inc()
    return status, comment
