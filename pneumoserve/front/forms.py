"""Bodies of multipart/form-data (RFC 7578), as a web page's form or `curl --form` sends them.

Names of files are not read: they may hold a patient's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pneumoserve.front.errors import CallError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILE: Final = "file"
FIELDS: Final = ("study", "patient", "practitioner", "reference", "origin")
# What a sender may call bytes that it sends as they are.
_AS_IT_IS: Final = {b"7bit", b"8bit", b"binary"}

# Its lines quote bytes of what was sent.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Form:
    """The bytes of each part called `file`, in their order, and the texts of the other fields."""

    files: list[bytes]
    fields: dict[str, str]


def parse_form(body: bytes, content_type: str, most_files: int) -> Form:
    """Take a form apart.

    Raises:
        CallError: 400 malformed, or with parts that no call has.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise CallError(400, "The Content-Type of the form has no boundary; let your HTTP library write that header.")
    parts = _Parts(most_files + len(FIELDS))
    try:
        MultipartParser(boundary, parts.callbacks()).write(body)
    except FormParserError:
        raise CallError(400, "The form is malformed; let your HTTP library write it.") from None
    if not parts.whole:
        raise CallError(400, "The form breaks off before its last boundary; send it whole.")
    return parts.form


class _Parts:
    """What the parser calls as it finds it."""

    def __init__(self, most: int) -> None:
        self.form = Form([], {})
        self.whole = False
        self._most = most
        self._count = 0
        self._header = [b"", b""]
        self._headers: dict[bytes, bytes] = {}
        self._content: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """The parser's callbacks."""
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_content,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._count += 1
        # As soon as there is one too many: a body of 44 MiB can hold a million.
        if self._count > self._most:
            raise CallError(400, f"The form has more than {self._most} parts; send several calls.")
        self._headers, self._content = {}, []

    def _begin_header(self) -> None:
        self._header = [b"", b""]

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[name.lower()] = value

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _end(self) -> None:
        content = self._content[0] if len(self._content) == 1 else b"".join(self._content)
        name = _field_of(self._headers)
        if name == FILE:
            self.form.files.append(content)
        elif name not in FIELDS or name in self.form.fields:
            raise CallError(
                400, f"A form has parts called file, one an image, and at most one each of {', '.join(FIELDS)}."
            )
        else:
            self.form.fields[name] = _text(name, content)

    def _finish(self) -> None:
        self.whole = True


def _field_of(headers: dict[bytes, bytes]) -> str:
    if headers.get(b"content-transfer-encoding", b"binary").strip().lower() not in _AS_IT_IS:
        raise CallError(400, "A part of the form has a Content-Transfer-Encoding; send the file's bytes as they are.")
    _, options = parse_options_header(headers.get(b"content-disposition", b"").decode("latin-1"))
    return options.get(b"name", b"").decode("latin-1")


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CallError(400, f"{name} is no UTF-8 text; correct it.") from None
