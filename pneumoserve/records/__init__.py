"""What is on record: the forms of entries, and how they are found and exported.

A name is looked for when it is first asked for: `pneumoserve --help` shows which labels there are, and must not wait
for the ledger and the store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pneumoserve.records.acceptance import Acceptance, AcceptanceApproval, AcceptanceOutcome, CriterionResult
    from pneumoserve.records.approvals import (
        ACCEPTANCE_WRITERS,
        APPROVERS,
        AcceptanceError,
        approvers_of,
        check_acceptance,
        find_acceptance,
    )
    from pneumoserve.records.entries import OF_RELEASES, Entry, parse_entry, read_entries
    from pneumoserve.records.envelopes import (
        ENVELOPES,
        Addressee,
        EnvelopeError,
        envelope_key,
        generate_envelope_key,
        load_opening_key,
        load_sealing_key,
        open_envelope,
        seal_envelope,
    )
    from pneumoserve.records.find import (
        LABEL_WRITERS,
        EntryPlace,
        FollowUp,
        find_line,
        find_record,
        find_records,
        follow_up,
        labels_of,
    )
    from pneumoserve.records.image_keys import FILMS, IMAGES, image_detail, image_key, open_ledger
    from pneumoserve.records.label import (
        LABEL_COLUMNS,
        LABEL_FINDINGS,
        LABEL_SOURCES,
        LABEL_TYPES,
        Asked,
        Certainty,
        Label,
        NotBlind,
        PneumoniaType,
        ReadingDetail,
        Source,
    )
    from pneumoserve.records.label_sheet import (
        NO_RECORD,
        LabelError,
        LabelFormatError,
        Statement,
        check_statements,
        make_labels,
        read_statements,
    )
    from pneumoserve.records.pages import Selection, browse
    from pneumoserve.records.parquet import (
        ExportError,
        ExportReport,
        ExportTargetError,
        FolderTarget,
        StoreTarget,
        Target,
        export,
        open_target,
        parse_address,
    )
    from pneumoserve.records.pseudonyms import Pseudonyms, ReferenceKeyError
    from pneumoserve.records.reading_folder import READING_SHEET, write_reading_folder
    from pneumoserve.records.reading_request import READING_WRITERS, ReadingRequest
    from pneumoserve.records.record import (
        CallDetail,
        Encoding,
        ErrorDetail,
        ImageDetail,
        ModelUse,
        Protocol,
        Record,
        RecordKind,
        RefusedInput,
    )
    from pneumoserve.records.review_entries import (
        LONGEST_COMMENT,
        REVIEW_ENTRIES,
        REVIEW_WRITERS,
        Adjudication,
        Alert,
        AlertEvent,
        AlertReason,
        AlertStep,
        Baseline,
        Draw,
        DriftWindow,
        Incident,
        IncidentKind,
        Ordered,
        Page,
        ReleaseResume,
        ReleaseStop,
        ReviewEntry,
        SamplePlan,
        Severity,
        View,
    )
    from pneumoserve.records.rollout_event import GateResult, Outcome, RolloutEvent, What
    from pneumoserve.records.short_chain import append
    from pneumoserve.records.site_use import SITE_WRITERS, SiteUse
    from pneumoserve.records.stops import STOPS, StopBook, StopError, Stopping, record_stop, stop_key
    from pneumoserve.records.writer import ArchiveWriter

__all__ = [
    "ACCEPTANCE_WRITERS",
    "APPROVERS",
    "ENVELOPES",
    "FILMS",
    "IMAGES",
    "LABEL_COLUMNS",
    "LABEL_FINDINGS",
    "LABEL_SOURCES",
    "LABEL_TYPES",
    "LABEL_WRITERS",
    "LONGEST_COMMENT",
    "NO_RECORD",
    "OF_RELEASES",
    "READING_SHEET",
    "READING_WRITERS",
    "REVIEW_ENTRIES",
    "REVIEW_WRITERS",
    "SITE_WRITERS",
    "STOPS",
    "Acceptance",
    "AcceptanceApproval",
    "AcceptanceError",
    "AcceptanceOutcome",
    "Addressee",
    "Adjudication",
    "Alert",
    "AlertEvent",
    "AlertReason",
    "AlertStep",
    "ArchiveWriter",
    "Asked",
    "Baseline",
    "CallDetail",
    "Certainty",
    "CriterionResult",
    "Draw",
    "DriftWindow",
    "Encoding",
    "Entry",
    "EntryPlace",
    "EnvelopeError",
    "ErrorDetail",
    "ExportError",
    "ExportReport",
    "ExportTargetError",
    "FolderTarget",
    "FollowUp",
    "GateResult",
    "ImageDetail",
    "Incident",
    "IncidentKind",
    "Label",
    "LabelError",
    "LabelFormatError",
    "ModelUse",
    "NotBlind",
    "Ordered",
    "Outcome",
    "Page",
    "PneumoniaType",
    "Protocol",
    "Pseudonyms",
    "ReadingDetail",
    "ReadingRequest",
    "Record",
    "RecordKind",
    "ReferenceKeyError",
    "RefusedInput",
    "ReleaseResume",
    "ReleaseStop",
    "ReviewEntry",
    "RolloutEvent",
    "SamplePlan",
    "Selection",
    "Severity",
    "SiteUse",
    "Source",
    "Statement",
    "StopBook",
    "StopError",
    "Stopping",
    "StoreTarget",
    "Target",
    "View",
    "What",
    "append",
    "approvers_of",
    "browse",
    "check_acceptance",
    "check_statements",
    "envelope_key",
    "export",
    "find_acceptance",
    "find_line",
    "find_record",
    "find_records",
    "follow_up",
    "generate_envelope_key",
    "image_detail",
    "image_key",
    "labels_of",
    "load_opening_key",
    "load_sealing_key",
    "make_labels",
    "open_envelope",
    "open_ledger",
    "open_target",
    "parse_address",
    "parse_entry",
    "read_entries",
    "read_statements",
    "record_stop",
    "seal_envelope",
    "stop_key",
    "write_reading_folder",
]

# Those that need neither ledger nor store come first.
_MODULES: Final = (
    "label",
    "record",
    "reading_request",
    "review_entries",
    "rollout_event",
    "acceptance",
    "site_use",
    "pseudonyms",
    "entries",
    "approvals",
    "image_keys",
    "envelopes",
    "short_chain",
    "stops",
    "writer",
    "find",
    "pages",
    "label_sheet",
    "reading_folder",
    "parquet",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in (import_module(f"{__name__}.{each}") for each in _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
