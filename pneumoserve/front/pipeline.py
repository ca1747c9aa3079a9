"""The one way of a call: who calls, what is asked, the answer, the record. Transports only read and encode.

A transport describes one call as an `Incoming`; `Pipeline.run` does the rest, the same for all of them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from pneumoserve.errors import PneumoserveError
from pneumoserve.front.admission import Admission, Place
from pneumoserve.front.errors import CallError
from pneumoserve.front.idempotency import FirstAnswers, Reply
from pneumoserve.front.identity import Callers
from pneumoserve.front.models import check_outputs
from pneumoserve.front.service import MODEL_NAMES, Answer, Refusal
from pneumoserve.front.wire import Call, Origin
from pneumoserve.logs import bind, log_event, request_id_of
from pneumoserve.tracing import call_span, current_call

_log: Final = logging.getLogger(__name__)
_ResponseT = TypeVar("_ResponseT")


class Incoming(Protocol[_ResponseT]):
    """One call as its transport sees it. `model` and `version` count from `read` on."""

    model: str
    version: str | None

    @property
    def origin(self) -> Origin:
        """How the call came, before its caller is known."""
        ...

    @property
    def headers(self) -> Iterable[tuple[str, str | bytes]]:
        """Headers or metadata, among which a gateway names the caller."""
        ...

    async def read(self, place: Place) -> None:
        """Read the call's body into its place.

        Raises:
            CallError: the body is refused.
            AbandonedError: the call ended before its body was whole.
        """
        ...

    async def parse(self) -> Call:
        """Parse the body, and let go of it.

        Raises:
            CallError: 400 malformed.
        """
        ...

    def encode(self, call: Call, answers: list[Answer]) -> _ResponseT:
        """The response with a call's answers."""
        ...

    def pack(self, response: _ResponseT) -> Reply:
        """A response as it can be kept."""
        ...

    def unpack(self, reply: Reply) -> _ResponseT:
        """The response that was kept, the same bytes."""
        ...


class Answering(Protocol):
    """What the pipeline needs of a `Service`."""

    callers: Callers

    @property
    def release_id(self) -> str:
        """Id of the release that answers."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a call would be answered."""
        ...

    async def answer(self, model: str, call: Call, claim: Callable[[], Awaitable[None]] | None = None) -> list[Answer]:
        """Answer a call; see `Service.answer`."""
        ...

    async def refuse(self, model: str, call: Call | Origin, error: CallError) -> Refusal:
        """Record a call that gets no answer; see `Service.refuse`."""
        ...


class AbandonedError(PneumoserveError):
    """A call that ended before its body was whole: it is counted, and not recorded."""


class Pipeline:
    """Takes calls of any transport to their answers over one service."""

    def __init__(self, service: Answering, admission: Admission, first_answers: FirstAnswers) -> None:
        self.service = service
        self.admission = admission
        self._first_answers = first_answers

    async def run(self, incoming: Incoming[_ResponseT]) -> _ResponseT:
        """Answer one call.

        Raises:
            Refusal: it gets no answer, which is on record.
            AbandonedError: it ended before its body was whole.
        """
        origin = incoming.origin
        with (
            call_span(incoming.headers, protocol=origin.protocol, encoding=origin.encoding) as traced,
            bind(request_id=request_id_of(incoming.headers), trace_id=traced.trace_id),
        ):
            return await self._run(incoming, origin)

    async def _run(self, incoming: Incoming[_ResponseT], origin: Origin) -> _ResponseT:
        try:
            origin = replace(origin, subject=self.service.callers.subject(incoming.headers))
            with self.admission.place() as place:
                await incoming.read(place)
                self.check_model(incoming.model, incoming.version)
                with self.admission.answering():
                    call = replace(await incoming.parse(), subject=origin.subject)
                    check_outputs(incoming.model, call)
                    if call.idempotency_key is not None:
                        return await _finish(self._answer_once(incoming, call))
                    answers = await self.service.answer(incoming.model, call)
                    return incoming.encode(call, answers)
        except CallError as error:
            raise await self.service.refuse(incoming.model, origin, error) from error
        except (Refusal, AbandonedError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an id and the record says 500
            raise await self.service.refuse(incoming.model, origin, report_fault(error)) from None

    async def _answer_once(self, incoming: Incoming[_ResponseT], call: Call) -> _ResponseT:
        """Answer a call that names an idempotency key, as it was answered before if it was."""
        first = self._first_answers
        keyed = await first.identify(incoming.model, incoming.version, call)
        reply = await first.find(keyed)
        if reply is None:
            answers = await self.service.answer(incoming.model, call, functools.partial(first.claim, keyed))
            reply = await first.keep(keyed, incoming.pack(incoming.encode(call, answers)))
        else:
            log_event(_log, "repeated call", model=incoming.model, status=200, protocol=call.protocol)
            current_call().set(model=incoming.model, status=200, repeated=True)
        return incoming.unpack(reply)

    def check_model(self, model: str, version: str | None) -> None:
        """See that a model is served here, in the version that is asked for; None is any.

        Raises:
            CallError: 404 where it is not.
        """
        if model not in MODEL_NAMES:
            raise CallError(404, f"There is no such model; the models are {', '.join(MODEL_NAMES)}.")
        if version not in (None, self.service.release_id):
            raise CallError(404, f"There is no such version; this deployment serves {self.service.release_id}.")


async def _finish(work: Coroutine[Any, Any, _ResponseT]) -> _ResponseT:
    """Do work to its end though its caller gives up meanwhile: that is when calls are repeated."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        # Nobody waits for its outcome, be it an error.
        if not task.cancelled():
            task.exception()
        raise


def report_fault(error: BaseException) -> CallError:
    """Log a fault of ours by type and place alone, since its text may hold what was sent; the error to answer with."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = "unknown" if frame is None else f"{frame.tb_frame.f_code.co_name}:{frame.tb_lineno}"
    _log.error("unexpected %s at %s", type(error).__name__, place)
    return CallError(500, "The service failed on this call; report its prediction_id.")


def label_of(model: str) -> str:
    """A model's name as metrics have it: never a word of a caller."""
    return model if model in MODEL_NAMES else "unknown"
