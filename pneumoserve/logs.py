"""Logs of processes that run for long: one line an event, as text or as JSON, and no words of a caller in any.

What is said of an error is its type and place: the text of an exception may hold what was sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import orjson

__all__ = ["bind", "log_event", "request_id_of", "set_up_logs", "wants_json"]

REQUEST_ID_HEADER: Final = "x-request-id"
# What gateways make. Anything else may be a name or an accession number.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Of libraries, warnings are enough; some of them log addresses of requests below that.
_TALKATIVE: Final = ("pneumoserve", "uvicorn", "kserve")

_bound: ContextVar[Mapping[str, object] | None] = ContextVar("bound", default=None)


@contextlib.contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Add fields to every line of this task, and of the tasks and threads that it starts in its context."""
    token = _bound.set({**(_bound.get() or {}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def log_event(logger: logging.Logger, message: str, **fields: object) -> None:
    """Log one line with fields beside its message; none of them may hold words of a caller."""
    logger.info(message, extra={"fields": fields})


def request_id_of(headers: Iterable[tuple[str, str | bytes]]) -> str:
    """The id that a gateway gave a request, where it is a UUID; else one of our own."""
    given = [value for name, value in headers if name.lower() == REQUEST_ID_HEADER]
    if len(given) == 1 and isinstance(given[0], str) and _UUID.fullmatch(given[0]):
        return given[0].lower()
    return str(uuid.uuid4())


def wants_json() -> bool:
    """Whether LOG_FORMAT asks for JSON."""
    return os.environ.get("LOG_FORMAT", "text") == "json"


def set_up_logs() -> None:
    """Write all logs of this process to stderr, in the form that LOG_FORMAT names: text (the default) or json."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if wants_json() else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, place: _log_uncaught((kind, error, place))
    threading.excepthook = lambda args: _log_uncaught(
        (args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    )


def _log_uncaught(raised: Any) -> None:
    logging.getLogger(__name__).critical("nothing caught an error", exc_info=raised)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What a line says beside its message."""
    fields: dict[str, object] = {**(_bound.get() or {}), **getattr(record, "fields", {})}
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = type(record.exc_info[1]).__name__
        frames = traceback.extract_tb(record.exc_info[2])
        fields["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return {name: value for name, value in fields.items() if value is not None}


def _moment(record: logging.LogRecord) -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _first_line(record: logging.LogRecord) -> str:
    # asyncio shows a task's exception, text and all, below its first line.
    return record.getMessage().partition("\n")[0]


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _first_line(record),
            **_fields(record),
        }
        return orjson.dumps(line, default=str).decode()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return f"{_moment(record)} {record.levelname} {record.name}: {_first_line(record)}{fields}"
