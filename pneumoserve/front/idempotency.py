"""First answers: a call that is repeated under its idempotency key gets the same answer, and no second record.

Below `idempotency/<keyed hash of the caller and the key>/` a claim is created before the records are written, and the
answer after. Both are created where there is none, and read; nothing here writes over them or removes them.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pneumoserve.canonical import digest_of
from pneumoserve.front.errors import CallError
from pneumoserve.front.wire import Call, json_text
from pneumoserve.names import FIRST_ANSWERS
from pneumoserve.records import Pseudonyms
from pneumoserve.store import NotFoundError, Store, StoreError

# Longer than records and answer take at most (5 s each): older, the claim's call has failed, or its front ended.
CLAIM_SECONDS: Final = 30.0
# As the archive's own tries: the store's deadline is sooner.
_TRY_SECONDS: Final = 4.0
_KEEP_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.2
_THREADS: Final = 8
_NONCE_BYTES: Final = 12

_log: Final = logging.getLogger(__name__)
_Given = TypeVarTuple("_Given")
_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True)
class Reply:
    """An encoded answer, as its transport sends it."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class KeyedCall:
    """Where a call's first answer stands, and a keyed hash of all that the answer depends on."""

    folder: str
    request: str


class FirstAnswers:
    """The first answers in the store, encrypted: they hold findings, and the ids that callers gave their calls."""

    def __init__(self, store: Store, hashes: Pseudonyms, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._hashes = hashes
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="idempotency")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    async def identify(self, model: str, version: str | None, call: Call) -> KeyedCall:
        """What identifies a call that names an idempotency key; one caller's keys are not another's."""
        digests = await self._in_thread(lambda: [digest_of(image) for image in call.images])
        stated = [model, version, call.protocol, call.encoding, call.id, call.outputs, call.binary_default]
        # Without an origin as front ends before 0.3.0 hashed it, which may have kept the first answer.
        named = astuple(call.named) if call.named.origin else astuple(call.named)[:-1]
        folder = self._hashes.hash("idempotency", json_text([call.subject, call.idempotency_key]))
        request = self._hashes.hash("request", json_text([*stated, *named, *digests]))
        return KeyedCall(f"{FIRST_ANSWERS}{folder}/", request)

    async def find(self, keyed: KeyedCall) -> Reply | None:
        """The first answer, None where there is none.

        Raises:
            CallError: 422 where it answered another request, 503 where the store does not say.
        """
        document = await self._read(_answer_key(keyed))
        if document is None:
            return None
        _check_request(keyed, document)
        return Reply(document["headers"], base64.b64decode(document["body"]))

    async def claim(self, keyed: KeyedCall) -> None:
        """Be the one that answers.

        Raises:
            CallError: 409 where another call is at it or was faster, 422 where that was another request, 503 where the
                store does not say.
        """
        for attempt in itertools.count(1):
            key = f"{keyed.folder}claim-{attempt}"
            if await self._create(key, {"request": keyed.request, "time": self._clock()}):
                return
            claim = await self._read(key)
            if claim is not None:
                _check_request(keyed, claim)
            answered = await self._read(_answer_key(keyed)) is not None
            if claim is None or answered or self._clock() - claim["time"] < CLAIM_SECONDS:
                raise CallError(409, "A call with this idempotency key is being answered; repeat it after a moment.")

    async def keep(self, keyed: KeyedCall, reply: Reply) -> Reply:
        """Keep an answer as the first one; what the caller is to get, which is another one's where that was faster.

        The records are written, so the caller gets the answer even where the store does not keep it.
        """
        document = {"request": keyed.request, **asdict(reply), "body": base64.b64encode(reply.body).decode()}
        try:
            async with asyncio.timeout(_KEEP_SECONDS):
                while True:
                    try:
                        kept = await self._create(_answer_key(keyed), document)
                        return reply if kept else await self.find(keyed) or reply
                    except CallError:
                        await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            _log.error("the store did not keep a first answer; a repeat of that call makes a second record")
            return reply

    async def _create(self, key: str, document: dict[str, Any]) -> bool:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher(key).encrypt(nonce, json_text(document).encode(), None)
        return await _or_503(self._in_thread(self._store.create, key, sealed, "application/octet-stream"))

    async def _read(self, key: str) -> dict[str, Any] | None:
        try:
            sealed = await _or_503(self._in_thread(self._store.get, key))
        except NotFoundError:
            return None
        try:
            text = self._cipher(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            _log.error("what stands below %s was not written by a front; somebody else writes there", FIRST_ANSWERS)
            raise CallError(
                503, "The first answer under this idempotency key cannot be read; use another key."
            ) from None
        document: dict[str, Any] = json.loads(text)
        return document

    def _cipher(self, key: str) -> AESGCM:
        """Of an object: without the key of references, an answer is neither read nor made."""
        return AESGCM(bytes.fromhex(self._hashes.hash("answer", key)))

    async def _in_thread(self, work: Callable[[Unpack[_Given]], _Outcome], *given: *_Given) -> _Outcome:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)


def _answer_key(keyed: KeyedCall) -> str:
    return f"{keyed.folder}answer"


def _check_request(keyed: KeyedCall, document: dict[str, Any]) -> None:
    if document["request"] != keyed.request:
        raise CallError(422, "This idempotency key came with another request; use a new key for each request.")


async def _or_503(work: Awaitable[_Outcome]) -> _Outcome:
    try:
        async with asyncio.timeout(_TRY_SECONDS):
            return await work
    except NotFoundError:
        raise
    except (StoreError, TimeoutError):
        raise CallError(
            503, "The store does not answer, so it is unknown whether this call is a repeat; try again."
        ) from None
