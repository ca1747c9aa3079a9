"""REST: the routes of V1 and V2, and the one shape of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pneumoserve.front import metrics
from pneumoserve.front.admission import FIRST_BYTE_SECONDS, MAX_BODY_BYTES, Admission, Place
from pneumoserve.front.description import (
    INFER,
    PREDICT,
    Alive,
    Live,
    ModelMetadata,
    ModelPath,
    ModelReady,
    Models,
    Ready,
    Server,
    VersionPath,
    look,
)
from pneumoserve.front.errors import CallError
from pneumoserve.front.idempotency import Reply
from pneumoserve.front.models import (
    FrontModel,
    columns,
    describe_server,
    predictions,
    receipts_text,
    response_head,
    study,
)
from pneumoserve.front.paths import Handler, add_missing_path, add_path
from pneumoserve.front.pipeline import AbandonedError, Pipeline, label_of, report_fault
from pneumoserve.front.service import MODEL_NAMES, Answer, Refusal
from pneumoserve.front.wire import HEADER_LENGTH, KEY_HEADER, Call, Origin, encode_v2, parse_v1, parse_v2
from pneumoserve.ledger import Receipt
from pneumoserve.records import Protocol

# A client that still sends reads no answer: this much more is read and thrown away, so that it sees its 413.
_DRAIN_BYTES: Final = 256 * 1024 * 1024
RELEASE_HEADER: Final = "pneumoserve-release"
# Smaller bodies are parsed faster than they are handed to a thread.
_PARSED_HERE: Final = 1024 * 1024


class Routes:
    """The routes over one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        # One at a time: what parsing takes beside the body is part of the memory's calculation.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")

    def register(self, app: FastAPI) -> None:
        """Add the routes; the first path that matches answers."""
        live, names = {"status": "alive"}, {"models": list(MODEL_NAMES)}
        ready = {"name": MODEL_NAMES[0], "ready": True}
        add_path(app, "/", _say(live), **look("Process runs", Alive, live, tag="health"))
        add_path(app, "/v1/models", _say(names), **look("List models (V1)", Models, names))
        add_path(app, "/v1/models/{model}:predict", self.predict, "POST", **PREDICT)
        # What the protocol has and this service has not, such as `:explain`.
        add_missing_path(app, "/v1/models/{model}:{verb}")
        model_ready = look("Model is ready", ModelReady, ready, 404, 503)
        add_path(app, "/v1/models/{model}", self.model_ready, **model_ready)
        add_path(app, "/v2", _say(describe_server()), **look("Server metadata", Server, describe_server()))
        lives = {"live": True}
        add_path(app, "/v2/health/live", _say(lives), **look("Process runs (V2)", Live, lives, tag="health"))
        add_path(app, "/v2/health/ready", self.ready, **look("Ready", Ready, {"ready": True}, 503, tag="health"))
        add_path(app, "/v2/models", _say(names), **look("List models (V2)", Models, names))
        metadata = look("Model metadata", ModelMetadata, None, 404)
        add_path(app, "/v2/models/{model}/infer", self.infer, "POST", **INFER)
        add_path(app, "/v2/models/{model}/ready", self.model_ready, **model_ready)
        add_path(app, "/v2/models/{model}", self.metadata, **metadata)
        one = "/v2/models/{model}/versions/{version}"
        add_path(app, f"{one}/infer", self.infer_version, "POST", **INFER)
        add_path(app, f"{one}/ready", self.version_ready, **model_ready)
        add_path(app, one, self.version_metadata, **metadata)

    async def predict(self, request: Request, model: ModelPath) -> Response:
        """V1 `:predict`: JSON, a plain film, or a form."""
        return await self._call(request, _Path("v1", model))

    async def infer(self, request: Request, model: ModelPath) -> Response:
        """V2 `/infer`, JSON or binary tensors."""
        return await self._call(request, _Path("v2", model))

    async def infer_version(self, request: Request, model: ModelPath, version: VersionPath) -> Response:
        """The same of a release."""
        return await self._call(request, _Path("v2", model, version))

    async def metadata(self, model: ModelPath) -> Response:
        """V2 model metadata."""
        return self._describe(model, None)

    async def version_metadata(self, model: ModelPath, version: VersionPath) -> Response:
        """The same of a release."""
        return self._describe(model, version)

    async def model_ready(self, model: ModelPath) -> Response:
        """Model readiness."""
        return self._check_ready(model, None)

    async def version_ready(self, model: ModelPath, version: VersionPath) -> Response:
        """The same of a release."""
        return self._check_ready(model, version)

    def _describe(self, model: str, version: str | None) -> Response:
        try:
            self._pipeline.check_model(model, version)
        except CallError as error:
            return _error(error, None)
        described = FrontModel(model, self._pipeline.service)
        return _json(
            {
                "name": model,
                "versions": [self._pipeline.service.release_id],
                "platform": "pneumoserve",
                "inputs": described.get_input_types(),
                "outputs": described.get_output_types(),
            }
        )

    def _check_ready(self, model: str, version: str | None) -> Response:
        """503 where a call would not be answered."""
        try:
            self._pipeline.check_model(model, version)
            if not self._pipeline.service.ready:
                raise CallError(503, "The model is not ready; try again.")
        except CallError as error:
            return _error(error, None)
        return _json({"name": model, "ready": True})

    async def ready(self) -> Response:
        """Readiness: 503 where a call would not be answered."""
        if self._pipeline.service.ready:
            return _json({"ready": True})
        return _error(CallError(503, "The service is not ready; try again."), None)

    async def _call(self, request: Request, path: _Path) -> Response:
        recorded = True
        try:
            response = await self._pipeline.run(_HttpCall(request, path, self._pipeline.admission, self._parser))
        except Refusal as refusal:
            response = _error(refusal.error, refusal.prediction_id, refusal.receipt)
            recorded = refusal.receipt is not None
        except AbandonedError:
            response = Response(status_code=499)
        response.headers.setdefault(RELEASE_HEADER, self._pipeline.service.release_id)
        outcome = metrics.outcome_of(response.status_code, recorded)
        metrics.CALLS.labels(label_of(path.model), path.protocol, response.status_code, outcome).inc()
        return response


@dataclass(frozen=True)
class _Path:
    """What a call's path says."""

    protocol: Protocol
    model: str
    version: str | None = None


class _HttpCall:
    """One call by V1 or V2 REST."""

    def __init__(self, request: Request, path: _Path, admission: Admission, parser: ThreadPoolExecutor) -> None:
        self.model, self.version = path.model, path.version
        self.headers = request.headers.items()
        self.origin = Origin(path.protocol, "binary" if HEADER_LENGTH in request.headers else "json")
        self._request = request
        self._admission = admission
        self._parser = parser
        self._chunks: list[bytes] = []

    async def read(self, place: Place) -> None:
        """See `Incoming.read`.

        Raises:
            CallError: 413 over the limit, 415 where it is compressed, 408 where it is slow, 429 without room for it.
        """
        size = 0
        try:
            async with self._admission.arriving(place, FIRST_BYTE_SECONDS):
                async for chunk in self._request.stream():
                    size += len(chunk)
                    place.proceed(size)
                    if size <= MAX_BODY_BYTES:
                        place.reserve(len(chunk))
                        self._chunks.append(chunk)
                    elif size > _DRAIN_BYTES:
                        break
                    else:
                        self._chunks.clear()
                        place.empty()
        except ClientDisconnect:
            raise AbandonedError from None
        except BaseException:
            # The error holds this call until the refusal is on record.
            self._chunks.clear()
            raise
        if size > MAX_BODY_BYTES:
            raise CallError(413, "The body is larger than 44 MiB; send fewer or smaller images.")
        if self._request.headers.get("content-encoding", "identity").lower() != "identity":
            raise CallError(415, "The body is compressed (Content-Encoding); send it as it is.")

    async def parse(self) -> Call:
        """See `Incoming.parse`; large bodies are parsed beside the event loop.

        Raises:
            CallError: 400 malformed.
        """
        if len(self._request.headers.getlist(KEY_HEADER)) > 1:
            raise CallError(400, "The call has several idempotency keys; send one.")
        arguments = self._chunks, self._request.headers, self.origin.protocol
        if sum(map(len, self._chunks)) <= _PARSED_HERE:
            return _parse(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._parser, _parse, *arguments)

    def encode(self, call: Call, answers: list[Answer]) -> Response:
        """See `Incoming.encode`."""
        headers = _receipt_headers([answer.receipt for answer in answers])
        headers[RELEASE_HEADER] = answers[0].release
        if call.protocol == "v1":
            body: dict[str, Any] = {"predictions": predictions(self.model, answers)}
            whole = study(self.model, call, answers)
            if whole is not None:
                body["study"] = whole
            about = {"intended_use": answers[0].intended_use, "assumed_prevalence": answers[0].assumed_prevalence}
            return _json({**body, **about}, headers=headers)
        head, tensors = response_head(self.model, call, answers), columns(self.model, answers)
        encoded, json_length = encode_v2(call, head, tensors)
        if json_length is None:
            return Response(encoded, media_type="application/json", headers=headers)
        headers["Inference-Header-Content-Length"] = str(json_length)
        return Response(encoded, media_type="application/octet-stream", headers=headers)

    def pack(self, response: Response) -> Reply:
        """See `Incoming.pack`."""
        return Reply(dict(response.headers), bytes(response.body))

    def unpack(self, reply: Reply) -> Response:
        """See `Incoming.unpack`."""
        return Response(reply.body, headers=reply.headers)


def _receipt_headers(receipts: list[Receipt]) -> dict[str, str]:
    return {"pneumoserve-recorded": receipts[0].recorded, "pneumoserve-receipts": receipts_text(receipts)}


def _parse(chunks: list[bytes], headers: Mapping[str, str], protocol: Protocol) -> Call:
    body = b"".join(chunks)
    chunks.clear()
    return parse_v1(body, headers) if protocol == "v1" else parse_v2(body, headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def _error(error: CallError, prediction_id: str | None, receipt: Receipt | None = None) -> Response:
    """The one shape of errors; `prediction_id` is null where no call, and so no record, was made."""
    headers = {} if receipt is None else _receipt_headers([receipt])
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 408:
        # What is late of the body is waited for no longer.
        headers["Connection"] = "close"
    return _json({"error": error.message, "prediction_id": prediction_id}, error.status, headers)


def _say(content: Any) -> Handler:
    """A handler that always answers the same."""

    async def handler() -> Response:
        return _json(content)

    return handler


def register_error_handlers(app: FastAPI) -> None:
    """Give what fails outside of a call the one shape of errors too."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _server_error)


async def _http_error(_: Request, error: Exception) -> Response:
    status, headers = (error.status_code, error.headers or {}) if isinstance(error, HTTPException) else (500, {})
    metrics.CALLS.labels("unknown", "none", status, metrics.outcome_of(status)).inc()
    messages = {
        404: "There is no such path; see /v2 and /v2/models.",
        405: f"This path takes {headers.get('Allow')}; call it by one of these methods.",
    }
    response = _error(CallError(status, messages.get(status, "The request is not accepted.")), None)
    response.headers.update(headers)
    return response


async def _server_error(_: Request, error: Exception) -> Response:
    return _error(report_fault(error), None)
