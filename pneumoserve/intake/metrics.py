"""Intake's Prometheus metrics; their labels are closed lists and the destinations of the command line."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

OBJECTS: Final = Counter(
    "pneumoserve_intake_objects", "Objects that were sent, by the DICOM status of the answer in hex.", ["status"]
)
REJECTED: Final = Counter("pneumoserve_intake_associations_rejected", "Associations rejected, by reason.", ["reason"])
STORE_SECONDS: Final = Histogram(
    "pneumoserve_intake_store_seconds", "Seconds from an object's last byte until it is durable.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 5),
)  # fmt: skip
OUTCOMES: Final = Counter(
    "pneumoserve_intake_outcomes",
    "Objects that are done with: answered, unreadable, withdrawn, expired, selection, or why unread.", ["outcome"],
)  # fmt: skip
WAITING: Final = Gauge("pneumoserve_intake_studies_waiting", "Studies that have objects in the spool.")
FAILED: Final = Gauge("pneumoserve_intake_studies_failed", "Studies that a person must look at: `intake list`.")
SENT: Final = Counter(
    "pneumoserve_intake_results", "Tries to send a result, by destination and outcome (sent, later, failed).",
    ["destination", "outcome"],
)  # fmt: skip
LAST_LOOK: Final = Gauge("pneumoserve_intake_last_look_seconds", "When the spool was last looked at, in Unix seconds.")
