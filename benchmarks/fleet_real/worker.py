"""A worker of the fleet: the real service around an engine without a model.

    python -m benchmarks.fleet_real.worker SECONDS    # of a step; settings from `ARIL_*`

Beside the worker's own metrics this one tells what of its loop goes to topics' metadata and to
topics' settings.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol import metadata
from prometheus_client import Counter, Gauge

from aril.fetching.leaders import Leaders
from aril.fetching.topicwise import TopicMetadata
from aril.worker.app import run_worker
from aril.worker.loading import Loaded
from aril.worker.observe.metrics import Metrics
from aril.worker.settings import load_settings
from aril.worker.topics.tenant_topics import TenantTopics
from benchmarks.fleet_real.engine import NamePrompts, TellingEngine
from benchmarks.fleet_real.loop_time import LoopTime

if TYPE_CHECKING:
    from aril.worker.settings import WorkerSettings

METADATA = "bench_metadata_seconds"
TOPIC_SETTINGS = "bench_topic_settings_seconds"
ANSWERS = "bench_metadata_answers_total"
TOLD = "bench_metadata_topics_total"
METHODS = (
    (AIOKafkaClient, "_metadata_update"),
    (TopicMetadata, "_update"),
    (TopicMetadata, "_wait"),
    (Leaders, "learn"),
    (Leaders, "_ask_all"),
)


def count_metadata(spent: LoopTime, told: Metrics) -> None:
    """Count metadata's answers, the topics in them, and their decoding."""
    answers = Counter(ANSWERS, "Answers to metadata requests.", registry=told.registry)
    topics = Counter(TOLD, "Topics in them.", registry=told.registry)
    for name, kind in vars(metadata).items():
        if name.startswith("MetadataResponse_v"):
            _count_decoding(kind, spent, answers, topics)


def _count_decoding(kind: Any, spent: LoopTime, answers: Counter, topics: Counter) -> None:
    decode = kind.decode

    def counted(data: Any) -> Any:
        with spent.running():
            found = decode(data)
        answers.inc()
        topics.inc(len(found.topics))
        return found

    kind.decode = counted


def tell_loop_time() -> None:
    """Have every worker of this process tell it."""
    spent, judging = LoopTime(), LoopTime()
    for owner, name in METHODS:
        spent.around(owner, name)
    judging.around(TenantTopics, "_look")
    begin = Metrics.__init__

    def with_more(self: Metrics, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        for name, part in ((METADATA, spent), (TOPIC_SETTINGS, judging)):
            told = Gauge(name, "CPU time of the loop.", registry=self.registry)
            told.set_function(functools.partial(getattr, part, "seconds"))
        count_metadata(spent, self)

    Metrics.__init__ = with_more  # type: ignore[method-assign]


def load_paced(settings: WorkerSettings, pace: float) -> Loaded:
    """Return the engine that tells whose each token is."""
    return Loaded(TellingEngine(settings.max_rows, pace), NamePrompts(), None, "telling")


if __name__ == "__main__":
    load = functools.partial(load_paced, pace=float(sys.argv[1]))
    tell_loop_time()
    sys.exit(run_worker(load_settings().settings, load=load))
