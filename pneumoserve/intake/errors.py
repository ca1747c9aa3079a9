"""What goes wrong with intake: its rules, its addresses, and what it is asked for."""

from __future__ import annotations

from pneumoserve.errors import PneumoserveError


class IntakeError(PneumoserveError):
    """What intake is asked for cannot be done; the text says what to do."""


class IntakeRulesError(IntakeError):
    """Rules, or an address, that cannot be followed; the text says what to change."""

    exit_code = 2


class ServiceAwayError(IntakeError):
    """The service gives no answer now, and may later."""


class ServiceFaultError(ServiceAwayError):
    """The service fails at this call, as it may each time."""


class ServiceRefusalError(IntakeError):
    """The service refuses a call for good; `index` is the place of the image that caused it, where one did."""

    def __init__(self, sentence: str, index: int | None = None) -> None:
        super().__init__(sentence)
        self.index = index


class PeerAwayError(IntakeError):
    """A destination takes nothing now, and may later; in `after` seconds at the soonest, where it said so."""

    def __init__(self, sentence: str, after: float = 0.0) -> None:
        super().__init__(sentence)
        self.after = after


class PeerRefusalError(IntakeError):
    """A destination refuses for good, until somebody changes its settings or ours."""


class ContextRefusalError(PeerRefusalError):
    """A destination does not take objects of a SOP class, or does not do what it asks for."""


class RequestRefusalError(IntakeError):
    """A STOW-RS request that is refused as a whole, with its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
