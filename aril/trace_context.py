"""The trace that a job belongs to: W3C Trace Context, as headers of its record.

    client.stream("Hello!", traceparent="00-4bf92f35…-00f067aa0ba902b7-01")

Where a program uses OpenTelemetry, a job goes into the span that is current when it is asked for;
nothing has to be said then. A worker with `ARIL_TRACES` puts its spans below that.
"""

from __future__ import annotations

import re
import sys
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

# https://www.w3.org/TR/trace-context/: version, trace, parent, flags; later versions may have more.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")

Headers = tuple[tuple[str, bytes], ...]


def trace_headers(traceparent: str | None, tracestate: str | None) -> Headers:
    """Return the headers of what is given, else of OpenTelemetry's current span, else none.

    Raises ValueError for what is no trace context.
    """
    if traceparent is None:
        if tracestate is not None:
            raise ValueError("tracestate: says nothing without a traceparent")
        return _current()
    if not _TRACEPARENT.fullmatch(traceparent):
        raise ValueError("traceparent: not of the form 00-<32 hex>-<16 hex>-<2 hex>")
    if tracestate is not None and not _TRACESTATE.fullmatch(tracestate):
        raise ValueError("tracestate: more than 512 characters, or not printable ASCII")
    given = ((TRACEPARENT, traceparent), (TRACESTATE, tracestate))
    return tuple((name, value.encode()) for name, value in given if value is not None)


def _current() -> Headers:
    """Return the current span's context. Whoever has one has imported the package already."""
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - as above
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple((name, value.encode()) for name, value in carrier.items())
