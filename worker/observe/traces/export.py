"""Sending spans by OTLP over HTTP, in a thread of OpenTelemetry's SDK.

Configured by OpenTelemetry's environment (`OTEL_*`). What that asks for and is not there is an
error, where the SDK would warn and do something else. A collector that is down costs spans: they
are counted and logged, and nothing waits for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from aril.worker.observe.exceptions import describe
from aril.worker.observe.logs import Sampled, get_logger
from aril.worker.observe.traces.otel import SpanRecorder
from aril.worker.observe.traces.recorder import TracesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Counter

    from aril.worker.observe.traces.recorder import Recorder

log = get_logger(__name__)


def open_exporting(worker: str, *, ended: Counter, exported: Counter) -> Recorder:
    """Return a recorder that sends spans by OTLP. Raises TracesError."""
    _check_environment()
    processor: Any = None
    try:
        with _no_warnings():
            processor = BatchSpanProcessor(_Counting(OTLPSpanExporter(), exported))
            return SpanRecorder(processor, worker=worker, ended=ended)
    except TracesError:
        if processor is not None:
            processor.shutdown()  # its thread has nothing to send
        raise


class _Counting:
    """An exporter that counts what arrives, and says what does not; in the SDK's thread."""

    def __init__(self, exporter: Any, exported: Counter) -> None:
        self._exporter = exporter
        self._exported = exported
        self._told = Sampled(log)

    def export(self, spans: Sequence[Any]) -> Any:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - spans are lost, and nothing else
            self._told.warning("spans_lost", spans=len(spans), exception=describe(error))
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._exported.inc(len(spans))
        else:
            self._told.warning("spans_lost", spans=len(spans))
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        flushed: bool = self._exporter.force_flush(timeout_millis)
        return flushed

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _check_environment() -> None:
    """Refuse what the package at hand cannot do, and the SDK would pass over."""
    for name, fits in (
        ("OTEL_TRACES_EXPORTER", ("otlp",)),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", ("http/protobuf",)),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", ("http/protobuf",)),
    ):
        if (value := os.environ.get(name)) and value not in fits:
            raise TracesError(f"{name}: only {fits[0]} is served here")
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        value = os.environ.get(name)
        if value and not value.startswith(("http://", "https://")):
            raise TracesError(f"{name}: must begin with http:// or https://")


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        # Not what it was about: that may be a header with a secret.
        self.first = self.first or str(record.msg).replace("%s", "…").splitlines()[0]


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Make an error of what OpenTelemetry's packages warn of, or raise."""
    logger, heard = logging.getLogger("opentelemetry"), _Collected()
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(heard)
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise TracesError(f"OTEL_*: {type(error).__name__}: {error}") from None
    finally:
        logger.removeHandler(heard)
        logger.propagate = True
    if heard.first is not None:
        raise TracesError(f"OTEL_*: {heard.first}")
