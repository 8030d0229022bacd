"""Spans of a worker's jobs, kept in memory by OpenTelemetry's SDK, for tests to read."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import Counter

from aril.worker.tracing import JobTracing
from tests.support.harness import Harness, MemoryWriter

BASE = "tiny"


class Spans:
    """What a worker has sent; a test that makes one is skipped where the SDK is missing."""

    def __init__(self, worker: str = "w1") -> None:
        pytest.importorskip("opentelemetry.sdk")
        pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
        from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - not everywhere
            SimpleSpanProcessor,
        )
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415
            InMemorySpanExporter,
        )

        from aril.worker.observe.traces.otel import SpanRecorder  # noqa: PLC0415 - same

        self.worker = worker
        self._exporter = InMemorySpanExporter()
        ended = Counter("spans", "Spans.", registry=None)
        processor = SimpleSpanProcessor(self._exporter)
        self.recorder = SpanRecorder(processor, worker=worker, ended=ended)
        self.tracing = JobTracing(
            self.recorder, worker=worker, base=BASE, group="aril", dlq_topic="jobs.dlq"
        )

    def harness(self, writer: MemoryWriter | None = None, **options: Any) -> Harness:
        """Return a worker whose jobs are traced."""
        return Harness(worker=self.worker, writer=writer, tracing=self.tracing, **options)

    @property
    def all(self) -> list[Any]:
        """Every span that has ended, in the order of their ends."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        """The names of all spans, in the order of their ends."""
        return [span.name for span in self.all]

    def one(self, name: str) -> Any:
        """Return the only span of a name."""
        (found,) = [span for span in self.all if span.name == name]
        return found

    @property
    def root(self) -> Any:
        """The only job's root."""
        return self.one("process jobs")
