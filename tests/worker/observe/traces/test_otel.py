"""Sending spans: OpenTelemetry's environment is kept to or refused, and a collector may be down."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import Counter
from structlog.testing import capture_logs

from aril.worker.observe.traces import TracesError, open_recorder
from aril.worker.observe.traces.identity import Owner, Place
from aril.worker.observe.traces.recorder import Root, Told
from tests.support.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aril.worker.observe.traces.recorder import Recorder


@pytest.fixture(autouse=True)
def otel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Need the package, and have nobody's environment; its loggers are put back."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    loggers = [logging.getLogger("opentelemetry"), logging.getLogger("urllib3")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class Counts:
    """The two counters, by themselves."""

    def __init__(self) -> None:
        self.ended = Counter("ended", "Ended.", registry=None)
        self.exported = Counter("exported", "Exported.", registry=None)

    @property
    def values(self) -> tuple[float, float]:
        """How many ended, how many were exported."""
        return self.ended._value.get(), self.exported._value.get()

    def recorder(self) -> Recorder:
        """Return a recorder that counts here."""
        return open_recorder("w1", ended=self.ended, exported=self.exported)


ROOT = Root(
    name="process jobs",
    start_ns=1_000,
    headers=(),
    place=Place("jobs", 0, 0, 0),
    digest=b"",
    owner=Owner("w1", 1),
    taken_from=None,
    attributes={"aril.job": "j1", "aril.adapters": ("one", "two")},
)


def tell(recorder: Recorder) -> None:
    """Tell of one job with one span."""
    root = recorder.open(ROOT)
    assert root is not None
    root.add(Told(name="queue", start_ns=1_000, end_ns=2_000))
    root.end(3_000, {"aril.end": "stop"}, error=None)


async def test_spans_arrive_when_the_worker_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing sends what is left; name and attributes of the service are the environment's."""
    counts = Counts()
    async with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-aril")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        recorder = counts.recorder()
        tell(recorder)
        await recorder.close(30)
    assert [span.name for span in collector.spans] == ["queue", "process jobs"]
    assert collector.headers["x-token"] == "abc"
    assert (
        collector.resource.items()
        >= {
            "service.name": "my-aril",
            "service.instance.id": "w1",
            "deployment.environment.name": "test",
        }.items()
    )
    assert counts.values == (2, 2)


async def test_the_service_has_a_name_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, not `unknown_service`."""
    async with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        recorder = Counts().recorder()
        tell(recorder)
        await recorder.close(30)
    assert collector.resource["service.name"] == "aril"


@pytest.mark.parametrize("status", [400, 503])
async def test_a_collector_that_refuses_costs_spans(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted as ended and not as exported; the log says so in our words only."""
    counts = Counts()
    async with Collector(status=status) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/secret")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
        recorder = counts.recorder()
        tell(recorder)
        with capture_logs() as logs:
            await recorder.close(30)
    assert counts.values == (2, 0)
    assert [(line["event"], line["spans"]) for line in logs] == [("spans_lost", 2)]
    assert "secret" not in caplog.text
    assert not [each for each in caplog.records if each.name.startswith("opentelemetry")]


async def test_a_collector_that_does_not_answer_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing ends when its time is up, with the request under way."""
    counts = Counts()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        port = silent.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        recorder = counts.recorder()
        tell(recorder)
        with capture_logs() as logs:
            await recorder.close(0.05)
        assert [line["event"] for line in logs] == ["spans_not_flushed"]
        assert counts.values == (2, 0)
        await wait_for_flush()


async def wait_for_flush() -> None:
    """Let threads that a test leaves behind end, so that none meets the next test."""
    for thread in threading.enumerate():
        if thread.name in {"spans-flush", "OtelBatchSpanRecordProcessor"}:
            await asyncio.to_thread(thread.join)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: only otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "only http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must begin with http"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "sampler"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "OTEL_"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "SECRET", "OTEL_"),
    ],
)
def test_what_cannot_be_done_is_refused(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line that keeps the value to itself, where the SDK would do something else."""
    monkeypatch.setenv(name, value)
    with pytest.raises(TracesError) as caught:
        Counts().recorder()
    told = str(caught.value)
    assert says in told
    assert "\n" not in told
    assert "SECRET" not in told


async def test_an_sdk_that_is_disabled_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry's own switch says."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    recorder = Counts().recorder()
    assert recorder.open(ROOT) is None
    assert recorder.step(Told(name="step", start_ns=1_000, end_ns=2_000), []) is None
    await recorder.close(30)


@pytest.mark.parametrize(("ratio", "sampled"), [("0", False), ("1", True)])
async def test_the_environments_sampler_decides(
    ratio: str, sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a job's trace, which follows from its record: all of its owners decide alike."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    recorder = Counts().recorder()
    assert (recorder.open(ROOT) is not None) is sampled
    await recorder.close(30)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, for who has set ARIL_TRACES."""
    missing: Any = None
    monkeypatch.setitem(sys.modules, "aril.worker.observe.traces.export", missing)
    with pytest.raises(TracesError, match=r"pip install 'aril\[otel\]'"):
        Counts().recorder()


def test_a_worker_without_the_package_ends_with_one_line_and_code_2() -> None:
    """Before it loads or connects to anything."""
    code = (
        "import sys; sys.modules['aril.worker.observe.traces.export'] = None\n"
        "from aril.cli import main\n"
        "sys.exit(main(['worker', '--traces', 'on', '--log-format', 'json', '--http', 'off']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install 'aril[otel]'" in line
