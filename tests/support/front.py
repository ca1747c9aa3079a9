"""The whole front in the process of the test: real routes, decisions and records; models and store are fakes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kserve import ModelRepository
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from starlette.types import ASGIApp

from pneumoserve.front import admission
from pneumoserve.front.admission import Admission
from pneumoserve.front.alerting import Alerting
from pneumoserve.front.grpc_service import create_grpc_server
from pneumoserve.front.idempotency import FirstAnswers
from pneumoserve.front.identity import Callers
from pneumoserve.front.models import FrontModel
from pneumoserve.front.pipeline import Pipeline
from pneumoserve.front.server import FrontDataPlane, create_app
from pneumoserve.front.service import MODEL_NAMES, Decoders, Service
from pneumoserve.front.stops import Served
from pneumoserve.imaging import PreparedImage
from pneumoserve.imaging.pool import Budget
from pneumoserve.imaging.prepare import prepare
from pneumoserve.ledger import Reader, Receipt, SegmentKey, make_receipt
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.engine import Pixels
from pneumoserve.models.scorer import Score
from pneumoserve.records import ArchiveWriter, Pseudonyms, Record, find_record
from pneumoserve.release import Release
from pneumoserve.release.schema import ReleaseManifest
from pneumoserve.signing import Trust, key_id
from pneumoserve.store import MemoryStore, Store

RELEASE_ID = "0" * 12
# What hashes callers' references in these tests.
REFERENCE_KEY = b"k" * 32
# What the test's own gRPC client holds is in this process too, and no reason to refuse its call.
_UNSEEN_HERE = 1024**3
_INFER = "/inference.GRPCInferenceService/ModelInfer"


def make_release() -> Release:
    """A release with the reference's policy, and no files."""
    facts = json.loads((REFERENCE_RUN / "run.json").read_bytes())
    manifest = ReleaseManifest.model_validate({**facts, "schema": "pneumoserve.release/3", "files": {}})
    return Release(Path(), RELEASE_ID, "0" * 64, manifest, "nobody")


def make_request(film: bytes, model: str = "pneumonia", **tensor: Any) -> pb.ModelInferRequest:
    """A gRPC request of one film; `tensor` are fields of its input that are to be otherwise."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(**{"name": "image", "datatype": "BYTES", "shape": [1], **tensor})
    request.raw_input_contents.append(len(film).to_bytes(4, "little") + film)
    return request


@dataclass
class FakeModels:
    """Models that are sure: every film shows a chest, with pneumonia."""

    ready: bool = True
    calls: list[str] = field(default_factory=list)

    async def score(self, model: str, pixels: Pixels) -> Score:
        assert pixels.shape == (224, 224)
        self.calls.append(model)
        return Score(0.999, 6.9, {"engine": "none"}, chest_probability=1.0)


@dataclass
class FakeArchive:
    """An archive that is only a list."""

    healthy: bool = True
    records: list[Record] = field(default_factory=list)

    async def commit(self, record: Record) -> Receipt:
        self.records.append(record)
        return make_receipt(
            SegmentKey("test-00000000", 1, "2026-11-30", RELEASE_ID), b"{}", Ed25519PrivateKey.generate()
        )

    async def put_envelope(self, prediction_id: str, sealed: bytes) -> None:
        pass

    async def put_image(self, stored_sha256: str, data: bytes, content_type: str) -> None:
        pass


class ThreadDecoders:
    """Decodes in a thread of this process, where no film of a test may end it."""

    ready = True

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def submit(self, data: bytes, budget: Budget) -> Future[PreparedImage]:
        return self._threads.submit(prepare, data)

    def close(self) -> None:
        self._threads.shutdown()


@dataclass
class GrpcError:
    """How a gRPC call failed."""

    code: grpc.StatusCode
    message: str
    trailing: dict[str, str]


@dataclass
class Front:
    """A front and what it is made of; `http` calls it without a socket."""

    service: Service
    models: FakeModels
    store: Store
    reader: Reader
    app: ASGIApp
    http: httpx.AsyncClient
    channel: grpc.aio.Channel

    async def predict(self, content: bytes, headers: Any = None, model: str = "pneumonia") -> httpx.Response:
        """Send a film, or a document, by V1."""
        return await self.http.post(f"/v1/models/{model}:predict", content=content, headers=headers)

    async def infer(self, request: pb.ModelInferRequest | bytes, *metadata: tuple[str, str]) -> pb.ModelInferResponse:
        """Send a gRPC request, or bytes that are none."""
        message = request if isinstance(request, bytes) else request.SerializeToString()
        answer = await self.channel.unary_unary(_INFER)(message, metadata=metadata, timeout=60)
        return pb.ModelInferResponse.FromString(answer)

    async def fail(self, request: pb.ModelInferRequest | bytes, *metadata: tuple[str, str]) -> GrpcError:
        """Send a gRPC request that must fail."""
        try:
            await self.infer(request, *metadata)
        except grpc.aio.AioRpcError as error:
            trailing = {key: str(value) for key, value in error.trailing_metadata() or ()}
            return GrpcError(error.code(), error.details() or "", trailing)
        raise AssertionError("the call was answered")

    def record(self, prediction_id: str) -> Record:
        """What is on record under an id."""
        record = find_record(self.reader, prediction_id)
        assert record is not None
        return record


@contextlib.asynccontextmanager
async def run_service(
    store: Store,
    callers: Callers,
    decoders: Decoders,
    models: FakeModels,
    alerting: Alerting | None = None,
    served: Served | None = None,
) -> AsyncIterator[tuple[Service, Reader]]:
    """A service that puts calls on record in a store, and a reader of what it has written."""
    key, nobody = Ed25519PrivateKey.generate(), Trust({}, frozenset(), frozenset())
    writers = Trust({key_id(key.public_key()): key.public_key()}, frozenset(), frozenset())
    archive = ArchiveWriter(store, key, RELEASE_ID)
    await archive.start()
    try:
        service = Service(
            served or Served(make_release()), models, archive, Pseudonyms(REFERENCE_KEY), callers, decoders, alerting
        )
        yield service, Reader(store, writers, nobody)
    finally:
        await archive.close()


@contextlib.asynccontextmanager
async def run_front(
    callers: Callers = Callers(None),  # noqa: B008 - it is frozen
    origins: Sequence[str] = (),
    alerting: Alerting | None = None,
    served: Served | None = None,
) -> AsyncIterator[Front]:
    """The front, for as long as the context lasts."""
    store, models, decoders, registry = MemoryStore(), FakeModels(), ThreadDecoders(), ModelRepository()
    async with run_service(store, callers, decoders, models, alerting, served) as (service, reader):
        for name in MODEL_NAMES:
            registry.update(FrontModel(name, service))
        dataplane = FrontDataPlane(registry, service)
        first_answers = FirstAnswers(store, Pseudonyms(REFERENCE_KEY))
        pipeline = Pipeline(service, Admission(256 * 1024 * 1024), first_answers)
        over_grpc = create_grpc_server(pipeline, dataplane)
        port = over_grpc.add_insecure_port("127.0.0.1:0")
        await over_grpc.start()
        app = create_app(pipeline, origins)
        # As a server does: what a handler raises is answered, and seen by the test as a status.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        options = [("grpc.max_send_message_length", -1)]
        with mock.patch.object(admission, "_UNSEEN", _UNSEEN_HERE):
            async with (
                httpx.AsyncClient(transport=transport, base_url="http://front") as http,
                grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
            ):
                try:
                    yield Front(service, models, store, reader, app, http, channel)
                finally:
                    await over_grpc.stop(0)
                    decoders.close()
                    first_answers.close()


async def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so, while the event loop goes on."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
