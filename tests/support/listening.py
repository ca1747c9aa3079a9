"""TCP servers in a test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listen(serve: Serve, context: SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port of loopback, which is what comes back.

    Its end waits for no open connection; that of `async with asyncio.start_server(…)` does so from Python 3.12 on.
    """
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
