"""A ledger on an object store: signed, chained segments of opaque lines, sealed and verified.

It knows nothing of what its lines say. Who keeps one gives it `Attachments`: how to find the objects that a line
mentions.
"""

from pneumoserve.ledger.acknowledgements import Acknowledged, acknowledge
from pneumoserve.ledger.attachments import Attachments, Ledger
from pneumoserve.ledger.by_day import ByDay
from pneumoserve.ledger.chain import Chain, now_text, writer_name
from pneumoserve.ledger.copies import read_copied_seals
from pneumoserve.ledger.follow import Follower
from pneumoserve.ledger.journal import Journal
from pneumoserve.ledger.listing import list_segments
from pneumoserve.ledger.reader import Batch, Located, Reader
from pneumoserve.ledger.receipts import (
    Checked,
    GivenReceipt,
    Receipt,
    ReceiptError,
    check_receipt,
    check_record,
    make_receipt,
    parse_receipts,
)
from pneumoserve.ledger.retention import Expiry, RetentionError, list_expiries, set_expiry
from pneumoserve.ledger.scan import Finding, Findings
from pneumoserve.ledger.sealer import DEFAULT_LOCK_DAYS, SealerError, SealReport, SealSettings, seal
from pneumoserve.ledger.seals import ROLLUPS, Seal
from pneumoserve.ledger.segment import RECORDS, Header, Segment, SegmentError, SegmentKey, key_id_of, verify_segment
from pneumoserve.ledger.setup import set_up
from pneumoserve.ledger.source import Spans
from pneumoserve.ledger.timestamps import TimeStampError, load_authorities
from pneumoserve.ledger.verification import Summary, VerificationReport, verify
from pneumoserve.ledger.writer import LedgerWriter, LockRule

__all__ = [
    "DEFAULT_LOCK_DAYS",
    "RECORDS",
    "ROLLUPS",
    "Acknowledged",
    "Attachments",
    "Batch",
    "ByDay",
    "Chain",
    "Checked",
    "Expiry",
    "Finding",
    "Findings",
    "Follower",
    "GivenReceipt",
    "Header",
    "Journal",
    "Ledger",
    "LedgerWriter",
    "Located",
    "LockRule",
    "Reader",
    "Receipt",
    "ReceiptError",
    "RetentionError",
    "Seal",
    "SealReport",
    "SealSettings",
    "SealerError",
    "Segment",
    "SegmentError",
    "SegmentKey",
    "Spans",
    "Summary",
    "TimeStampError",
    "VerificationReport",
    "acknowledge",
    "check_receipt",
    "check_record",
    "key_id_of",
    "list_expiries",
    "list_segments",
    "load_authorities",
    "make_receipt",
    "now_text",
    "parse_receipts",
    "read_copied_seals",
    "seal",
    "set_expiry",
    "set_up",
    "verify",
    "verify_segment",
    "writer_name",
]
