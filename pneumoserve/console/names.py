"""Whose X-ray it is, as the caller named it, for pages of people who may know: it is read anew for each page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pneumoserve.alerts import read_addressee
from pneumoserve.console.services import Services
from pneumoserve.records import Addressee, EnvelopeError
from pneumoserve.review import Case
from pneumoserve.store import StoreError

_NO_KEY: Final = "This console has no key for names; ask whoever runs it for --envelope-key."
_OTHER_KEY: Final = "The names do not open: they were sealed to another key. Tell whoever runs the console."
_AWAY: Final = "The archive did not answer, so names are missing here. Load the page again in a moment."
_NONE: Final = "Nobody is named: the caller named nobody, or the names were erased since the study is over."


@dataclass(frozen=True)
class Names:
    """What the caller told of a study, or why nothing of it is shown."""

    told: Addressee
    missing: str = ""


def names_of(services: Services, case: Case) -> Names:
    """The names of a study. That they cannot be read keeps nobody from the rest of a page."""
    if services.opening is None:
        return Names(Addressee(), _NO_KEY)
    try:
        told = read_addressee(services.store, services.opening, [image.prediction_id for image in case.images])
    except EnvelopeError:
        return Names(Addressee(), _OTHER_KEY)
    except StoreError:
        return Names(Addressee(), _AWAY)
    return Names(told, _NONE if told == Addressee() else "")
