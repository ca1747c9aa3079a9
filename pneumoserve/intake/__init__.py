"""X-rays that come by DICOM: taken into a spool, answered as studies, and their results sent back.

`Spool` is the state of all of it. `Receiver` (C-STORE) and `WebReceiver` (STOW-RS) put objects there, `Studies` has
them answered, and a `Destination` sends results; `python -m pneumoserve.intake` runs them. `IntakeRules` is what a site
decides.
"""

import logging

from pneumoserve.intake.destinations import check_destination
from pneumoserve.intake.errors import IntakeError, IntakeRulesError
from pneumoserve.intake.rules import IntakeRules, load_rules
from pneumoserve.intake.sender import echo, parse_address
from pneumoserve.intake.spool import Batch, Failure, Spool
from pneumoserve.intake.tls import Tls
from pneumoserve.intake.web import check_url

# Their lines hold what was sent, and UIDs.
for _library in ("highdicom", "pynetdicom", "python_multipart"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)
    logging.getLogger(_library).propagate = False

__all__ = [
    "Batch",
    "Failure",
    "IntakeError",
    "IntakeRules",
    "IntakeRulesError",
    "Spool",
    "Tls",
    "check_destination",
    "check_url",
    "echo",
    "load_rules",
    "parse_address",
]
