"""Traces: which spans a job has, and OpenTelemetry behind them.

`phases` and `identity` are pure: times and ids. `recorder` says what is asked of whoever keeps
spans; `otel` does it with OpenTelemetry's SDK, `export` sends them, and nobody else imports that.
Which of a job's stages is which phase is in `aril.worker.tracing`, what is told of a job in
`aril.worker.span_attributes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.observe.traces.recorder import TracesError

if TYPE_CHECKING:
    from prometheus_client import Counter

    from aril.worker.observe.traces.recorder import Recorder

__all__ = ["TracesError", "open_recorder"]


def open_recorder(worker: str, *, ended: Counter, exported: Counter) -> Recorder:
    """Return what sends spans away, as OpenTelemetry's environment says; its threads run.

    `ended` and `exported` count spans. Raises TracesError with one line: the package is not there,
    or the environment asks for what is not.
    """
    try:
        from aril.worker.observe.traces.export import (  # noqa: PLC0415 - only for those who want traces
            open_exporting,
        )
    except ImportError:
        raise TracesError("ARIL_TRACES needs OpenTelemetry: pip install 'aril[otel]'") from None
    return open_exporting(worker, ended=ended, exported=exported)
