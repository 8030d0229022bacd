"""Log lines of a gateway: time, level, what happened, and its values as key=value.

Never a prompt, a key or what an exception says: of an exception there are kinds and places.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MOST_FRAMES: Final = 12


class KeyValue(logging.Formatter):
    """`2026-11-30T12:00:00Z info ready http=127.0.0.1:8000`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [
            f"{at}.{int(record.msecs):03d}Z",
            record.levelname.lower(),
            _value(record.getMessage()),
            *(
                f"{name}={_value(value)}"
                for name, value in vars(record).items()
                if name not in _OWN and value is not None
            ),
        ]
        if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
            parts.append(f"exception={_value(described(record.exc_info[1]))}")
        return " ".join(parts)


def described(error: BaseException) -> str:
    """Return an exception's kind and where it was raised, the innermost place first."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return " ".join([kind, *_places(error.__traceback__)])


def _places(trace: TracebackType | None) -> list[str]:
    stack = traceback.StackSummary.extract(
        traceback.walk_tb(trace), limit=-_MOST_FRAMES, lookup_lines=False
    )
    return [f"{frame.filename}:{frame.lineno}" for frame in reversed(stack)]


def _value(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not any(each in text for each in ' "=')
    return text if plain else json.dumps(text)


def configure_logs() -> None:
    """Send every log of this process to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValue())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # While a broker is down it says so hundreds of times a second; what matters we say ourselves.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # Its own words about exceptions that were told already, with what these say.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    # It tells bytes of what was sent.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
