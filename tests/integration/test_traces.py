"""Real workers send real spans: across a crash, while the collector is away, as they leave."""

from __future__ import annotations

import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.collector import Collector
from tests.support.group_protocols import by_either_protocol

if TYPE_CHECKING:
    from tests.integration.conftest import Site

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]

LONG = {"max_tokens": 300, "ignore_eos": True}
PACE = "0.02"  # seconds a step: a worker is killed in the middle of an answer


@pytest.fixture(autouse=True)
def otel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Need the package; let workers send their spans soon."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def worker_of(span: Any) -> str | None:
    """Return the worker that a root is of."""
    told = {pair.key: pair.value.string_value for pair in span.attributes}
    return told.get("messaging.client.id")


@by_either_protocol
async def test_a_take_over_after_a_crash_is_one_trace(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed worker's early spans, and the next one's whole life with a link to its root."""
    trace = uuid.uuid4()
    async with Collector() as collector, site.client("visitor") as client:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        one = site.worker("one", traces="steps")
        one.module = ("tests.support.paced_worker", PACE)
        async with one:
            parent = f"00-{trace.hex}-{'1' * 16}-01"
            stream = client.stream("a story", sampling=LONG, traceparent=parent, timeout=150)
            events = aiter(stream)
            await anext(events)
            await collector.until("window")
            one.signal(signal.SIGKILL)
            await one.wait()
        before = [span for span in collector.spans if span.trace_id == trace.bytes]
        assert {span.name for span in before} == {"queue", "prepare", "window"}
        two = site.worker("two", traces="steps")
        two.module = one.module
        async with two:
            async for _ in events:
                pass
            answer = await stream.result()
            assert await two.stop() == 0
            assert (len(answer.token_ids), answer.resets) == (300, 0)
        spans = [span for span in collector.spans if span.trace_id == trace.bytes][len(before) :]
        names = [span.name for span in spans]
        assert names[-1].startswith("process ")
        assert {"queue", "claim", "prepare", "prefill", "decode"} < set(names)
        root = spans[-1]
        assert root.parent_span_id == bytes.fromhex("1" * 16)
        assert [link.span_id for link in root.links] == [before[0].parent_span_id]
        assert worker_of(root)
        steps = [span for span in collector.spans if span.name == "step"]
        assert root.span_id in {link.span_id for step in steps for link in step.links}


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are answered, the worker leaves with code 0, and its metrics say what is missing."""
    async with Collector() as gone:
        url = gone.url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    async with site.worker("one", traces="on") as worker, site.client("visitor") as client:
        for _ in range(3):
            answer = await client.complete("hello", sampling={"max_tokens": 4}, timeout=60)
            assert answer.text is not None
        assert await worker.metric("aril_spans_total") >= 3
        assert await worker.metric("aril_spans_exported_total") == 0
        assert await worker.stop() == 0
        assert "spans_lost" in worker.log.read_text()
