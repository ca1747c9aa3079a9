"""gRPC: KServe's service with our inference call, whose messages are read when there is a place for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
from kserve.protocol.grpc.servicer import InferenceServicer

from pneumoserve.front import metrics
from pneumoserve.front.admission import FIRST_BYTE_SECONDS, MAX_BODY_BYTES, MESSAGE_SECONDS, Admission, Place
from pneumoserve.front.errors import CallError
from pneumoserve.front.idempotency import Reply
from pneumoserve.front.models import columns, response_head
from pneumoserve.front.pipeline import AbandonedError, Pipeline, label_of
from pneumoserve.front.service import MODEL_NAMES, Answer, Refusal
from pneumoserve.front.wire import Call, Origin, encode_grpc, parse_grpc

# Larger than the body limit, so that it is our code that refuses what is a little too large, on record.
_GRPC_RECEIVE_BYTES: Final = 45 * 1024 * 1024
_SMALL_MESSAGE_BYTES: Final = 4096
_GRPC_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _GRPC_RECEIVE_BYTES),
    ("grpc.so_reuseport", 0),
    # Identity alone (bit 0): what is compressed is refused by its headers, before anything is inflated.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_concurrent_streams", 128),
    ("grpc.max_allowed_incoming_connections", 256),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Peers that are gone are noticed; connections that nobody uses, and very old ones, end without losing a call.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 120_000),
)
# Calls in all; those that arrive are counted by `Admission`, which says so to whom it refuses.
_GRPC_CALLS: Final = 1024


def create_grpc_server(pipeline: Pipeline, dataplane: DataPlane) -> grpc.aio.Server:
    """The gRPC server over one pipeline, without a port yet."""
    server = grpc.aio.server(
        interceptors=[MessageIntake(pipeline.admission)], options=_GRPC_OPTIONS, maximum_concurrent_rpcs=_GRPC_CALLS
    )
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(FrontServicer(dataplane, pipeline), server)
    return server


class FrontServicer(InferenceServicer):  # type: ignore[misc]
    """The gRPC service: KServe's, with our inference call and without remote loading and unloading."""

    def __init__(self, dataplane: DataPlane, pipeline: Pipeline) -> None:
        super().__init__(dataplane, None)
        self._pipeline = pipeline

    async def ModelInfer(  # noqa: N802 - the protocol's name
        self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        """Answer one call, whose message is read here; an error's trailing metadata holds its prediction id."""
        metrics.GRPC_STARTED.inc()
        call = _GrpcCall(messages, context, self._pipeline.admission)
        # What ends without an outcome of ours was given up by its caller.
        code, outcome = grpc.StatusCode.CANCELLED, metrics.outcome_of(499)
        try:
            response = await self._pipeline.run(call)
        except Refusal as refusal:
            code = refusal.error.grpc_code
            outcome = metrics.outcome_of(refusal.error.status, refusal.receipt is not None)
            found_at = ("prediction-id", refusal.prediction_id)
            release = ("pneumoserve-release", self._pipeline.service.release_id)
            await _abort(context, refusal.error, found_at, release)
        except _GaveWayError as way:
            code, outcome = way.error.grpc_code, metrics.outcome_of(way.error.status)
            await _abort(context, way.error)
        else:
            code, outcome = grpc.StatusCode.OK, metrics.outcome_of(200)
            return response
        finally:
            metrics.CALLS.labels(label_of(call.model), "grpc", code.name, outcome).inc()

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelReadyResponse:
        """Whether a call of the model would be answered."""
        await self._check_model(request.name, context)
        return pb.ModelReadyResponse(ready=self._pipeline.service.ready)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """A model's inputs and outputs."""
        await self._check_model(request.name, context)
        response = await super().ModelMetadata(request, context)
        response.versions.append(self._pipeline.service.release_id)
        response.platform = "pneumoserve"
        return response

    async def _check_model(self, model: str, context: grpc.aio.ServicerContext) -> None:
        if model not in MODEL_NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"The models are {', '.join(MODEL_NAMES)}.")

    async def RepositoryModelLoad(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802, ARG002
        """Not offered: a release is verified and loaded at start, and never changed after."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Models are not loaded by callers.")

    async def RepositoryModelUnload(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802, ARG002
        """Not offered: no caller may take a model away."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Models are not unloaded by callers.")


class _GrpcCall:
    """One call by gRPC."""

    origin = Origin("grpc", "binary")

    def __init__(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext, admission: Admission) -> None:
        self.model = ""
        self.version: str | None = None
        self.headers = context.invocation_metadata()
        self._messages = messages
        self._admission = admission
        self._request: pb.ModelInferRequest | None = None

    async def read(self, place: Place) -> None:
        """See `Incoming.read`; gRPC itself calls what is no message INTERNAL, a fault of ours.

        Raises:
            CallError: 400 where it is none, 408 where it does not come in time, 429 without room for it.
        """
        try:
            async with self._admission.arriving(place, MESSAGE_SECONDS, unseen=True):
                message = await anext(self._messages, None)
        except CallError as error:
            if place.gave_way:
                raise _GaveWayError(error) from None
            raise
        if message is None:
            raise CallError(400, "The call ended without a message; send one.")
        metrics.GRPC_RECEIVED.inc()
        size = len(message)
        # An error on its way holds the variables of the functions that it left.
        parts = [message]
        del message
        try:
            place.reserve(size)
            self._request = pb.ModelInferRequest.FromString(parts[0])
        except DecodeError:
            raise CallError(
                400, "The message is no ModelInferRequest; send one as the V2 protocol defines it."
            ) from None
        finally:
            parts.clear()
        self.model, self.version = self._request.model_name, self._request.model_version or None

    async def parse(self) -> Call:
        """See `Incoming.parse`.

        Raises:
            CallError: 413 over the limit, 400 malformed.
        """
        request, self._request = self._request, None
        if request is None:
            raise AssertionError("a call is read before it is parsed, and parsed once")
        if request.ByteSize() > MAX_BODY_BYTES:
            raise CallError(413, "The message is larger than 44 MiB; send fewer or smaller images.")
        return parse_grpc(request)

    def encode(self, call: Call, answers: list[Answer]) -> pb.ModelInferResponse:
        """See `Incoming.encode`."""
        return encode_grpc(call, response_head(self.model, call, answers), columns(self.model, answers))

    def pack(self, response: pb.ModelInferResponse) -> Reply:
        """See `Incoming.pack`."""
        return Reply({}, response.SerializeToString(deterministic=True))

    def unpack(self, reply: Reply) -> pb.ModelInferResponse:
        """See `Incoming.unpack`."""
        return pb.ModelInferResponse.FromString(reply.body)


class _GaveWayError(AbandonedError):
    """A call that gave way to others before its message was whole, so that memory is free at once."""

    def __init__(self, error: CallError) -> None:
        super().__init__(error.message)
        self.error = error


async def _abort(context: grpc.aio.ServicerContext, error: CallError, *trailing: tuple[str, str]) -> NoReturn:
    """End a call by an error's status and sentence."""
    retry = () if error.retry_after is None else (("retry-after", str(error.retry_after)),)
    await context.abort(error.grpc_code, error.message, (*trailing, *retry))
    raise AssertionError("abort always raises")


class MessageIntake(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets no method read its message before there is a place for it.

    gRPC reads the one message of a unary call before any code of ours runs. So each method is offered as one that reads
    a stream of messages, which on the wire is the same, and reads its first.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        infers = handler_call_details.method.endswith("/ModelInfer")
        behaviour = handler.unary_unary if infers else self._small(handler)
        return grpc.stream_unary_rpc_method_handler(behaviour, None, handler.response_serializer)

    def _small(
        self, handler: grpc.RpcMethodHandler
    ) -> Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext], Awaitable[Any]]:
        """Any method but inference: its message names a model at most."""

        async def answer(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> Any:
            try:
                with self._admission.place() as place:
                    async with self._admission.arriving(place, FIRST_BYTE_SECONDS, unseen=True):
                        message = await anext(messages, b"")
                if len(message) > _SMALL_MESSAGE_BYTES:
                    raise CallError(413, "The message is larger than this method takes; send the model's name alone.")
                request = handler.request_deserializer(message)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The message is not what the method takes.")
            except CallError as error:
                await context.abort(error.grpc_code, error.message)
            return await handler.unary_unary(request, context)

        return answer
