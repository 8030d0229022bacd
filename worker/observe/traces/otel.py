"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP in a thread of the SDK's.

Configured by OpenTelemetry's environment (`OTEL_*`). What that asks for and is not there is an
error, where the SDK would warn and do something else. A collector that is down costs spans: they
are counted and logged, and nothing waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.observe.exceptions import describe
from worker.observe.logs import Sampled, get_logger
from worker.observe.traces.identity import span_id, trace_id
from worker.observe.traces.recorder import TracesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client import Counter

    from worker.observe.traces.recorder import JobSpan, Kind, Recorder, Root, Told, Value

log = get_logger(__name__)

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
_KINDS: Final[dict[Kind, Any]] = {
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
}
_W3C: Final = TraceContextTextMapPropagator()
_W3C_HEADERS: Final = frozenset({"traceparent", "tracestate"})
_NOWHERE: Final = Context()  # no parent, and not the one that may be current


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


class Ids:
    """What the SDK asks for ids: those that were set, once each, else random ones."""

    def __init__(self) -> None:
        self.trace: int | None = None
        self.span: int | None = None

    def generate_trace_id(self) -> int:
        """Return 128 bits."""
        given, self.trace = self.trace, None
        return given or random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        """Return 64 bits."""
        given, self.span = self.span, None
        return given or random.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        """Tell that most follow from a job's record: they are spread evenly, and not drawn."""
        return False


class SpanRecorder:
    """Makes spans of what is told, for a processor of the SDK's. See Recorder."""

    def __init__(self, processor: Any, *, worker: str, ended: Counter) -> None:
        """Prepare; `ended` counts spans that go to the processor."""
        self._ids = Ids()
        self._ended = ended
        # At exit is too late: whoever closes us says how long that may take.
        self._provider = TracerProvider(
            resource=_resource(worker), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("aril", version("aril"), SCHEMA)
        _silence()

    def open(self, root: Root) -> JobSpan | None:
        """See Recorder."""
        context = _parent(root.headers)
        parent = trace.get_current_span(context).get_span_context()
        own = parent.trace_id if parent.is_valid else trace_id(root.place, root.digest)
        self._ids.trace = None if parent.is_valid else own
        self._ids.span = span_id(root.place, root.owner)
        links = []
        if (before := root.taken_from) is not None:
            theirs = span_id(root.place, before)
            at = SpanContext(own, theirs, is_remote=True, trace_flags=TraceFlags(1))
            links.append(Link(at, {"aril.worker": before.worker}))
        span = self._tracer.start_span(
            root.name,
            context,
            SpanKind.CONSUMER,
            dict(root.attributes),
            links,
            start_time=root.start_ns,
        )
        return OpenSpan(self._tracer, span, self._ended) if span.is_recording() else None

    def step(self, span: Told, jobs: Sequence[JobSpan]) -> object | None:
        """See Recorder."""
        links = [Link(job.context) for job in jobs]
        return _make(self._tracer, span, _NOWHERE, links, self._ended)

    async def close(self, seconds: float) -> None:
        """See Recorder. A thread that no exit waits for does it: a collector may not answer."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=flush, name="spans-flush", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await done.wait()
        except TimeoutError:
            log.warning("spans_not_flushed", seconds=seconds)


class OpenSpan:
    """A job's root. See JobSpan."""

    def __init__(self, tracer: Any, span: Any, ended: Counter) -> None:
        self._tracer = tracer
        self._span = span
        self._below = trace.set_span_in_context(span, _NOWHERE)
        self._ended = ended

    @property
    def context(self) -> object:
        """See JobSpan."""
        return self._span.get_span_context()

    def add(self, span: Told) -> None:
        """See JobSpan."""
        links = [Link(context) for context in span.steps]
        _make(self._tracer, span, self._below, links, self._ended)

    def end(self, end_ns: int, attributes: Mapping[str, Value], *, error: str | None) -> None:
        """See JobSpan."""
        self._span.set_attributes(dict(attributes))
        if error is not None:
            self._span.set_status(StatusCode.ERROR, error)
        self._span.end(end_ns)
        self._ended.inc()


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


def _make(
    tracer: Any, span: Told, context: Any, links: Sequence[Any], ended: Counter
) -> object | None:
    """Make a span, whole; return its context, None where it is not sampled."""
    made = tracer.start_span(
        span.name,
        context,
        _KINDS[span.kind],
        dict(span.attributes),
        links,
        start_time=span.start_ns,
    )
    if not made.is_recording():
        return None
    made.end(span.end_ns)
    ended.inc()
    context_of_it: object = made.get_span_context()
    return context_of_it


def _parent(headers: Sequence[tuple[str, bytes | None]]) -> Any:
    """Return the context that a job came with; of one that is malformed, none."""
    carrier: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _W3C_HEADERS and value is not None:
            carrier.setdefault(name, []).append(value.decode("latin-1"))
    if len(carrier.get("traceparent", ())) != 1:  # of two, nobody knows which
        return _NOWHERE
    return _W3C.extract(carrier, _NOWHERE)


def _resource(worker: str) -> Any:
    """Return what all spans have in common; the environment's word goes before ours."""
    ours = {
        "service.name": "aril",
        "service.version": version("aril"),
        "service.instance.id": worker,
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


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


def _silence() -> None:
    """Let OpenTelemetry's packages log nothing from now on.

    They quote what tenants wrote into their headers, and addresses that may have a secret in them.
    `_Counting` says what is lost.
    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.WARNING)


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
