"""REST: the inference routes of V1 and V2, the metadata routes KServe's SDK lacks, and the one shape of errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from kserve.errors import ModelNotFound, ModelNotReady, ServerNotReady
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pneumoserve.archive.record import Protocol, Receipt
from pneumoserve.front import metrics
from pneumoserve.front.errors import CallError
from pneumoserve.front.models import FrontModel, check_outputs, columns, predictions, study
from pneumoserve.front.service import MODEL_NAMES, Answer, Refusal, Service
from pneumoserve.front.wire import HEADER_LENGTH, Call, Origin, encode_v2, json_text, parse_v1, parse_v2
from pneumoserve.ids import uuid7

MAX_BODY_BYTES: Final = 44 * 1024 * 1024
# A client that still sends reads no answer: this much more is read and thrown away, so that it sees its 413.
_DRAIN_BYTES: Final = 256 * 1024 * 1024

_log = logging.getLogger(__name__)


class Routes:
    """The routes over one `Service`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def register(self, app: FastAPI) -> None:
        """Add the routes; they must come before KServe's, since the first match answers."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/v1/models/{model}:predict", self.predict, methods=["POST"])
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            router.add_api_route(f"{base}/infer", self.infer, methods=["POST"])
            router.add_api_route(base, self.metadata, methods=["GET"])
            router.add_api_route(f"{base}/ready", self.model_ready, methods=["GET"])
        # KServe's SDK would let any caller unload a model, or ask for explanations that do not exist.
        for path in ("/v2/repository/{rest:path}", "/v1/models/{model}:explain"):
            router.add_api_route(path, self.not_offered, methods=["POST"])
        app.include_router(router)

    async def predict(self, request: Request, model: str) -> Response:
        """V1 `:predict`, JSON or a plain film."""
        return await self._call(request, model, "v1")

    async def infer(self, request: Request, model: str, version: str | None = None) -> Response:
        """V2 `/infer`, JSON or binary tensors."""
        return await self._call(request, model, "v2", version)

    async def metadata(self, model: str, version: str | None = None) -> Response:
        """V2 model metadata."""
        if (error := self._unknown(model, version)) is not None:
            return _error(error, None)
        described = FrontModel(model, self._service)
        return _json(
            {
                "name": model,
                "versions": [self._service.release.id],
                "platform": "pneumoserve",
                "inputs": described.get_input_types(),
                "outputs": described.get_output_types(),
            }
        )

    async def model_ready(self, model: str, version: str | None = None) -> Response:
        """V2 model readiness: 503 where a call would not be answered."""
        if (error := self._unknown(model, version)) is not None:
            return _error(error, None)
        if not self._service.ready:
            return _error(CallError(503, "The model is not ready; try again."), None)
        return _json({"name": model, "ready": True})

    async def not_offered(self) -> Response:
        """What KServe's SDK has and this service has not."""
        return _error(CallError(404, "This service does not offer that; see its README for what it does."), None)

    async def _call(self, request: Request, model: str, protocol: Protocol, version: str | None = None) -> Response:
        try:
            response = await self._answered(request, model, protocol, version)
        except Refusal as refusal:
            response = _error(refusal.error, refusal.prediction_id, refusal.receipt)
        except ClientDisconnect:
            response = Response(status_code=499)
        response.headers["pneumoserve-release"] = self._service.release.id
        metrics.CALLS.labels(model if model in MODEL_NAMES else "unknown", protocol, response.status_code).inc()
        return response

    async def _answered(self, request: Request, model: str, protocol: Protocol, version: str | None) -> Response:
        origin = Origin(protocol, "binary" if HEADER_LENGTH in request.headers else "json")
        try:
            origin = replace(origin, subject=self._service.callers.subject(request.headers.items()))
            async with self._service.admitted(_announced(request)):
                body = await _body(request)
                if (error := self._unknown(model, version)) is not None:
                    raise error
                call = replace(_parsed(request, body, protocol), subject=origin.subject)
                check_outputs(model, call)
                answers = await self._service.answer(model, call)
                return self._encoded(model, call, answers)
        except CallError as error:
            raise await self._service.refused(model, origin, error) from error
        except (Refusal, ClientDisconnect):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an id and the record says 500
            raise await self._service.refused(model, origin, unexpected(error)) from None

    def _unknown(self, model: str, version: str | None) -> CallError | None:
        if model not in MODEL_NAMES:
            return CallError(404, f"There is no such model; the models are {', '.join(MODEL_NAMES)}.")
        if version is not None and version != self._service.release.id:
            return CallError(404, f"There is no such version; this deployment serves {self._service.release.id}.")
        return None

    def _encoded(self, model: str, call: Call, answers: list[Answer]) -> Response:
        receipts = [answer.receipt for answer in answers]
        headers = _receipt_headers(receipts)
        if call.protocol == "v1":
            body = {"predictions": predictions(model, answers)}
            whole = study(model, call, answers)
            return _json(body if whole is None else {**body, "study": whole}, headers=headers)
        encoded, json_length = encode_v2(call, response_head(model, call, answers), columns(model, answers))
        if json_length is None:
            return Response(encoded, media_type="application/json", headers=headers)
        headers["Inference-Header-Content-Length"] = str(json_length)
        return Response(encoded, media_type="application/octet-stream", headers=headers)


def response_head(model: str, call: Call, answers: list[Answer]) -> dict[str, Any]:
    """What a V2 response says beside its tensors; parameters are strings, so that gRPC says the same."""
    receipts = [answer.receipt for answer in answers]
    whole = study(model, call, answers)
    return {
        "model_name": model,
        "model_version": answers[0].release,
        "id": call.id if call.id is not None else uuid7(),
        "parameters": {
            "recorded": receipts[0].recorded,
            "receipts": _receipts_text(receipts),
            **({} if whole is None else {"study": json_text(whole)}),
        },
    }


def _receipts_text(receipts: list[Receipt]) -> str:
    return json_text([receipt.model_dump(include={"writer", "sequence", "hash"}) for receipt in receipts])


def _receipt_headers(receipts: list[Receipt]) -> dict[str, str]:
    return {"pneumoserve-recorded": receipts[0].recorded, "pneumoserve-receipts": _receipts_text(receipts)}


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return min(int(length), MAX_BODY_BYTES) if length.isascii() and length.isdigit() else MAX_BODY_BYTES


async def _body(request: Request) -> bytes:
    """The body, within its limit.

    Raises:
        CallError: 413 over the limit, 415 where it is compressed.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
        elif size > _DRAIN_BYTES:
            break
        else:
            chunks.clear()
    if size > MAX_BODY_BYTES:
        raise CallError(413, "The body is larger than 44 MiB; send fewer or smaller images.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise CallError(415, "The body is compressed (Content-Encoding); send it as it is.")
    return b"".join(chunks)


def _parsed(request: Request, body: bytes, protocol: Protocol) -> Call:
    if protocol == "v1":
        return parse_v1(body, request.headers)
    return parse_v2(body, request.headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def _error(error: CallError, prediction_id: str | None, receipt: Receipt | None = None) -> Response:
    """The one shape of errors; `prediction_id` is null where no call, and so no record, was made."""
    headers = {} if receipt is None else _receipt_headers([receipt])
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return _json({"error": error.message, "prediction_id": prediction_id}, error.status, headers)


def unexpected(error: BaseException) -> CallError:
    """A fault of ours. Only its type and place are logged: its text may hold what the caller sent."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = "unknown" if frame is None else f"{frame.tb_frame.f_code.co_name}:{frame.tb_lineno}"
    _log.error("unexpected %s at %s", type(error).__name__, place)
    return CallError(500, "The service failed on this call; report its prediction_id.")


def register_error_handlers(app: FastAPI) -> None:
    """Give what fails outside of a call the one shape of errors too; the SDK's own handlers echo the input."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ModelNotFound, _told(404, "There is no such model; see /v2/models."))
    for kind in (ModelNotReady, ServerNotReady):
        app.add_exception_handler(kind, _told(503, "The service is not ready; try again."))
    app.add_exception_handler(Exception, _server_error)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    metrics.CALLS.labels("unknown", "none", status).inc()
    messages = {404: "There is no such path; see /v2 and /v2/models.", 405: "This path takes another method."}
    return _error(CallError(status, messages.get(status, "The request is not accepted.")), None)


def _told(status: int, message: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(_: Request, __: Exception) -> Response:
        return _error(CallError(status, message), None)

    return handler


async def _server_error(_: Request, error: Exception) -> Response:
    return _error(unexpected(error), None)
