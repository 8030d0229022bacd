"""What a gateway tells Prometheus. docs/reference/metrics.md is made from what is made here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_SECONDS: Final = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600),
)
TOKEN_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_UNITS: Final = ("seconds", "tokens", "answers", "batches", "lines")


@dataclass(frozen=True, slots=True)
class Family:
    """One family, as it is scraped."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def unit(self) -> str:
        """What is measured or counted, by the last word of the name that says so; or empty."""
        return next((word for word in reversed(self.name.split("_")) if word in _UNITS), "")


REQUESTS: Final = Family(
    "aril_gateway_requests_total",
    "counter",
    "Requests that were answered, by the route's path, method and status; 499: the caller left.",
    ("route", "method", "status"),
)
OPEN: Final = Family(
    "aril_gateway_open_answers", "gauge", "Answers that are being read now: choices, not requests."
)
ANSWERS: Final = Family(
    "aril_gateway_answers_total",
    "counter",
    "Answers whose reading has ended: `new` jobs, those `resumed` or read by their id; `done`,"
    " `failed`, or `left` by their reader before the end.",
    ("begun", "ended"),
)
TOKENS: Final = Family(
    "aril_gateway_tokens_total", "counter", "Tokens that were read for callers, also again."
)
FIRST: Final = Family(
    "aril_gateway_first_token_seconds",
    "histogram",
    "From the request to the first token of a new answer.",
    (),
    FIRST_SECONDS,
)
PER_TOKEN: Final = Family(
    "aril_gateway_token_seconds",
    "histogram",
    "Of each new answer that has ended: time a token, on average, behind its first.",
    (),
    TOKEN_SECONDS,
)
READY: Final = Family(
    "aril_gateway_ready",
    "gauge",
    "1 while requests are taken, 0 before the brokers and in a drain.",
)
BATCHES: Final = Family(
    "aril_gateway_batches_total",
    "counter",
    "Batches that came to their end at this gateway: `completed`, `failed`, `cancelled`,"
    " `expired`.",
    ("ended",),
)
BATCH_LINES: Final = Family(
    "aril_gateway_batch_lines_total",
    "counter",
    "Lines of batches that were `answered`, or `failed`; counted when the work on the batch ends.",
    ("ended",),
)
BATCHES_RUNNING: Final = Family(
    "aril_gateway_batches_running", "gauge", "Batches that this gateway works on."
)
FAMILIES: Final = (
    *(REQUESTS, OPEN, ANSWERS, TOKENS, FIRST, PER_TOKEN, READY),
    *(BATCHES, BATCH_LINES, BATCHES_RUNNING),
)


class Metrics:
    """The families of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = _counter(REQUESTS, registry)
        self.open = _gauge(OPEN, registry)
        self.answers = _counter(ANSWERS, registry)
        self.tokens = _counter(TOKENS, registry)
        self.first_token = _histogram(FIRST, registry)
        self.per_token = _histogram(PER_TOKEN, registry)
        self.ready = _gauge(READY, registry)
        self.batches = _counter(BATCHES, registry)
        self.batch_lines = _counter(BATCH_LINES, registry)
        self.batches_running = _gauge(BATCHES_RUNNING, registry)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its type, as a scraper's `Accept` asks for it."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind

    def read(
        self, *, begun: str, ended: Sequence[str], first: float | None, per_token: float | None
    ) -> None:
        """Count answers that were read together: how each ended, and seconds, where known."""
        for each in ended:
            self.answers.labels(begun, each).inc()
        if begun == "new" and first is not None:
            self.first_token.observe(first)
        if begun == "new" and per_token is not None:
            self.per_token.observe(per_token)


def _counter(family: Family, registry: CollectorRegistry) -> Counter:
    return Counter(family.name, family.text, family.labels, registry=registry)


def _gauge(family: Family, registry: CollectorRegistry) -> Gauge:
    return Gauge(family.name, family.text, family.labels, registry=registry)


def _histogram(family: Family, registry: CollectorRegistry) -> Histogram:
    return Histogram(
        family.name, family.text, family.labels, registry=registry, buckets=family.buckets
    )
