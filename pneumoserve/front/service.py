"""One call from its bytes to its answer: decode once, detector, typer if needed, decision, record, answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

from pneumoserve.canonical import digest_of
from pneumoserve.decision import STOPPED, Decision
from pneumoserve.errors import PneumoserveError
from pneumoserve.front import metrics
from pneumoserve.front.alerting import Alerting
from pneumoserve.front.errors import CallError
from pneumoserve.front.identity import Callers
from pneumoserve.front.stops import Served
from pneumoserve.front.wire import Call, Origin
from pneumoserve.ids import uuid7
from pneumoserve.imaging import ImageError, PreparedImage
from pneumoserve.imaging.pool import Budget
from pneumoserve.inference import Backend, infer
from pneumoserve.ledger import Receipt, now_text
from pneumoserve.logs import log_event
from pneumoserve.names import DECISION, DETECTOR, TYPER
from pneumoserve.records import CallDetail, ErrorDetail, Pseudonyms, Record, RefusedInput, image_detail
from pneumoserve.release.schema import ReleaseManifest
from pneumoserve.store import StoreError
from pneumoserve.tracing import Attribute, current_call, span

ModelName = Literal["pneumonia", "pneumonia-detector", "pneumonia-typer"]
MODEL_NAMES: Final[tuple[str, ...]] = get_args(ModelName)

_CONTENT_TYPES: Final = {"jpeg": "image/jpeg", "png": "image/png", "dicom": "application/dicom"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What one film's call is answered with. A probability is None where its model did not run, or is stopped.

    `notice` goes with a stated type and is None without one; `intended_use` goes with every answer of the release, and
    so does `assumed_prevalence`, the share of sick patients at which its probabilities are calibrated.
    """

    prediction_id: str
    release: str
    decision: Decision | None
    pneumonia_probability: float | None
    bacterial_probability: float | None
    notice: str | None
    intended_use: str
    assumed_prevalence: float
    receipt: Receipt


class Refusal(PneumoserveError):  # noqa: N818 - an outcome that travels as an exception
    """A call that was refused or failed; `receipt` says where its record stands, None if the archive took none."""

    def __init__(self, error: CallError, prediction_id: str, receipt: Receipt | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.prediction_id = prediction_id
        self.receipt = receipt


class Models(Backend, Protocol):
    """What runs the release's models, as `TorchServe` does."""

    @property
    def ready(self) -> bool:
        """Whether all models have a worker."""
        ...


class Archive(Protocol):
    """What puts calls on record, as `ArchiveWriter` does."""

    @property
    def healthy(self) -> bool:
        """Whether a record would be taken."""
        ...

    async def put_image(self, stored_sha256: str, data: bytes, content_type: str) -> None:
        """Store a film once; raises StoreError where that fails."""
        ...

    async def put_envelope(self, prediction_id: str, sealed: bytes) -> None:
        """Store whose X-ray it is, so that it can be erased; raises StoreError where that fails."""
        ...

    async def commit(self, record: Record) -> Receipt:
        """Write a record, and return once it is stored; raises StoreError where that fails."""
        ...


class Decoders(Protocol):
    """What decodes films, as `DecoderPool` does."""

    @property
    def ready(self) -> bool:
        """Whether a film would be decoded."""
        ...

    def submit(self, data: bytes, budget: Budget) -> Future[PreparedImage]:
        """Have a film prepared at the cost of its call; the future raises ImageError where it is refused."""
        ...


class Service:
    """The front's work, free of transport."""

    def __init__(
        self,
        served: Served,
        models: Models,
        archive: Archive,
        references: Pseudonyms,
        callers: Callers,
        decoders: Decoders,
        alerting: Alerting | None = None,
    ) -> None:
        self.callers = callers
        self._served = served
        self._release = served.release
        self._references = references
        self._models = models
        self._archive = archive
        self._decoders = decoders
        self._alerting = alerting or Alerting()

    @property
    def release_id(self) -> str:
        """Id of the release that answers."""
        return self._release.id

    @property
    def ready(self) -> bool:
        """Whether a call would be answered: all workers are there, the archive takes records, a stop would be known."""
        return self._models.ready and self._archive.healthy and self._decoders.ready and self._served.known

    async def answer(self, model: str, call: Call, claim: Callable[[], Awaitable[None]] | None = None) -> list[Answer]:
        """Answer a call, each film on record before this returns.

        `claim` is called when all but the records is done; where it raises a CallError, the call is refused.

        Raises:
            Refusal: the call gets no answer.
        """
        call_id = uuid7()
        started = time.perf_counter()
        try:
            if not self._served.known:
                raise CallError(503, "It is not known yet whether this release is stopped; try again.")
            self._alerting.check(model, call.named)
            films = await self._decode(call)
            records = await self._infer_all(model, call, call_id, films, started)
            if claim is not None:
                await claim()
        except CallError as error:
            raise await self.refuse(model, call, error, call_id, started) from error
        except StoreError:
            raise self._refuse_unrecorded(call_id) from None
        try:
            await self._put_envelopes(call, records)
            with span("commit", records=len(records)):
                receipts = await asyncio.gather(*(self._archive.commit(record) for record in records))
        except StoreError:
            raise self._refuse_unrecorded(records[0].prediction_id) from None
        metrics.CALL_SECONDS.labels(model, call.protocol).observe(time.perf_counter() - started)
        self._alerting.hint(records)
        for record in records:
            if record.decision is not None:
                metrics.count_decision(record.decision)
        _tell(records, 200)
        manifest = self._release.manifest
        return [_answer(manifest, record, receipt) for record, receipt in zip(records, receipts, strict=True)]

    async def refuse(
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
        # Of up to 32 MiB: the event loop does not wait for it.
        digest = None if culprit is None else await asyncio.to_thread(digest_of, culprit)
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
                **self._named(call if isinstance(call, Call) else None),
            ),
            refused=RefusedInput(
                input_sha256=digest,
                input_bytes=None if culprit is None else len(culprit),
            ),
            error=ErrorDetail(status=error.status, message=error.message),
            duration_ms=_milliseconds(started),
        )
        try:
            with span("commit", records=1):
                receipt = await self._archive.commit(record)
        except StoreError:
            return self._refuse_unrecorded(prediction_id)
        _tell([record], error.status)
        return Refusal(error, prediction_id, receipt)

    def _refuse_unrecorded(self, prediction_id: str) -> Refusal:
        metrics.UNRECORDED.inc()
        _log.error(
            "no record could be written; the call is refused", extra={"fields": {"prediction_ids": [prediction_id]}}
        )
        current_call().set(status=503, prediction_ids=[prediction_id])
        current_call().fail("503")
        error = CallError(503, "The archive takes no records at the moment, so nothing is answered; try again.")
        return Refusal(error, prediction_id, None)

    async def _decode(self, call: Call) -> list[PreparedImage]:
        """All films of a call; one that fails ends the decoding of those after it.

        Raises:
            CallError: a film is refused, the first one in the call where several are.
        """
        budget = Budget(call.subject)
        with span("decode", images=len(call.images)):
            return await self._decode_within(call, budget)

    async def _decode_within(self, call: Call, budget: Budget) -> list[PreparedImage]:
        decoding = [asyncio.wrap_future(self._decoders.submit(data, budget)) for data in call.images]
        try:
            await asyncio.wait(decoding, return_when=asyncio.FIRST_EXCEPTION)
            failed = [index for index, film in enumerate(decoding) if film.done() and film.exception() is not None]
            for film in decoding[failed[0] :] if failed else []:
                film.cancel()
            return [await self._await_film(index, film, budget) for index, film in enumerate(decoding)]
        finally:
            # Of a call that is given up too: nobody waits for them.
            for film in decoding:
                film.cancel()

    async def _await_film(self, index: int, decoding: asyncio.Future[PreparedImage], budget: Budget) -> PreparedImage:
        over = budget.refusal()
        if over is not None:
            raise CallError(over.status, str(over))
        try:
            return await decoding
        except ImageError as error:
            raise CallError(error.status, str(error), index) from None

    async def _infer_all(
        self, model: str, call: Call, call_id: str, films: Sequence[PreparedImage], started: float
    ) -> list[Record]:
        """Records of all films, complete but for being committed; their images are stored meanwhile."""
        inferences, _ = await asyncio.gather(
            asyncio.gather(*(infer(self._release, self._models, model, film) for film in films)),
            asyncio.gather(*(self._upload(film) for film in films)),
        )
        stop = self._served.stop if model == DECISION else None
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
                    **self._named(call),
                ),
                image=image_detail(film),
                models=inference.models,
                decision=inference.decision if stop is None else STOPPED,
                stop=stop,
                duration_ms=_milliseconds(started),
            )
            for index, (film, inference) in enumerate(zip(films, inferences, strict=True))
        ]

    async def _upload(self, film: PreparedImage) -> None:
        with span("upload", bytes=len(film.stored)):
            await self._archive.put_image(film.stored_sha256, film.stored, _CONTENT_TYPES[film.format])

    async def _put_envelopes(self, call: Call, records: Sequence[Record]) -> None:
        """Before the records: whoever reads one finds its envelope there."""
        ids = [record.prediction_id for record in records]
        sealed = {each: envelope for each in ids if (envelope := self._alerting.seal(each, call.named)) is not None}
        await asyncio.gather(*(self._archive.put_envelope(*each) for each in sealed.items()))

    def _named(self, call: Call | None) -> dict[str, Any]:
        """What a record says of what the caller named."""
        if call is None:
            return {}
        named, hashed = call.named, self._references.hash
        return {
            "study": hashed("study", named.study),
            "patient": hashed("patient", named.patient),
            "origin": named.origin,
        }

    def _record(self, **details: object) -> Record:
        return Record.model_validate(
            {
                **details,
                "time": now_text(),
                "release": self._release.id,
                "release_digest": self._release.digest,
                "preprocessing_version": self._release.manifest.preprocessing_version,
                "traceparent": current_call().traceparent,
            }
        )


def _milliseconds(started: float | None) -> float | None:
    return None if started is None else round((time.perf_counter() - started) * 1000, 1)


def _answer(manifest: ReleaseManifest, record: Record, receipt: Receipt) -> Answer:
    # Whoever decides by the number alone must see that there is none to decide by.
    uses = record.models if record.stop is None else ()
    probabilities = {use.name: use.probability for use in uses}
    states_type = record.decision is not None and record.decision.pneumonia_type is not None
    return Answer(
        prediction_id=record.prediction_id,
        release=record.release,
        decision=record.decision,
        pneumonia_probability=probabilities.get(DETECTOR),
        bacterial_probability=probabilities.get(TYPER),
        notice=manifest.type_notice if states_type else None,
        intended_use=manifest.intended_use,
        assumed_prevalence=manifest.policy.assumed_prevalence,
        receipt=receipt,
    )


def _tell(records: Sequence[Record], status: int) -> None:
    """One line in the log and the end of the trace, of a call whose records are written."""
    call, ids = records[0].call, [record.prediction_id for record in records]
    decisions = [record.decision for record in records if record.decision is not None]
    said: dict[str, Attribute] = {"model": call.model, "status": status, "prediction_ids": ids}
    log_event(
        _log, "call", **said, protocol=call.protocol, release=records[0].release, duration_ms=records[-1].duration_ms
    )
    traced = current_call()
    traced.set(**said, reasons=sorted({reason for decision in decisions for reason in decision.reasons}))
    if status >= 500:
        traced.fail(str(status))
