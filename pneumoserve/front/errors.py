"""The one error of a call, and how each transport names its status."""

from __future__ import annotations

from typing import Final

import grpc

from pneumoserve.errors import PneumoserveError

# gRPC's names for what HTTP says with a number; anything else our code answers is UNAVAILABLE or INTERNAL.
_GRPC_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.OUT_OF_RANGE,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}

RETRY_AFTER_SECONDS: Final = 2


class CallError(PneumoserveError):
    """A call that gets no answer: an HTTP status and one sentence, free of payload, that says what to do.

    `index` is the place, from 0, of the film that caused it, where one did.
    """

    def __init__(self, status: int, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message if index is None else f"Image {index}: {message}"
        self.index = index

    @property
    def grpc_code(self) -> grpc.StatusCode:
        """The gRPC status that says the same."""
        return _GRPC_CODES[self.status]

    @property
    def retry_after(self) -> int | None:
        """Seconds after which a retry is worth it, None where a retry cannot help."""
        return RETRY_AFTER_SECONDS if self.status in (409, 429, 503) else None
