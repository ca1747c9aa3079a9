"""What the service's statuses mean: whether it is asked again, for how long, or never."""

from __future__ import annotations

import pytest

from pneumoserve.intake.calls import _refusal
from pneumoserve.intake.errors import ServiceAwayError, ServiceFaultError, ServiceRefusalError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, ServiceAwayError) for status in (408, 409, 429, 502, 503, 504)),
        (500, ServiceFaultError),
        *((status, ServiceRefusalError) for status in (400, 404, 415)),
    ],
)
def test_a_status_says_whether_it_is_asked_again(status: int, kind: type[Exception]) -> None:
    error = _refusal(status, b'{"error": "No."}')
    assert (type(error), str(error)) == (kind, f"The service answers {status}: No.")


def test_an_image_that_cannot_be_read_is_named() -> None:
    error = _refusal(400, b'{"error": "Image 2: It is cut short."}')
    assert isinstance(error, ServiceRefusalError)
    assert (error.index, str(error)) == (2, "It is cut short.")
