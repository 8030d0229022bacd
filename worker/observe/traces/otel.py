"""Spans by OpenTelemetry's SDK, with ids of ours. Where they go is a processor's matter."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aril.worker.observe.logs import get_logger
from aril.worker.observe.traces.identity import span_id, trace_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prometheus_client import Counter

    from aril.worker.observe.traces.recorder import JobSpan, Kind, Root, Told, Value

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
        self._tracer = self._provider.get_tracer("aril", version("aril-client"), SCHEMA)
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
        "service.version": version("aril-client"),
        "service.instance.id": worker,
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _silence() -> None:
    """Let OpenTelemetry's packages log nothing from now on.

    They quote what tenants wrote into their headers, and addresses that may have a secret in them.
    `export` says what is lost.
    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.WARNING)
