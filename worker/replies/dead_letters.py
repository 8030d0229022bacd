"""What is kept of a record that nobody can be answered for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from aril.worker.job import Record

CUT_VALUE: Final = 65_536  # bytes kept of a value that has no room beside our headers
CUT_KEY: Final = 1_024
TOLD: Final = (
    "reason",
    "code",
    "message",
    "topic",
    "partition",
    "offset",
    "timestamp",
    "key",
    "cut",
    "left-out",
)
OURS: Final = frozenset(f"aril-{name}" for name in TOLD)


class DeadLetter(NamedTuple):
    """A record of the dead-letter topic.

    Value and headers are the sender's, the reason stands beside them in headers `aril-…`; a header
    of such a name that the sender set is left out, so that each stands there once and is ours. The
    key names the place of the record, since an append that is repeated lands twice: readers drop
    the second by it.
    """

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @classmethod
    def of(cls, record: Record, reason: str, code: str, message: str) -> Self:
        """Keep all of a record."""
        told = _told(record, reason, code, message)
        if record.key is not None:
            told["aril-key"] = record.key
        theirs = [(name, value) for name, value in record.headers if name not in OURS]
        return cls(_key(record), record.value, [*theirs, *told.items()])

    @classmethod
    def cut(cls, record: Record, reason: str, code: str, message: str) -> Self:
        """Keep the beginning of one that was so large that it has no room beside our headers.

        `aril-cut` says how many bytes its value had; the whole is where the other headers say,
        until retention takes it. The sender's headers are left out.
        """
        told = _told(record, reason, code, message)
        told["aril-cut"] = str(len(record.value or b"")).encode()
        if record.key is not None:
            told["aril-key"] = record.key[:CUT_KEY]
        value = None if record.value is None else record.value[:CUT_VALUE]
        return cls(_key(record), value, [*told.items()])


def _key(record: Record) -> bytes:
    source = record.source
    return f"{source.topic}/{source.partition}/{record.offset}".encode()


def _told(record: Record, reason: str, code: str, message: str) -> dict[str, bytes]:
    told = {
        "aril-reason": reason,
        "aril-code": code,
        "aril-message": message,
        "aril-topic": record.source.topic,
        "aril-partition": str(record.source.partition),
        "aril-offset": str(record.offset),
        "aril-timestamp": str(record.timestamp_ms),
    }
    if record.left_out:
        told["aril-left-out"] = str(record.left_out)
    return {name: text.encode() for name, text in told.items()}
