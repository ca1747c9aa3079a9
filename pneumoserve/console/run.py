"""The console as a process: its writers, its decode workers and its server, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import uvicorn
from prometheus_client import start_http_server

from pneumoserve.alerts import Links
from pneumoserve.build_info import show_build
from pneumoserve.console.app import create_app
from pneumoserve.console.heat_maps import HeatMaps
from pneumoserve.console.services import Services
from pneumoserve.console.settings import ConsoleError, ConsoleSettings
from pneumoserve.imaging.pool import LANES, DecoderPool
from pneumoserve.ledger import Reader
from pneumoserve.records import LABEL_WRITERS, REVIEW_WRITERS, ArchiveWriter, load_opening_key
from pneumoserve.review import AlertDesk, CaseBook, Chance, ReadingRoom, ReviewDatabase, commit_by
from pneumoserve.signing import load_key, load_trust
from pneumoserve.store import Store

# The ends of a writer's chain stand below a release; this one serves none.
_NO_RELEASE: Final = "0" * 12
_GRACE_SECONDS: Final = 10
_WAITING: Final = 64


def run(settings: ConsoleSettings, url: str, store: Store) -> None:
    """Serve pages over the review database at `url` until SIGTERM or SIGINT.

    Prints one line of JSON with its address when it is ready.

    Raises:
        ConsoleError: it cannot listen where it is to, or a key of sessions or sign-in cannot be read.
        KeyFileError, ChanceKeyError, LinkError, EnvelopeError: a key cannot be read.
        DatabaseError: the review database does not answer.
    """
    if settings.metrics_port is not None:
        show_build("console")
        start_http_server(settings.metrics_port)
    with _listen(settings) as listening:
        asyncio.run(_serve(settings, url, store, listening))


async def _serve(settings: ConsoleSettings, url: str, store: Store, listening: socket.socket) -> None:
    async with open_services(settings, url, store) as services:
        config = uvicorn.Config(
            create_app(settings, services),
            # A page's address may hold a link that opens it: `CountRequests` names pages instead.
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        await _Server(config).serve([listening])


class _Server(uvicorn.Server):
    """Says where it listens, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port, *_ = (sockets or [])[0].getsockname()
        sys.stdout.write(json.dumps({"console": f"http://{f'[{host}]' if ':' in host else host}:{port}"}) + "\n")
        sys.stdout.flush()


@contextlib.asynccontextmanager
async def open_services(settings: ConsoleSettings, url: str, store: Store) -> AsyncIterator[Services]:
    """What the pages work with; its writers run in this loop, and end with the context.

    Raises:
        KeyFileError, ChanceKeyError, LinkError, EnvelopeError, DatabaseError: as `run`.
    """
    key, chance = load_key(settings.archive_key), Chance.read(settings.chance_key)
    links = Links.read(settings.link_keys)
    opening = None if settings.envelope_key is None else load_opening_key(settings.envelope_key)
    reader = Reader(store, load_trust(settings.archive_trust), load_trust(settings.sealer_trust))
    lanes = {name: replace(lane, workers=1) for name, lane in LANES.items()}
    roles = (LABEL_WRITERS, REVIEW_WRITERS)
    labels, reviews = (ArchiveWriter(store, key, _NO_RELEASE, role=role.rstrip("-")) for role in roles)
    with contextlib.closing(ReviewDatabase(url)) as database, DecoderPool(lanes) as decoders:
        await labels.start()
        await reviews.start()
        commit = commit_by(labels, reviews, asyncio.get_running_loop())
        try:
            yield Services(
                store=store,
                reader=reader,
                database=database,
                room=ReadingRoom(database, commit, chance),
                desk=AlertDesk(database, commit),
                cases=CaseBook(database, commit),
                links=links,
                decoders=decoders,
                heat_maps=HeatMaps(store, decoders, settings.releases, settings.trust),
                releases=settings.releases,
                trust=settings.trust,
                opening=opening,
                prevalence=settings.prevalence,
            )
        finally:
            await labels.close()
            await reviews.close()


def _listen(settings: ConsoleSettings) -> socket.socket:
    try:
        kind, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(kind, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken: Any = address
        listening.bind(taken)
        listening.listen(_WAITING)
    except OSError as error:
        raise ConsoleError(f"The console cannot listen at its port ({error.strerror}); give another --port.") from None
    return listening
