"""The objects of a STOW-RS body, taken apart as it comes: no more than one of them is in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from pneumoserve.imaging import ImageError
from pneumoserve.imaging.elements import read_file
from pneumoserve.intake import taking
from pneumoserve.intake.errors import RequestRefusalError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Of a sender that sends nothing more.
_TIMEOUT_SECONDS: Final = 30.0
_UID: Final = re.compile(r"[0-9.]{1,64}")
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018


@dataclass(frozen=True)
class Part:
    """An object of a body: what it says of itself, and its data set; None where it is too large."""

    sop_class: str
    instance: str
    syntax: str
    data_set: bytes | None


async def read_parts(stream: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Part | taking.Told]:
    """The objects of a body as they come, and what senders are told of those that say nothing of themselves.

    Raises:
        RequestRefusalError: it is malformed, breaks off, or stands still.
    """
    parts = _Parts()
    parser = MultipartParser(boundary, parts.callbacks())
    while (chunk := await _next_chunk(stream)) is not None:
        try:
            parser.write(chunk)
        except FormParserError:
            raise RequestRefusalError(400, "The body is no multipart; let your DICOMweb library write it.") from None
        while parts.found:
            yield parts.found.pop(0)
    if not parts.is_whole:
        raise RequestRefusalError(400, "The body breaks off before its last boundary; send it whole.")


async def _next_chunk(stream: AsyncIterator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return await anext(stream, None)
    except TimeoutError:
        raise RequestRefusalError(408, f"Nothing came for {_TIMEOUT_SECONDS:.0f} s; send it again.") from None


class _Parts:
    """What the parser calls as it finds it; `found` are the objects that are whole."""

    def __init__(self) -> None:
        self.found: list[Part | taking.Told] = []
        self.is_whole = False
        self._file = bytearray()
        self._too_large: Part | taking.Told | None = None

    def callbacks(self) -> MultipartCallbacks:
        """The parser's callbacks; what heads a part is not read."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._add,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._file, self._too_large = bytearray(), None

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._too_large is not None:
            return
        self._file += data[start:end]
        if len(self._file) > taking.MAX_OBJECT:
            self._too_large = _identify(bytes(self._file), is_whole=False)
            self._file = bytearray()

    def _end(self) -> None:
        self.found.append(self._too_large or _identify(bytes(self._file)))
        self._file = bytearray()

    def _finish(self) -> None:
        self.is_whole = True


def _identify(file: bytes, *, is_whole: bool = True) -> Part | taking.Told:
    """A file as it says what it is; a fault where it does not."""
    try:
        found = read_file(file, {_SOP_CLASS, _SOP_INSTANCE})
        values = [found.value(found.elements[tag]) for tag in (_SOP_CLASS, _SOP_INSTANCE)]
    except ImageError as error:
        if not is_whole:
            return taking.TOO_LARGE
        return taking.WRONG_SYNTAX if error.status == 415 else taking.DAMAGED
    except KeyError:
        return taking.DAMAGED
    sop_class, instance = (value.decode("ascii", "replace").rstrip("\0 ") for value in values)
    if not (_UID.fullmatch(sop_class) and _UID.fullmatch(instance)):
        return taking.DAMAGED
    return Part(sop_class, instance, found.syntax, file[found.begin :] if is_whole else None)
