"""The engine's own counts and state, read when somebody scrapes: no step pays for them.

The engine's totals only rise, so they are counters; they are kept by the engine, so there is
nothing here that could drift from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from aril.worker.observe.distribution import COUNTS
from aril.worker.observe.engine_stats import LOAD_SECONDS, EngineStats
from aril.worker.observe.metrics.families import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

    from aril.worker.observe.distribution import Distribution
    from aril.worker.observe.metrics.families import Families

# A field of EngineStats, and the family that it is.
COUNTERS: Final = {
    "steps": Family("aril_steps_total", "counter", "Steps of the engine."),
    "preemptions": Family(
        "aril_preemptions_total", "counter", "Jobs set back for want of KV cache."
    ),
    "prefix_hits": Family(
        "aril_prefix_hits_total", "counter", "Jobs whose beginning was in the KV cache."
    ),
    "prefix_tokens": Family(
        "aril_prefix_tokens_total",
        "counter",
        "Prompt tokens found in the KV cache and not computed; beside aril_prompt_tokens_total.",
    ),
    "kv_blocks_reclaimed": Family(
        "aril_kv_blocks_reclaimed_total",
        "counter",
        "Blocks that jobs might have found, given to other tokens. Many beside few hits: the cache"
        " is too small to keep beginnings.",
    ),
    "drafted": Family("aril_drafted_tokens_total", "counter", "Tokens guessed ahead and computed."),
    "accepted": Family("aril_accepted_tokens_total", "counter", "Of these, tokens that came."),
    "adapter_loads": Family(
        "aril_adapter_loads_total",
        "counter",
        "Adapters put into a slot on the device. Many beside few adapters: more ARIL_SLOTS.",
    ),
    "adapter_cache_hits": Family(
        "aril_adapter_cache_hits_total",
        "counter",
        "Adapters asked for that were in host memory; the others were read from the store.",
    ),
    "adapters_other_base": Family(
        "aril_adapters_other_base_total",
        "counter",
        "Adapters read that name another base model than ARIL_BASE.",
    ),
    "adapters_other_template": Family(
        "aril_adapters_other_template_total",
        "counter",
        "Adapters read whose own chat template is not used.",
    ),
}
GAUGES: Final = {
    "kv_blocks": Family("aril_kv_blocks", "gauge", "Blocks of the KV cache."),
    "kv_blocks_used": Family("aril_kv_blocks_used", "gauge", "Blocks that running jobs hold."),
    "kv_blocks_named": Family(
        "aril_kv_blocks_named",
        "gauge",
        "Blocks that jobs with the same beginning may find, in use or not.",
    ),
    "slots": Family("aril_slots", "gauge", "Adapter slots on the device."),
    "slots_used": Family(
        "aril_slots_used", "gauge", "Adapter slots whose adapter a running job needs."
    ),
    "adapter_cache_bytes": Family(
        "aril_adapter_cache_bytes", "gauge", "Host memory that adapters hold."
    ),
}
HISTOGRAMS: Final = {
    "step_rows": Family(
        "aril_step_rows", "histogram", "Jobs that took part in a step.", buckets=COUNTS
    ),
    "step_adapters": Family(
        "aril_step_adapters",
        "histogram",
        "Distinct adapters among the jobs of a step.",
        buckets=(0, *COUNTS),
    ),
    "adapter_load_seconds": Family(
        "aril_adapter_load_seconds",
        "histogram",
        "Reading an adapter from the store into host memory, checks and layout included.",
        buckets=LOAD_SECONDS,
    ),
}
_USAGE: Final = Family(
    "aril_kv_cache_usage_ratio", "gauge", "Blocks that running jobs hold, of all: 0 to 1."
)
_NOTHING: Final = EngineStats(kv_blocks=0, slots=0)


class EngineCollector:
    """Collects what an engine says of itself; nothing before there is one."""

    def __init__(self, families: Families) -> None:
        families.section("The engine")
        self._stats: Callable[[], EngineStats] | None = None
        all_of_them = (*COUNTERS.values(), *GAUGES.values(), _USAGE, *HISTOGRAMS.values())
        families.collected(self, *all_of_them)

    def watch(self, stats: Callable[[], EngineStats] | None) -> None:
        """Ask this one from now on; it is called on the event loop."""
        self._stats = stats

    def now(self) -> EngineStats | None:
        """Ask the engine; None where there is none, or none that tells."""
        return None if self._stats is None else self._stats()

    def describe(self) -> Iterable[Metric]:
        """Name the families."""
        return self._metrics(_NOTHING)

    def collect(self) -> Iterable[Metric]:
        """Read them."""
        stats = self.now()
        return [] if stats is None else self._metrics(stats)

    def _metrics(self, stats: EngineStats) -> Iterable[Metric]:
        for field, family in COUNTERS.items():
            yield CounterMetricFamily(family.name, family.text, value=getattr(stats, field))
        for field, family in GAUGES.items():
            yield GaugeMetricFamily(family.name, family.text, value=getattr(stats, field))
        usage = stats.kv_blocks_used / stats.kv_blocks if stats.kv_blocks else 0.0
        yield GaugeMetricFamily(_USAGE.name, _USAGE.text, value=usage)
        for field, family in HISTOGRAMS.items():
            kept: Distribution = getattr(stats, field)
            yield HistogramMetricFamily(
                family.name, family.text, buckets=kept.buckets(), sum_value=kept.total
            )
