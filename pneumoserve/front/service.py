"""One call from its bytes to its answer: decode once, detector, typer if needed, decision, record, answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pneumoserve.archive.chain import now_text
from pneumoserve.archive.films import image_detail
from pneumoserve.archive.record import (
    CallDetail,
    ErrorDetail,
    Receipt,
    Record,
    RefusedInput,
)
from pneumoserve.archive.references import References
from pneumoserve.archive.store import StoreError
from pneumoserve.archive.writer import ArchiveWriter
from pneumoserve.decision import Decision
from pneumoserve.front import metrics
from pneumoserve.front.callers import Callers
from pneumoserve.front.errors import CallError
from pneumoserve.front.torchserve import TorchServe
from pneumoserve.front.wire import Call, Origin
from pneumoserve.ids import uuid7
from pneumoserve.image import ImageError, PreparedImage, prepare
from pneumoserve.judging import judge
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release import Release

ModelName = Literal["pneumonia", "pneumonia-detector", "pneumonia-typer"]
MODEL_NAMES: Final[tuple[str, ...]] = get_args(ModelName)

# What one front holds at once: beyond it a call is told to come back, before memory is.
_MAX_CALLS: Final = 256
_MAX_BYTES: Final = 512 * 1024 * 1024

_CONTENT_TYPES: Final = {"jpeg": "image/jpeg", "png": "image/png", "dicom": "application/dicom"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What one film's call is answered with. A probability is None where its model did not run."""

    prediction_id: str
    release: str
    decision: Decision | None
    pneumonia_probability: float | None
    bacterial_probability: float | None
    receipt: Receipt


class Refusal(Exception):  # noqa: N818 - an outcome that travels as an exception
    """A call that was refused or failed; `receipt` says where its record stands, None if the archive took none."""

    def __init__(self, error: CallError, prediction_id: str, receipt: Receipt | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.prediction_id = prediction_id
        self.receipt = receipt


class Service:
    """The front's work, free of transport."""

    def __init__(
        self,
        release: Release,
        backend: TorchServe,
        archive: ArchiveWriter,
        references: References,
        callers: Callers,
        decoders: int,
    ) -> None:
        self.release = release
        self.callers = callers
        self._references = references
        self._backend = backend
        self._archive = archive
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._calls = 0
        self._bytes = 0

    @property
    def ready(self) -> bool:
        """Whether a call would be answered: workers are there, and the archive takes records."""
        return self._backend.ready and self._archive.healthy

    @contextlib.asynccontextmanager
    async def admitted(self, size: int) -> AsyncIterator[None]:
        """Hold a place for a call of `size` bytes.

        Raises:
            CallError: 429 where the front is full.
        """
        if self._calls >= _MAX_CALLS or self._bytes + size > _MAX_BYTES:
            raise CallError(429, "The service has more calls than it can hold; try again after a moment.")
        self._calls += 1
        self._bytes += size
        try:
            with metrics.IN_FLIGHT.track_inprogress():
                yield
        finally:
            self._calls -= 1
            self._bytes -= size

    async def answer(self, model: str, call: Call) -> list[Answer]:
        """Answer a call, each film on record before this returns.

        Raises:
            Refusal: the call gets no answer.
        """
        call_id = uuid7()
        started = time.perf_counter()
        try:
            films = await self._prepared(call)
            records = await self._judged(model, call, call_id, films, started)
        except CallError as error:
            raise await self.refused(model, call, error, call_id, started) from error
        except StoreError:
            raise self._unrecorded(call_id) from None
        try:
            receipts = await asyncio.gather(*(self._archive.commit(record) for record in records))
        except StoreError:
            raise self._unrecorded(records[0].prediction_id) from None
        metrics.CALL_SECONDS.labels(model).observe(time.perf_counter() - started)
        for record in records:
            _count(record)
        return [_answer(record, receipt) for record, receipt in zip(records, receipts, strict=True)]

    async def refused(
        self,
        model: str,
        call: Call | Origin,
        error: CallError,
        call_id: str | None = None,
        started: float | None = None,
    ) -> Refusal:
        """Record a call that gets no answer, and say under which id; `started` is when it was read, by perf_counter."""
        prediction_id = uuid7()
        culprit = call.images[error.index] if isinstance(call, Call) and error.index is not None else None
        record = self._record(
            kind="refusal" if error.status < 500 else "failure",
            prediction_id=prediction_id,
            call=CallDetail(
                call_id=call_id or prediction_id,
                index=error.index or 0,
                count=len(call.images) if isinstance(call, Call) else 0,
                model=model if model in MODEL_NAMES else "unknown",
                protocol=call.protocol,
                encoding=call.encoding,
                subject=call.subject,
                **self._hashed(call if isinstance(call, Call) else None),
            ),
            refused=RefusedInput(
                input_sha256=None if culprit is None else hashlib.sha256(culprit).hexdigest(),
                input_bytes=None if culprit is None else len(culprit),
            ),
            error=ErrorDetail(status=error.status, message=error.message),
            duration_ms=_milliseconds(started),
        )
        try:
            receipt = await self._archive.commit(record)
        except StoreError:
            return self._unrecorded(prediction_id)
        return Refusal(error, prediction_id, receipt)

    def _unrecorded(self, prediction_id: str) -> Refusal:
        metrics.UNRECORDED.inc()
        _log.error("no record could be written; the call with prediction_id %s is refused", prediction_id)
        error = CallError(503, "The archive takes no records at the moment, so nothing is answered; try again.")
        return Refusal(error, prediction_id, None)

    async def _prepared(self, call: Call) -> list[PreparedImage]:
        loop = asyncio.get_running_loop()
        decoding = [loop.run_in_executor(self._decoders, prepare, data) for data in call.images]
        films: list[PreparedImage] = []
        for index, outcome in enumerate(await asyncio.gather(*decoding, return_exceptions=True)):
            if isinstance(outcome, ImageError):
                raise CallError(outcome.status, str(outcome), index)
            if isinstance(outcome, BaseException):
                raise outcome
            films.append(outcome)
        return films

    async def _judged(
        self, model: str, call: Call, call_id: str, films: Sequence[PreparedImage], started: float
    ) -> list[Record]:
        """Records of all films, complete but for being committed; their images are stored meanwhile."""
        uploads = [
            self._archive.put_image(film.stored_sha256, film.stored, _CONTENT_TYPES[film.format]) for film in films
        ]
        verdicts, _ = await asyncio.gather(
            asyncio.gather(*(judge(self.release, self._backend, model, film) for film in films)),
            asyncio.gather(*uploads),
        )
        return [
            self._record(
                kind="prediction",
                prediction_id=uuid7(),
                call=CallDetail(
                    call_id=call_id,
                    index=index,
                    count=len(films),
                    model=model,
                    protocol=call.protocol,
                    encoding=call.encoding,
                    subject=call.subject,
                    **self._hashed(call),
                ),
                image=image_detail(film),
                models=uses,
                decision=decision,
                duration_ms=_milliseconds(started),
            )
            for index, (film, (uses, decision)) in enumerate(zip(films, verdicts, strict=True))
        ]

    def _hashed(self, call: Call | None) -> dict[str, str | None]:
        if call is None:
            return {}
        hashed = self._references.hashed
        return {"study": hashed("study", call.named.study), "patient": hashed("patient", call.named.patient)}

    def _record(self, **details: object) -> Record:
        return Record.model_validate(
            {
                **details,
                "time": now_text(),
                "release": self.release.id,
                "release_digest": self.release.digest,
                "preprocessing_version": self.release.manifest.preprocessing_version,
            }
        )


def _milliseconds(started: float | None) -> float | None:
    return None if started is None else round((time.perf_counter() - started) * 1000, 1)


def _answer(record: Record, receipt: Receipt) -> Answer:
    probabilities = {use.name: use.probability for use in record.models}
    return Answer(
        prediction_id=record.prediction_id,
        release=record.release,
        decision=record.decision,
        pneumonia_probability=probabilities.get(DETECTOR),
        bacterial_probability=probabilities.get(TYPER),
        receipt=receipt,
    )


def _count(record: Record) -> None:
    if record.decision is not None:
        metrics.IMAGES.labels(record.decision.finding or "none", record.decision.referred).inc()
