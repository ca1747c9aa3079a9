"""What people decide: alerts, the reading room, labels and the random check.

The archive stays the truth. A database that can be made anew from it holds what waits: `ReviewDatabase` follows the
archive, `ReadingRoom` gives readers their studies, `AlertDesk` hands alerts to a sender, `sample` draws confident
answers, `agreement` compares readers, `outcomes` lists what became of studies, `labelled` gives labels that stand for
all of them. Everything is put on record first, and in the database then.
"""

from pneumoserve.review.agreement import Agreement, Estimate, Pair, estimate_agreement, measure_agreement
from pneumoserve.review.alerts import AlertDesk, Message, OpenAlert
from pneumoserve.review.archive import Commit, commit_by, commit_to
from pneumoserve.review.cases import Case, CaseBook, Counts, find_incidents, find_stops, study_number
from pneumoserve.review.chance import Chance, ChanceKeyError
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.drift import WatchedSource, list_watched
from pneumoserve.review.errors import ArchiveLabelError, ClaimError, DatabaseError, ReviewError, VerdictError
from pneumoserve.review.figures import AlertFigures, find_finished, measure_alerts
from pneumoserve.review.labelled import AnswerCount, Collected, collect_labels
from pneumoserve.review.outcomes import CLOSED_AFTER, Cohort, Studied, list_cohorts
from pneumoserve.review.room import Image, ReadingRoom, Study, Verdict, Waiting, check_name, list_waiting
from pneumoserve.review.sample import (
    GOAL_SENSITIVITY,
    Sampled,
    Sampler,
    choose_probabilities,
    edges_of,
    readings_needed,
    stratum_of,
)

__all__ = [
    "CLOSED_AFTER",
    "GOAL_SENSITIVITY",
    "Agreement",
    "AlertDesk",
    "AlertFigures",
    "AnswerCount",
    "ArchiveLabelError",
    "Case",
    "CaseBook",
    "Chance",
    "ChanceKeyError",
    "ClaimError",
    "Cohort",
    "Collected",
    "Commit",
    "Counts",
    "DatabaseError",
    "Estimate",
    "Image",
    "Message",
    "OpenAlert",
    "Pair",
    "ReadingRoom",
    "ReviewDatabase",
    "ReviewError",
    "Sampled",
    "Sampler",
    "Studied",
    "Study",
    "Verdict",
    "VerdictError",
    "Waiting",
    "WatchedSource",
    "check_name",
    "choose_probabilities",
    "collect_labels",
    "commit_by",
    "commit_to",
    "edges_of",
    "estimate_agreement",
    "find_finished",
    "find_incidents",
    "find_stops",
    "list_cohorts",
    "list_waiting",
    "list_watched",
    "measure_agreement",
    "measure_alerts",
    "readings_needed",
    "stratum_of",
    "study_number",
]
