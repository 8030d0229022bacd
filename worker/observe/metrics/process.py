"""The worker as a process: what it is made of, whether it takes jobs, how its event loop fares."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

from aril.worker.observe.metrics.families import SHORT_SECONDS

if TYPE_CHECKING:
    from aril.worker.observe.metrics.families import Families

_BUILD: Final = ("version", "python", "torch", "transformers", "model", "dtype", "assignor")


class ProcessMetrics:
    """Families of the process; ``process_*`` and ``python_*`` are prometheus-client's own."""

    def __init__(self, families: Families) -> None:
        families.section("The process")
        self.build = families.info(
            "aril_build_info",
            "1, and in its labels versions, the backbone, its type of numbers and the assignor,"
            " `brokers` with group_protocol=consumer; there once the model is loaded.",
            *_BUILD,
        )
        self.ready = families.gauge(
            "aril_ready", "1 while /readyz answers 200: it takes jobs, else 0."
        )
        self.draining = families.gauge(
            "aril_draining", "1 from SIGTERM on: running jobs are finished, else 0."
        )
        self.loop_lag_seconds = families.histogram(
            "aril_loop_lag_seconds",
            "How late the event loop runs a timer, ten times a second. Over 1 s heartbeats are in"
            " danger.",
            SHORT_SECONDS,
        )
        self.spans_ended = families.counter(
            "aril_spans_total",
            "Spans that were made, with ARIL_TRACES; those that are not exported after a while are"
            " lost.",
        )
        self.spans_exported = families.counter(
            "aril_spans_exported_total", "Spans that OpenTelemetry's collector has taken."
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=families.registry)

    def describe_build(self, *, model: str, dtype: str | None, assignor: str) -> None:
        """Tell what is served, by what."""
        packages = {name: version(name) for name in ("torch", "transformers")}
        told = {"version": version("aril-client"), "python": platform.python_version(), **packages}
        self.build.info(told | {"model": model, "dtype": dtype or "", "assignor": assignor})
