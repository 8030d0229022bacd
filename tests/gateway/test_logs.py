"""Log lines: one a record, values that can be read back, nothing of what an exception says."""

from __future__ import annotations

import logging
import sys

from aril.gateway.logs import KeyValue


def line(message: str, **values: object) -> str:
    """Format a record."""
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", "created": 0.25} | values)
    return KeyValue().format(record)


def test_values() -> None:
    """What has blanks or quotes is quoted, None is left out."""
    told = line("ready", http="127.0.0.1:1", why='a "b"\nc', job=None, empty="")
    assert told.startswith("1970-01-01T00:00:00.")
    assert told.endswith(' info ready http=127.0.0.1:1 why="a \\"b\\"\\nc" empty=""')
    assert "\n" not in line("two\nlines")


def test_exceptions() -> None:
    """Kind and place."""
    try:
        raise ValueError("a secret prompt")  # noqa: TRY301 - it is what is logged
    except ValueError:
        told = line("failed", exc_info=sys.exc_info())
    assert "secret" not in told
    assert "builtins.ValueError" in told
    assert "test_logs.py:" in told
    assert "\n" not in told
