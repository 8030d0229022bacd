"""Structured logs: for people on a terminal, JSON lines elsewhere. Never a prompt, never a secret.

Job and tenant travel as bound values. Libraries that log through the standard module come out in
the same form.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import structlog

from aril.worker.observe.exceptions import as_lines, tell_exceptions

if TYPE_CHECKING:
    import asyncio
    from collections.abc import MutableMapping

    from aril.worker.settings import WorkerSettings


# How often one message of Kafka's libraries is told: while a broker is down aiokafka logs hundreds
# a second, librdkafka twenty.
REPEAT_SECONDS = 10.0
MOST_KINDS = 1_000
_NUMBER = re.compile(r"\d+")
# How many lines of one kind there are in a while, of what tenants bring about.
SAMPLE_SECONDS = 10.0
SAMPLE_LINES = 20


class Repeats(logging.Filter):
    """Lets one message of a kind through in a while, and says how many it has held back.

    A kind is a logger and a message before its values are filled in, or without its numbers, as
    librdkafka fills them in itself: there are few of them.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a library's record is to be logged; the worker's own always are."""
        if record.name.startswith("aiokafka"):
            kind = (record.name, str(record.msg))
        elif record.name.startswith("confluent_kafka"):
            kind = (record.name, _NUMBER.sub("#", record.getMessage()))
        else:
            return True
        last, held_back = self._told.get(kind, (record.created - self._seconds, 0))
        if record.created - last < self._seconds:
            self._told[kind] = (last, held_back + 1)
            return False
        if len(self._told) >= MOST_KINDS:
            self._told.clear()
        self._told[kind] = (record.created, 0)
        if held_back:
            record.msg = f"{record.msg} [and {held_back} like it before]"
        return True


class Sampled:
    """Warnings that a tenant can bring about at will: so many a while, the others are counted."""

    def __init__(self, logger: structlog.stdlib.BoundLogger) -> None:
        self._logger = logger
        self._since = -SAMPLE_SECONDS
        self._told = 0

    def warning(self, event: str, **values: Any) -> None:
        """Log, unless there was too much of it; a new while begins with what was held back."""
        now = time.monotonic()
        if now - self._since >= SAMPLE_SECONDS:
            held_back, self._told, self._since = max(0, self._told - SAMPLE_LINES), 0, now
            if held_back:
                values["held_back"] = held_back
        self._told += 1
        if self._told <= SAMPLE_LINES:
            self._logger.warning(event, **values)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger that is configured when it is first used."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def configure_logs(settings: WorkerSettings) -> None:
    """Send every log of this process to standard error in one form."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.typing.Processor] = (
        [tell_exceptions, structlog.processors.JSONRenderer()]
        if as_json
        else [_short_logger, tell_exceptions, as_lines, structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    handler.addFilter(Repeats(REPEAT_SECONDS))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # What aiokafka tells at these levels about a rebalance, we tell in our own words.
    logging.getLogger("aiokafka").setLevel("ERROR")
    logging.getLogger("aiohttp.access").setLevel("WARNING")


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Tell of exceptions that nobody awaited; asyncio's own words quote them, and arguments."""

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        log = get_logger(__name__)
        log.error("unhandled_exception", exc_info=context.get("exception"))

    loop.set_exception_handler(tell)


def _short_logger(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("logger", None)
    return event
