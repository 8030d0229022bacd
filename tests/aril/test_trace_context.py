"""A job is sent into the trace that its caller names, or is in."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from aril import Client
from aril.memory import MemoryBroker, MemoryTransport
from aril.trace_context import trace_headers

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def sent(**options: Any) -> list[tuple[str, bytes]]:
    """Send one job; return the headers of its record."""
    broker = MemoryBroker()
    async with Client("", "acme", transport=MemoryTransport(broker)) as client:
        stream = client.stream("Hello!", **options)
        await stream.start()
        stream.detach()
    return broker.headers[0]


async def test_a_given_parent_goes_into_the_header() -> None:
    """With its tracestate, if there is one."""
    assert await sent(traceparent=TRACEPARENT) == [("traceparent", TRACEPARENT.encode())]
    assert await sent(traceparent=TRACEPARENT, tracestate="vendor=1") == [
        ("traceparent", TRACEPARENT.encode()),
        ("tracestate", b"vendor=1"),
    ]


async def test_a_current_span_is_the_parent_unless_one_is_given() -> None:
    """Of a program that uses OpenTelemetry; it says nothing to the client."""
    trace = pytest.importorskip("opentelemetry.trace")
    assert await sent() == []
    context = trace.SpanContext(
        1, 2, is_remote=False, trace_flags=trace.TraceFlags(1), trace_state=None
    )
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert await sent() == [("traceparent", f"00-{1:032x}-{2:016x}-01".encode())]
        assert await sent(traceparent=TRACEPARENT) == [("traceparent", TRACEPARENT.encode())]


@pytest.mark.parametrize(
    ("traceparent", "tracestate"),
    [
        ("00-1", None),
        (TRACEPARENT + "\n", None),
        (TRACEPARENT.upper(), None),
        ("ff" + TRACEPARENT[2:], None),
        ("00-" + "0" * 32 + TRACEPARENT[35:], None),
        (TRACEPARENT[:36] + "0" * 16 + "-01", None),
        (None, "vendor=1"),
        (TRACEPARENT, ""),
        (TRACEPARENT, "x" * 513),
        (TRACEPARENT, "x=é"),
    ],
)
def test_what_is_no_trace_context_is_refused(
    traceparent: str | None, tracestate: str | None
) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=r"traceparent|tracestate"):
        trace_headers(traceparent, tracestate)


def test_nothing_imports_opentelemetry_by_itself() -> None:
    """Neither a client nor a worker whose traces are off."""
    code = (
        "import sys, aril.client, aril.trace_context, aril.worker.app\n"
        "assert aril.trace_context.trace_headers(None, None) == ()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
