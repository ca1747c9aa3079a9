"""KServe's ModelServer with our routes, our gRPC calls, and readiness that can be believed."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, get_args

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from kserve import ModelRepository, ModelServer
from kserve.protocol.dataplane import DataPlane
from prometheus_client import REGISTRY, start_http_server
from starlette.types import ASGIApp

from pneumoserve.build_info import show_build
from pneumoserve.decision import Reason
from pneumoserve.front import metrics
from pneumoserve.front.admission import DEFAULT_LIMIT, Admission, Budget
from pneumoserve.front.alerting import Alerting, HintLine
from pneumoserve.front.connections import Connection, Connections
from pneumoserve.front.cors import allow_origins
from pneumoserve.front.description import new_app
from pneumoserve.front.errors import CallError
from pneumoserve.front.grpc_service import create_grpc_server
from pneumoserve.front.idempotency import FirstAnswers
from pneumoserve.front.identity import Callers
from pneumoserve.front.memory import memory_limit, tune_allocator
from pneumoserve.front.models import FrontModel, HasReadiness, describe_server
from pneumoserve.front.pages import add_docs
from pneumoserve.front.pipeline import Pipeline
from pneumoserve.front.rest import Routes, register_error_handlers
from pneumoserve.front.service import MODEL_NAMES, Service
from pneumoserve.front.settings import FrontSettings
from pneumoserve.front.stops import Served, StopWatch
from pneumoserve.front.torchserve import TorchServe
from pneumoserve.front.torchserve_metrics import TorchServeMetrics
from pneumoserve.front.workers import QUEUE_SECONDS, REQUESTS, Workers
from pneumoserve.imaging.pool import DecoderPool
from pneumoserve.ledger import Journal, LockRule
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records import ArchiveWriter, Pseudonyms, Stopping
from pneumoserve.release import Release
from pneumoserve.signing import load_trust
from pneumoserve.store import Store

_CONNECTIONS_PER_ADDRESS: Final = 64

_log = logging.getLogger(__name__)
_GRACE_SECONDS: Final = 30
# Longer than a gateway keeps an idle connection (Envoy: an hour): the side that closes first may lose a call to it.
_KEEP_ALIVE_SECONDS: Final = 3700
_BACKEND_CONCURRENCY: Final = 64


@dataclass(frozen=True)
class Archiving:
    """Where and how calls are put on record."""

    store: Store
    key: Ed25519PrivateKey
    references: Pseudonyms
    journal: Journal | None
    lock: LockRule
    sealing: X25519PublicKey | None = None


def _connect_models(settings: FrontSettings) -> TorchServe | Workers:
    """The client of the models, and the metrics of what runs them."""
    if settings.engine == "inprocess":
        REGISTRY.register(QUEUE_SECONDS)
        REGISTRY.register(REQUESTS)
        return Workers(settings.models_sockets)
    REGISTRY.register(TorchServeMetrics(settings.models_metrics_url))
    return TorchServe(settings.models_url, settings.management_url, (DETECTOR, TYPER), _BACKEND_CONCURRENCY)


class FrontDataPlane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, whose readiness asks the service; the SDK's own is always true."""

    def __init__(self, registry: ModelRepository, service: HasReadiness) -> None:
        super().__init__(registry)
        self._service = service

    def metadata(self) -> dict[str, Any]:
        return describe_server()

    async def ready(self) -> bool:
        return self._service.ready


def create_app(pipeline: Pipeline, origins: Sequence[str] = ()) -> ASGIApp:
    """The REST application, which web pages of `origins` may call."""
    app = new_app()
    Routes(pipeline).register(app)
    add_docs(app)
    register_error_handlers(app)
    # Outside of all that answers: an error is for the page too.
    return allow_origins(app, origins)


class FrontServer(ModelServer):  # type: ignore[misc]
    """One worker; scale by pods. The SDK forks workers that share no gRPC port and skip their exit hooks."""

    def __init__(self, settings: FrontSettings, release: Release, archiving: Archiving, callers: Callers) -> None:
        super().__init__(http_port=settings.http_port, grpc_port=settings.grpc_port, workers=1)
        self._settings = settings
        self._release = release
        self._archiving = archiving
        self._callers = callers

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain both transports, then flush the archive."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        with DecoderPool(report=metrics.count_decoding) as decoders:
            metrics.watch_decoders(decoders)
            await self._run_with(decoders)

    async def _run_with(self, decoders: DecoderPool) -> None:
        settings = self._settings
        backend = _connect_models(settings)
        tune_allocator()
        show_build("front", self._release.id)
        _begin_counts()
        start_http_server(settings.metrics_port, settings.host)
        how = self._archiving
        archive = ArchiveWriter(how.store, how.key, self._release.id, how.journal, how.lock)
        await archive.start()
        backend.start()
        hints = None if settings.alert_hint is None else HintLine(settings.alert_hint)
        alerting = Alerting(how.sealing) if hints is None else Alerting(how.sealing, hints)
        served = Served(self._release)
        watch = StopWatch(served, how.store, lambda: Stopping(load_trust(settings.trust), how.key.public_key()))
        await watch.start()
        service = Service(served, backend, archive, how.references, self._callers, decoders, alerting)
        first_answers = FirstAnswers(how.store, how.references)
        try:
            await self._serve_both(service, first_answers)
        finally:
            first_answers.close()
            await watch.close()
            if hints is not None:
                hints.close()
            await archive.close()
            await backend.close()

    async def _serve_both(self, service: Service, first_answers: FirstAnswers) -> None:
        settings, budget = self._settings, Budget(memory_limit() or DEFAULT_LIMIT)
        if not budget.fits:
            _log.warning(
                "the memory limit of %d MiB is too small for all that callers may send at once (%d MiB); raise it",
                budget.limit // 2**20, budget.worst // 2**20,
            )  # fmt: skip
        for name in MODEL_NAMES:
            self.register_model(FrontModel(name, service))
        dataplane = FrontDataPlane(self.registered_models, service)
        pipeline = Pipeline(service, Admission(budget.bodies), first_answers)
        over_grpc = create_grpc_server(pipeline, dataplane)
        over_grpc.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
        await over_grpc.start()
        # uvicorn catches SIGTERM and SIGINT, drains its calls, then raises the signal again for whoever had it
        # before: that must not end the process while gRPC drains and the archive flushes.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        rest = self._create_rest(create_app(pipeline, settings.cors_origin))
        given = settings.http_socket
        await rest.serve(None if given is None else [socket.socket(fileno=given)])
        await over_grpc.stop(_GRACE_SECONDS)

    def _create_rest(self, app: ASGIApp) -> uvicorn.Server:
        settings = self._settings
        connections = Connections(_CONNECTIONS_PER_ADDRESS, settings.proxy)
        return uvicorn.Server(
            uvicorn.Config(
                app,
                settings.host,
                settings.http_port,
                http=functools.partial(Connection, connections),  # type: ignore[arg-type]
                # Nothing here speaks it, and a handshake's path would be logged.
                ws="none",
                # `set_up_logs` has. Each call has a line of its own: a URL may hold what a caller should not have put
                # there.
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )


def _begin_counts() -> None:
    """Let counters of rare things begin at 0: Prometheus sees no increase where the first value is 1."""
    for reason in get_args(Reason):
        metrics.REFERRALS.labels(reason)
    for model, (status, recorded) in product(MODEL_NAMES, ((429, True), (500, True), (503, True), (503, False))):
        outcome = metrics.outcome_of(status, recorded)
        for protocol, shown in (("v1", status), ("v2", status), ("grpc", CallError(status, "").grpc_code.name)):
            metrics.CALLS.labels(model, protocol, shown, outcome)
