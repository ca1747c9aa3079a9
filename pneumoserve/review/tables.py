"""The tables of the review database.

`predictions` and `facts` hold what the archive says; `following` fills them. `cases`, `tasks`, `readings`, `exposures`,
`alerts` and `outbox` are made of those two by `derive`, study by study. Only `claims`, `leases` and `positions` are not
made of the archive: who reads or sends what at this moment, and how far the archive was followed.

Times are RFC 3339 texts in UTC with milliseconds, as the archive has them: they sort as the moments do.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, and_

METADATA: Final = MetaData()
_ID, _CASE, _TIME, _NAME, _WORD = String(36), String(64), String(24), String(255), String(32)

predictions = Table(
    "predictions",
    METADATA,
    Column("prediction_id", _ID, primary_key=True),
    Column("case_id", _CASE, nullable=False, index=True),
    Column("time", _TIME, nullable=False),
    Column("release", String(12), nullable=False),
    Column("caller", _NAME),
    Column("patient", String(64)),
    Column("origin", _WORD),
    Column("finding", _WORD),
    Column("pneumonia_type", _WORD),
    Column("confidence", Float),
    Column("referred", Boolean, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("pneumonia_probability", Float),
    Column("stored_key", Text, nullable=False),
    Column("format", _WORD, nullable=False),
)

facts = Table(
    "facts",
    METADATA,
    Column("entry_id", _ID, primary_key=True),
    Column("kind", _WORD, nullable=False, index=True),
    Column("case_id", _CASE, index=True),
    Column("prediction_id", _ID, index=True),
    Column("time", _TIME, nullable=False),
    Column("body", Text, nullable=False),
)

cases = Table(
    "cases",
    METADATA,
    Column("case_id", _CASE, primary_key=True),
    Column("opened", _TIME, nullable=False, index=True),
    Column("release", String(12), nullable=False),
    Column("patient", String(64)),
    Column("flagged", Boolean, nullable=False),
    Column("withdrawn", Boolean, nullable=False),
    Column("images", Integer, nullable=False),
    Column("finding", _WORD),
    Column("pneumonia_type", _WORD),
    Column("confidence", Float),
    Column("referred", Boolean, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("pneumonia_probability", Float),
    Column("severity", _WORD),
    Column("alerted", Boolean, nullable=False),
    Column("alert_due", Boolean, nullable=False),
    Column("drawn", Boolean, nullable=False),
    Column("adjudication_due", Boolean, nullable=False),
    Index("cases_alert_due", "alert_due", "opened"),
)

tasks = Table(
    "tasks",
    METADATA,
    Column("case_id", _CASE, primary_key=True),
    Column("asked", _WORD, nullable=False),
    Column("number", Integer, nullable=False),
    Column("due", _TIME, nullable=False),
    Column("probability", Float),
    Index("tasks_due", "due", "case_id"),
)

readings = Table(
    "readings",
    METADATA,
    Column("label_id", _ID, primary_key=True),
    Column("case_id", _CASE, nullable=False),
    Column("number", Integer, nullable=False),
    Column("reader", _NAME, nullable=False),
    Column("time", _TIME, nullable=False),
    Column("finding", _WORD),
    Column("blind", Boolean, nullable=False),
    Column("probability", Float),
    Index("readings_case", "case_id", "reader"),
)

exposures = Table(
    "exposures",
    METADATA,
    Column("case_id", _CASE, primary_key=True),
    Column("person", _NAME, primary_key=True),
    Column("page", _WORD, primary_key=True),
)

alerts = Table(
    "alerts",
    METADATA,
    Column("alert_id", _ID, primary_key=True),
    Column("case_id", _CASE, nullable=False, unique=True),
    Column("caller", _NAME),
    Column("answer_time", _TIME, nullable=False),
    Column("time", _TIME, nullable=False),
    Column("severity", _WORD, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("sent", _TIME),
    Column("acknowledged", _TIME),
    Column("acknowledged_by", _NAME),
    Column("ordered", _WORD),
    Column("escalations", Integer, nullable=False),
    Column("answered", Boolean, nullable=False),
    Column("retracted", Boolean, nullable=False),
    Column("closed", _TIME),
    Index("alerts_open", "closed", "time"),
)

outbox = Table(
    "outbox",
    METADATA,
    Column("alert_id", _ID, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("case_id", _CASE, nullable=False, index=True),
    Column("urgent", Boolean, nullable=False),
    Column("time", _TIME, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try", _TIME, nullable=False),
)

claims = Table(
    "claims",
    METADATA,
    Column("case_id", _CASE, primary_key=True),
    Column("reader", _NAME, nullable=False, index=True),
    Column("until", _TIME, nullable=False),
)

leases = Table(
    "leases",
    METADATA,
    Column("alert_id", _ID, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("holder", _ID, nullable=False),
    Column("until", _TIME, nullable=False),
)

positions = Table(
    "positions",
    METADATA,
    Column("place", Text, primary_key=True),
    Column("sequence", Integer, nullable=False),
)

# Alerts that somebody is still to answer, and those after which something was ordered.
UNANSWERED: Final = and_(alerts.c.closed.is_(None), alerts.c.answered.is_(False))
ACTED_ON: Final = alerts.c.ordered.in_(("blood_test", "expert"))
# The order in which studies are read: flagged ones first, then by when they are due.
READING_ORDER: Final = (tasks.c.asked != "flag", tasks.c.due, tasks.c.case_id)

# What the archive says, and what is made of that; `review rebuild` makes all of it anew.
SAID: Final = (predictions, facts)
DERIVED: Final = (cases, tasks, readings, exposures, alerts, outbox)
