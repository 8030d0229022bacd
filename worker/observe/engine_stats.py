"""What an engine says of itself when it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from aril.worker.observe.distribution import COUNTS, Distribution

# Seconds that an adapter takes from the store to host memory: a page cache to a cold object store.
LOAD_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


def _steps() -> Distribution:
    return Distribution(COUNTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What the last step held and what is in use now; counts since the start where it says so."""

    rows: int = 0  # of the last step
    adapters: int = 0  # distinct ones among them
    tokens: int = 0  # of the last step
    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks: int
    kv_blocks_named: int = 0  # that another sequence may find, in use or not
    kv_blocks_reclaimed: int = 0  # of these, given to other tokens since the start
    prefix_hits: int = 0  # sequences whose beginning was in the cache, since the start
    prefix_tokens: int = 0  # that were there and so not computed, since the start
    drafted: int = 0  # tokens guessed and computed, since the start
    accepted: int = 0  # of these, tokens that came, since the start
    slots_used: int = 0
    slots: int
    steps: int = 0  # since the start
    preemptions: int = 0  # since the start
    adapter_loads: int = 0  # into a slot, since the start
    adapters_other_base: int = 0  # read since the start
    adapters_other_template: int = 0  # same
    adapter_cache_hits: int = 0  # adapters asked for that were in host memory, since the start
    adapter_cache_bytes: int = 0
    in_slots: tuple[str, ...] = ()  # digests of adapters on the device, idle ones too
    in_memory: tuple[str, ...] = ()  # same, on the host
    step_rows: Distribution = field(default_factory=_steps)  # of all steps since the start
    step_adapters: Distribution = field(default_factory=lambda: Distribution((0, *COUNTS)))
    adapter_load_seconds: Distribution = field(default_factory=lambda: Distribution(LOAD_SECONDS))
