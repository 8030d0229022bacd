"""A `multipart/form-data` body: its one file goes to disk as it comes, its fields are short."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from aril.gateway.body import CLOSE, too_large
from aril.gateway.failures import LEFT, Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks
    from starlette.requests import Request

MOST_FIELDS: Final = 16
MOST_FIELD_BYTES: Final = 1_024
BESIDE_BYTES: Final = 100_000
"""What a body may hold beside its file."""
PIECE_BYTES: Final = 1 << 18
"""What is gathered before it is written: a thread's turn costs more than a small write."""
FILE: Final = "file"


class Sink(Protocol):
    """Where a file goes."""

    def write(self, data: bytes) -> None:
        """Append; in a thread."""


class Form:
    """What was said beside the file."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """As its sender calls it; None if there was no file."""


async def receive(request: Request, sink: Sink, most: int) -> Form:
    """Read a body to its end, at most `most` bytes of file into `sink`.

    Raises `Refusal`: 413, 415, 400 for what is no form, and where the caller leaves midway.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Refusal(415, "content-type: must be multipart/form-data", param="content-type")
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told[:18]) > most + BESIDE_BYTES:
        raise too_large(most, int(told[:18]), FILE)
    parts, length = _Parts(most), 0
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks)
        async for piece in request.stream():
            length += len(piece)
            if length > most + BESIDE_BYTES:
                raise too_large(most, length, FILE)
            parser.write(piece)
            if len(parts.pending) >= PIECE_BYTES:
                await asyncio.to_thread(sink.write, parts.taken())
    except FormParserError:
        raise _bad("the body is no form") from None
    except ClientDisconnect:
        raise Refusal(LEFT, "the caller has left") from None
    await asyncio.to_thread(sink.write, parts.taken())
    if not parts.ended:
        raise _bad("the body ends too soon")
    return parts.form


class _Parts:
    """What the parser calls: the form as far as it has come, and bytes of the file to write."""

    def __init__(self, most: int) -> None:
        self.form = Form()
        self.pending = bytearray()
        self.ended = False
        self._most = most
        self._file_bytes = 0
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._name = ""

    @property
    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def taken(self) -> bytes:
        """Return what is to be written now."""
        data = bytes(self.pending)
        self.pending.clear()
        return data

    def _begin(self) -> None:
        self._disposition, self._name = b"", ""
        self._value.clear()

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = _text(options.get(b"name", b""))
        if not self._name:
            raise _bad("a part of the body has no name")
        if self._name in self.form.fields or (self._is_file and self.form.filename is not None):
            raise _bad(f"{self._name:.80}: stands there twice", self._name[:80])
        if self._is_file:
            self.form.filename = _text(options.get(b"filename", b""))
        elif len(self.form.fields) >= MOST_FIELDS:
            raise _bad(f"more than {MOST_FIELDS} fields")

    @property
    def _is_file(self) -> bool:
        return self._name == FILE

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            if len(self._value) + end - start > MOST_FIELD_BYTES:
                raise _bad(f"{self._name:.80}: longer than {MOST_FIELD_BYTES} bytes")
            self._value += data[start:end]
            return
        self._file_bytes += end - start
        if self._file_bytes > self._most:
            raise too_large(self._most, self._file_bytes, FILE)
        self.pending += data[start:end]

    def _part_end(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = _text(bytes(self._value))
        self._value.clear()

    def _end(self) -> None:
        self.ended = True


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _bad(message: str, param: str | None = None) -> Refusal:
    return Refusal(400, message, code="invalid_job", param=param, headers=CLOSE)
