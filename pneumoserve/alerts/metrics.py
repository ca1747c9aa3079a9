"""The sender's Prometheus metrics; their labels are names of the policy and closed lists."""

from __future__ import annotations

from typing import Final, get_args

from prometheus_client import Counter, Gauge, Histogram

from pneumoserve.records import Severity

RAISED: Final = Counter("pneumoserve_alerts_raised", "Alerts put on record, by severity.", ["severity"])
DELIVERIES: Final = Counter(
    "pneumoserve_alert_deliveries", "Messages given to a channel, by channel of the policy and outcome.",
    ["channel", "outcome"],
)  # fmt: skip
SECONDS: Final = Histogram(
    "pneumoserve_alert_seconds", "Seconds from an answer to when a channel took its alert, escalations left out.",
    buckets=(0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200),
)  # fmt: skip
ESCALATIONS: Final = Counter("pneumoserve_alert_escalations", "Times that the next person was told.")
UNDELIVERED: Final = Counter(
    "pneumoserve_alerts_undelivered", "Tries of a message that no channel took. Whoever runs the service must look."
)
WAITING: Final = Gauge("pneumoserve_alerts_waiting", "Messages that wait to be sent.")
OLDEST_WAITING: Final = Gauge(
    "pneumoserve_alerts_oldest_waiting_timestamp_seconds",
    "Since when the oldest message waits to be sent, in Unix seconds; 0 where none waits.",
)
OLDEST_UNANSWERED: Final = Gauge(
    "pneumoserve_alerts_oldest_unanswered_timestamp_seconds",
    "When the oldest alert of the last 30 days was raised that nobody has answered, in Unix seconds; 0 where none is.",
)
SEALED: Final = Gauge(
    "pneumoserve_archive_sealed_timestamp_seconds",
    "When the newest seal was made that a trusted sealer signed, in Unix seconds; 0 where there is none.",
)
UNANSWERED: Final = Gauge("pneumoserve_alerts_unanswered", "Alerts of the last 30 days that nobody has answered.")
PER_100_IMAGES: Final = Gauge("pneumoserve_alerts_per_100_images", "Alerts per 100 X-rays of the last 30 days.")
LISTED: Final = Gauge(
    "pneumoserve_alerts_listed", "Studies of the last 30 days that are listed and alert nobody, by reason.", ["reason"]
)
LAST_LOOK: Final = Gauge("pneumoserve_alerts_last_look_seconds", "When the archive was last followed, in Unix seconds.")
CLOSED: Final = Counter("pneumoserve_alerts_closed", "Answered alerts that were closed, since their study is over.")
ERASED: Final = Counter("pneumoserve_alert_names_erased", "Envelopes with practitioner and reference that were erased.")

# Prometheus sees no increase where the first value is 1.
for _severity in get_args(Severity):
    RAISED.labels(_severity)
