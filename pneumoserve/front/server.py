"""KServe's ModelServer with our routes, our gRPC calls, and readiness that tells the truth."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from google.protobuf.message import DecodeError
from kserve import ModelRepository, ModelServer
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import pneumoserve
from pneumoserve.archive.journal import Journal
from pneumoserve.archive.references import References
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.archive.writer import ArchiveWriter, LockRule
from pneumoserve.front import metrics
from pneumoserve.front.callers import Callers
from pneumoserve.front.errors import CallError
from pneumoserve.front.models import FrontModel, check_outputs, columns
from pneumoserve.front.rest import MAX_BODY_BYTES, Routes, register_error_handlers, response_head, unexpected
from pneumoserve.front.service import MODEL_NAMES, Refusal, Service
from pneumoserve.front.torchserve import TorchServe
from pneumoserve.front.wire import Origin, encode_grpc, parse_grpc
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release import Release

# Larger than the body limit, so that it is our code that refuses, and records the refusal.
_GRPC_RECEIVE_BYTES: Final = 64 * 1024 * 1024
_GRACE_SECONDS: Final = 30
# Longer than a gateway keeps an idle connection (Envoy: an hour): the side that closes first may lose a call to it.
_KEEP_ALIVE_SECONDS: Final = 3700
_DECODERS: Final = 2
_BACKEND_CONCURRENCY: Final = 64


@dataclass(frozen=True)
class Settings:
    """Where the front listens, where TorchServe does, and how callers are known."""

    host: str
    http_port: int
    grpc_port: int
    models_url: str
    management_url: str
    callers: Callers


@dataclass(frozen=True)
class Archiving:
    """How calls are put on record."""

    key: Ed25519PrivateKey
    references: References
    journal: Journal | None
    lock: LockRule


class _FrontDataPlane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, whose readiness asks the service; the SDK's own is always true."""

    def __init__(self, registry: ModelRepository, service: Service) -> None:
        super().__init__(registry)
        self._service = service

    def metadata(self) -> dict[str, Any]:
        return {"name": "pneumoserve", "version": pneumoserve.__version__, "extensions": ["binary_tensor_data"]}

    async def ready(self) -> bool:
        return self._service.ready


class FrontServicer(InferenceServicer):  # type: ignore[misc]
    """The gRPC service: KServe's, with our inference call and without remote loading and unloading."""

    def __init__(self, dataplane: DataPlane, service: Service) -> None:
        super().__init__(dataplane, None)
        self._service = service

    async def ModelInfer(  # noqa: N802 - the protocol's name
        self, request: pb.ModelInferRequest | None, context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        """Answer one call (None: what came is no request); an error's trailing metadata holds its prediction id."""
        metrics.GRPC_RECEIVED.inc()
        model = "" if request is None else request.model_name
        # What ends without an outcome of ours was given up by its caller.
        outcome, label = grpc.StatusCode.CANCELLED, model if model in MODEL_NAMES else "unknown"
        try:
            response = await self._answered(model, request, context)
        except Refusal as refusal:
            outcome = refusal.error.grpc_code
            trailing = [("prediction-id", refusal.prediction_id), ("pneumoserve-release", self._service.release.id)]
            if refusal.error.retry_after is not None:
                trailing.append(("retry-after", str(refusal.error.retry_after)))
            await context.abort(outcome, refusal.error.message, tuple(trailing))
            raise AssertionError from None  # abort always raises
        else:
            outcome = grpc.StatusCode.OK
            return response
        finally:
            metrics.CALLS.labels(label, "grpc", outcome.name).inc()

    async def _answered(
        self, model: str, request: pb.ModelInferRequest | None, context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        origin = Origin("grpc", "binary")
        try:
            origin = replace(origin, subject=self._service.callers.subject(context.invocation_metadata()))
            if request is None:
                raise CallError(400, "The message is no ModelInferRequest; send one as the V2 protocol defines it.")
            async with self._service.admitted(request.ByteSize()):
                self._check(request)
                call = replace(parse_grpc(request), subject=origin.subject)
                check_outputs(model, call)
                answers = await self._service.answer(model, call)
                return encode_grpc(call, response_head(model, call, answers), columns(model, answers))
        except CallError as error:
            raise await self._service.refused(model, origin, error) from error
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an id and the record says 500
            raise await self._service.refused(model, origin, unexpected(error)) from None

    def _check(self, request: pb.ModelInferRequest) -> None:
        if request.model_name not in MODEL_NAMES:
            raise CallError(404, f"There is no such model; the models are {', '.join(MODEL_NAMES)}.")
        if request.model_version not in ("", self._service.release.id):
            raise CallError(404, f"There is no such version; this deployment serves {self._service.release.id}.")
        if request.ByteSize() > MAX_BODY_BYTES:
            raise CallError(413, "The message is larger than 44 MiB; send fewer or smaller images.")

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelReadyResponse:
        """Whether a call of the model would be answered."""
        await self._known(request.name, context)
        return pb.ModelReadyResponse(ready=self._service.ready)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """A model's inputs and outputs."""
        await self._known(request.name, context)
        response = await super().ModelMetadata(request, context)
        response.versions.append(self._service.release.id)
        response.platform = "pneumoserve"
        return response

    async def _known(self, model: str, context: grpc.aio.ServicerContext) -> None:
        if model not in MODEL_NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"The models are {', '.join(MODEL_NAMES)}.")

    async def RepositoryModelLoad(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802, ARG002
        """Not offered: a release is verified and loaded at start, and never changed after."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Models are not loaded by callers.")

    async def RepositoryModelUnload(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802, ARG002
        """Not offered: no caller may take a model away."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Models are not unloaded by callers.")


class _Intake(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Counts inference calls, and lets ours answer what is no message: gRPC calls that INTERNAL, a fault of ours."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        if not handler_call_details.method.endswith("/ModelInfer"):
            return handler
        metrics.GRPC_STARTED.inc()
        return grpc.unary_unary_rpc_method_handler(handler.unary_unary, _request_of, handler.response_serializer)


def _request_of(message: bytes) -> pb.ModelInferRequest | None:
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError:
        return None


class _Http(HttpToolsProtocol):
    """uvicorn's HTTP; what is none is refused before any route of ours could record it, so it is counted."""

    def send_400_response(self, msg: str) -> None:
        metrics.HTTP_REFUSED.inc()
        super().send_400_response(msg)


class _FrontRest(RESTServer):  # type: ignore[misc]
    """KServe's REST server with our routes before the SDK's, and one shape of errors for all of them."""

    def __init__(
        self, settings: Settings, dataplane: DataPlane, extension: ModelRepositoryExtension, routes: Routes
    ) -> None:
        super().__init__(
            "kserve.model_server:app",
            dataplane,
            extension,
            settings.http_port,
            grace_period=_GRACE_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._routes = routes
        self.config.host = settings.host
        self.config.http = _Http
        # A URL may hold what a caller should not have put there.
        access_log = logging.getLogger("uvicorn.access")
        access_log.handlers.clear()
        access_log.propagate = False

    def _add_middlewares(self, app: FastAPI) -> None:
        """None: the SDK's times and logs each request a second time."""

    def _register_endpoints(self, app: FastAPI) -> None:
        self._routes.register(app)
        super()._register_endpoints(app)

    def _add_exception_handlers(self, app: FastAPI) -> None:
        register_error_handlers(app)


class FrontServer(ModelServer):  # type: ignore[misc]
    """One worker; scale by pods. The SDK forks workers that share no gRPC port and skip their exit hooks."""

    def __init__(self, settings: Settings, release: Release, archiving: Archiving) -> None:
        super().__init__(http_port=settings.http_port, grpc_port=settings.grpc_port, workers=1)
        self._settings = settings
        self._release = release
        self._archiving = archiving
        self._grpc: grpc.aio.Server | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain both transports, then flush the archive."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        settings = self._settings
        backend = TorchServe(settings.models_url, settings.management_url, (DETECTOR, TYPER), _BACKEND_CONCURRENCY)
        how = self._archiving
        archive = ArchiveWriter(ObjectStore(S3Settings.from_env()), how.key, self._release.id, how.journal, how.lock)
        await archive.start()
        backend.start()
        service = Service(self._release, backend, archive, how.references, settings.callers, _DECODERS)
        for name in MODEL_NAMES:
            self.register_model(FrontModel(name, service))
        dataplane = _FrontDataPlane(self.registered_models, service)
        try:
            await self._serve_both(dataplane, service)
        finally:
            await archive.close()
            await backend.close()

    async def _serve_both(self, dataplane: DataPlane, service: Service) -> None:
        rest = _FrontRest(self._settings, dataplane, self.model_repository_extension, Routes(service))
        self._grpc = await self._start_grpc(dataplane, service)
        # uvicorn catches SIGTERM and SIGINT, drains its calls, then raises the signal again for whoever had it
        # before: that must not end the process while gRPC drains and the archive flushes.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        await rest.start()
        await self._grpc.stop(_GRACE_SECONDS)

    async def _start_grpc(self, dataplane: DataPlane, service: Service) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[_Intake()],
            options=[
                ("grpc.max_receive_message_length", _GRPC_RECEIVE_BYTES),
                ("grpc.so_reuseport", 0),
            ],
        )
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(FrontServicer(dataplane, service), server)
        server.add_insecure_port(f"{self._settings.host}:{self.grpc_port}")
        await server.start()
        return server
