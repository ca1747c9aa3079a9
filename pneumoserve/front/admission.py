"""What one front holds at once: a calculation of it from the memory there is, and a place for each call.

A call's memory is reserved as its bytes arrive, whatever length it announced, so that who sends nothing holds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from pneumoserve.front import metrics
from pneumoserve.front.errors import CallError
from pneumoserve.front.memory import bytes_in_use, give_back
from pneumoserve.imaging.pool import MOST_MEMORY

_MEBI: Final = 1024 * 1024
MAX_BODY_BYTES: Final = 44 * _MEBI
# Without a limit of the container's, as on a workstation: the chart's.
DEFAULT_LIMIT: Final = 3072 * _MEBI
# Measured: the front at rest has 200 MiB; connections, results and the archive's queue come on top.
_BASE: Final = 288 * _MEBI
# Parsing, one body at a time: joined, as JSON (four bytes a character at worst), one element encoded and decoded.
_PARSING: Final = 5 * MAX_BODY_BYTES
# A film is held as it came, as the archive keeps it, and as it is sent to the store.
_COPIES: Final = 3
# Messages that gRPC's core still receives, unseen by us; when one is whole, it is there twice for a moment.
_UNSEEN: Final = 96 * _MEBI
_UNSEEN_COPIES: Final = 2
# What a front that has served for days uses beside bodies, over what it used when it began; within `_BASE`.
_GROWTH: Final = 64 * _MEBI
# Share of the limit that nothing is planned for.
_ROOM: Final = 0.1
_MOST_BODIES: Final = 256 * _MEBI

_MAX_CALLS: Final = 256
_MAX_ARRIVING: Final = 512
# A body up to this size is an ordinary film; a quarter of the bodies' memory is kept for them.
_ORDINARY: Final = 4 * _MEBI
_KEPT_FOR_ORDINARY: Final = 0.25
_LEAST_BODIES: Final = int(MAX_BODY_BYTES / (1 - _KEPT_FOR_ORDINARY)) + 1

# A body must begin within the first, never pause for the second, and be whole within the third and a second a MiB.
FIRST_BYTE_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 10.0
BODY_SECONDS: Final = 30.0
_BYTES_PER_SECOND: Final = _MEBI
# gRPC shows no bytes, only whole messages.
MESSAGE_SECONDS: Final = BODY_SECONDS + MAX_BODY_BYTES / _BYTES_PER_SECOND

# A body that has been arriving for so long gives way where there is no room for others.
_PATIENCE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.02
# Calls from this size on leave enough behind that it is worth returning.
_WORTH_RETURNING: Final = 8 * _MEBI
_RETURN_SECONDS: Final = 1.0

_FULL: Final = "The service has more calls than it can hold; try again after a moment."


@dataclass(frozen=True)
class Budget:
    """What may be held at once, in bytes, within a container's memory `limit` beside `decoding`."""

    limit: int
    decoding: int = MOST_MEMORY

    @property
    def bodies(self) -> int:
        """What calls may hold as they came: as much as fits, but always one call of the largest size."""
        left = (self._planned - self._fixed) / _COPIES
        return max(_LEAST_BODIES, min(int(left), _MOST_BODIES))

    @property
    def worst(self) -> int:
        """What the container uses when everything that is allowed happens at once."""
        return self._fixed + _COPIES * self.bodies

    @property
    def fits(self) -> bool:
        """Whether that is within the limit, with room to spare."""
        return self.worst <= self._planned

    @property
    def _planned(self) -> int:
        return int(self.limit * (1 - _ROOM))

    @property
    def _fixed(self) -> int:
        return _BASE + self.decoding + _PARSING + _UNSEEN_COPIES * _UNSEEN


class Place:
    """One call's share of what the front holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0
        self.most = 0
        self.began = asyncio.get_running_loop().time()
        self.gave_way = False
        self.patience: asyncio.Timeout | None = None

    @property
    def large(self) -> int:
        """Its bytes where they are more than an ordinary film's, else 0."""
        return self.bytes if self.bytes > _ORDINARY else 0

    def reserve(self, size: int) -> None:
        """Hold `size` bytes more.

        Raises:
            CallError: 429 where there is no room for them.
        """
        self._admission.reserve(self, size)

    def empty(self) -> None:
        """Hold no bytes any more."""
        self._admission.release(self)

    def proceed(self, size: int) -> None:
        """Extend the time for a body of which `size` bytes have come."""
        if self.patience is not None:
            now = asyncio.get_running_loop().time()
            whole = self.began + BODY_SECONDS + size / _BYTES_PER_SECOND
            self.patience.reschedule(min(now + IDLE_SECONDS, whole))

    def give_way(self) -> None:
        """End the wait for the rest of this call's body."""
        self.gave_way = True
        self._admission.release(self)
        if self.patience is not None and not self.patience.expired():
            self.patience.reschedule(asyncio.get_running_loop().time())


class Admission:
    """Places for calls, by number and by bytes; nobody waits for one."""

    def __init__(self, bodies: int) -> None:
        self._most = bodies
        self._bytes = 0
        self._large = 0
        self._calls = 0
        self._arriving: dict[Place, None] = {}
        self._unseen: dict[Place, None] = {}
        self._at_start = bytes_in_use()
        self._at_rest = self._at_start
        self._look: asyncio.TimerHandle | None = None
        self._return: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """A place for a call that begins to arrive; it takes no memory yet."""
        place = Place(self)
        try:
            with metrics.IN_FLIGHT.track_inprogress():
                yield place
        finally:
            self.release(place)
            if place.most >= _WORTH_RETURNING:
                self._return_soon()

    @contextlib.asynccontextmanager
    async def arriving(self, place: Place, seconds: float, *, unseen: bool = False) -> AsyncIterator[None]:
        """Wait for a body for at most `seconds`, or as `place.proceed` extends it; `unseen` where gRPC's core reads it.

        Raises:
            CallError: 408 where it does not come in time, 429 where too many arrive or it had to give way to others.
        """
        if len(self._arriving) + len(self._unseen) >= _MAX_ARRIVING:
            raise CallError(429, _FULL)
        waiting = self._unseen if unseen else self._arriving
        if unseen:
            self._measure_rest()
            self._look_soon()
        waiting[place] = None
        try:
            async with asyncio.timeout(seconds) as place.patience:
                yield
        except TimeoutError:
            if place.gave_way:
                raise CallError(429, _FULL) from None
            raise CallError(408, "The call did not arrive in time; send it faster, or send fewer images.") from None
        finally:
            place.patience = None
            del waiting[place]

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Count a call that has arrived.

        Raises:
            CallError: 429 where too many are being answered.
        """
        if self._calls >= _MAX_CALLS:
            raise CallError(429, _FULL)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def reserve(self, place: Place, size: int) -> None:
        """See `Place.reserve`."""
        if place.gave_way:
            raise CallError(429, _FULL)
        self._make_room(place, size)
        if self._missing(place, size) > 0:
            raise CallError(429, _FULL)
        self._large -= place.large
        place.bytes += size
        place.most = max(place.most, place.bytes)
        self._bytes += size
        self._large += place.large

    def release(self, place: Place) -> None:
        """See `Place.empty`."""
        self._bytes -= place.bytes
        self._large -= place.large
        place.bytes = 0

    def _missing(self, place: Place, size: int) -> float:
        """How many bytes there are too few for `size` more of a call."""
        missing: float = self._bytes + size - self._most
        if place.bytes + size > _ORDINARY:
            large = self._large - place.large + place.bytes + size
            missing = max(missing, large - self._most * (1 - _KEPT_FOR_ORDINARY))
        return missing

    def _make_room(self, newcomer: Place, size: int) -> None:
        """Let bodies that take long give way to those that began later, the first one first."""
        long_ago = asyncio.get_running_loop().time() - _PATIENCE_SECONDS
        for place in list(self._arriving):
            if self._missing(newcomer, size) <= 0 or place is newcomer or place.began > long_ago:
                return
            if place.bytes:
                place.give_way()

    @property
    def _seen(self) -> int:
        """What calls use whose bytes are known."""
        return _COPIES * self._bytes + (_PARSING if self._bytes else 0)

    def _measure_rest(self) -> None:
        """Note what is in use before the first unseen message: a front grows, and that is no message's doing."""
        if not self._unseen:
            rest = max(self._at_start, bytes_in_use() - self._seen)
            self._at_rest = min(rest, self._at_start + _GROWTH)

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_now)

    def _look_now(self) -> None:
        """Let gRPC messages give way, half of them at a time, where what has come of them is too much."""
        self._look = None
        waiting = [place for place in self._unseen if not place.gave_way]
        if not waiting:
            return
        if bytes_in_use() - self._at_rest - self._seen > _UNSEEN:
            for place in waiting[: (len(waiting) + 1) // 2]:
                place.give_way()
            self._return_soon()
        self._look_soon()

    def _return_soon(self) -> None:
        if self._return is None:
            self._return = asyncio.get_running_loop().call_later(_RETURN_SECONDS, self._return_now)

    def _return_now(self) -> None:
        self._return = None
        asyncio.get_running_loop().run_in_executor(None, give_back)
