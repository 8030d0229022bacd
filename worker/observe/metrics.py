"""What a worker counts. Names are a contract: prefix ``aril_``, base units, ``_total`` on counters.

No tenant and no adapter is a label: their number has no bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from worker.observe.engine_stats import EngineStats

# Seconds, from a token of a fast engine to a long job.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_COUNTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)


class Metrics:
    """All metrics of one worker, in a registry of its own."""

    def __init__(self) -> None:  # noqa: PLR0915  # one statement a metric
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"aril_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"aril_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"aril_{name}", text, buckets=buckets, registry=self.registry)

        self.jobs = counter("jobs", "Jobs ended, by outcome: stop, length or an error code.", "end")
        self.claims = counter("claims", "Claims appended, to take jobs over.")
        self.takeovers_other_base = counter(
            "takeovers_other_base", "Jobs taken over whose tokens came from other weights."
        )
        self.records_read_back = counter(
            "records_read_back", "Reply records read to learn what is visible of jobs taken over."
        )
        self.takeover_seconds = histogram(
            "takeover_seconds", "One pass of claims: appended, acknowledged, read back."
        )
        self.kept = counter("jobs_kept", "Jobs that went on running across a rebalance.")
        self.released = counter("releases", "Jobs given up on purpose, for the next owner.")
        self.interrupted = counter("jobs_interrupted", "Jobs whose append failed, and went on.")
        self.displaced = counter(
            "jobs_displaced", "Times that a job gave its row to a tenant that had less."
        )
        self.unexpected_events = counter(
            "unexpected_events", "Events that no row of a job's life expects: a bug to report."
        )
        self.duplicates = counter("jobs_duplicate", "Records that repeated a known job.")
        self.constraints = counter(
            "constraints",
            "Constraints asked for, by what was done: compiled, cached or refused.",
            "outcome",
        )
        self.constraint_compile_seconds = histogram(
            "constraint_compile_seconds", "Trying and compiling a constraint, waiting included."
        )
        self.lost = counter("jobs_lost", "Jobs deleted by retention before anybody finished them.")
        self.unreadable_batches = counter(
            "unreadable_batches", "Batches, or parts of them, that could not be read as records."
        )
        self.dead_letters = counter("dead_letters", "Records put aside, by reason.", "reason")
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens of the jobs begun.")
        self.tokens = counter("tokens", "Tokens generated.")
        self.append_failures = counter("append_failures", "Appends that failed or timed out.")
        self.queue_seconds = histogram("queue_seconds", "Log-append time to entering the engine.")
        self.ttft_seconds = histogram("ttft_seconds", "Log-append time to the first token.")
        self.job_seconds = histogram("job_seconds", "Log-append time to the terminal.")
        self.inter_token_seconds = histogram(
            "inter_token_seconds", "Between a job's tokens, as the engine brings them."
        )
        self.tokens_per_record = histogram(
            "tokens_per_record", "Tokens that one reply record carries.", _COUNTS
        )
        self.step_rows = histogram("step_rows", "Jobs that took part in a step.", _COUNTS)
        self.step_adapters = histogram(
            "step_adapters", "Distinct adapters among the jobs of a step.", (0, *_COUNTS)
        )
        self.backlog_jobs = gauge("backlog_jobs", "Jobs read and waiting.")
        self.backlog_bytes = gauge("backlog_bytes", "Memory that they are taken to hold.")
        self.running_jobs = gauge("running_jobs", "Jobs in the engine.")
        self.outgoing_bytes = gauge("outgoing_bytes", "Memory of what waits for a broker.")
        self.reply_logs_down = gauge("reply_logs_down", "Partitions of replies that do not answer.")
        self.parked_jobs = gauge("parked_jobs", "Jobs that wait for their replies' partition.")
        self.unfinished_jobs = gauge("unfinished_jobs", "Jobs read and not finished.")
        self.partitions = gauge("partitions", "Jobs partitions held.")
        self.standby = gauge("standby", "1 while in the group with no partition, else 0.")
        self.load_rows = gauge("load_rows", "Jobs that run or wait, smoothed; if it consolidates.")
        self.workers_open = gauge("workers_open", "Workers with partitions, by the group's leader.")
        self.workers_standby = gauge("workers_standby", "Workers that stand by, by the leader.")
        self.partitions_gained = counter("partitions_gained", "Partitions not held before.")
        self.rebalances_asked = counter("rebalances_asked", "Asked for, to open or close.", "why")
        self.tenant_keys = gauge("tenant_keys", "Public keys of tenants in use.")
        self.loop_lag_seconds = gauge("loop_lag_seconds", "How late the event loop runs a timer.")
        self.topics_refused = gauge(
            "topics_refused",
            "Topics of one tenant that break the contract: its jobs are refused.",
            "kind",
        )
        self.clock_skew_seconds = gauge(
            "clock_skew_seconds", "How far this worker's clock is ahead of the brokers'."
        )
        self.kv_blocks = gauge("kv_blocks", "Blocks of the KV cache.")
        self.kv_blocks_used = gauge("kv_blocks_used", "Blocks of the KV cache in use.")
        self.kv_blocks_named = gauge(
            "kv_blocks_named", "Blocks that jobs with the same beginning may find, in use or not."
        )
        self.kv_blocks_reclaimed = gauge(
            "kv_blocks_reclaimed", "Of these, given to other tokens, since the start."
        )
        self.prefix_hits = gauge(
            "prefix_hits", "Jobs whose beginning was in the KV cache, since the start."
        )
        self.prefix_tokens = gauge(
            "prefix_tokens", "Tokens found there and not computed, since the start."
        )
        self.drafted_tokens = gauge(
            "drafted_tokens", "Tokens guessed ahead and computed, since the start."
        )
        self.accepted_tokens = gauge(
            "accepted_tokens", "Of these, tokens that came, since the start."
        )
        self.slots = gauge("slots", "Adapter slots on the device.")
        self.slots_used = gauge("slots_used", "Adapter slots that hold an adapter.")
        self.preemptions = gauge("preemptions", "Jobs set back for want of cache, since the start.")
        self.adapter_loads = gauge("adapter_loads", "Adapters put into a slot, since the start.")
        self.adapters_other_base = gauge(
            "adapters_other_base", "Adapters read that name another base model, since the start."
        )
        self.adapters_other_template = gauge(
            "adapters_other_template",
            "Adapters read whose own chat template is not used, since the start.",
        )

    def observe_step(self, stats: EngineStats) -> None:
        """Take in the engine's state; the rows are those of its last step."""
        self.step_rows.observe(stats.rows)
        self.step_adapters.observe(stats.adapters)
        self.kv_blocks.set(stats.kv_blocks)
        self.kv_blocks_used.set(stats.kv_blocks_used)
        self.kv_blocks_named.set(stats.kv_blocks_named)
        self.kv_blocks_reclaimed.set(stats.kv_blocks_reclaimed)
        self.prefix_hits.set(stats.prefix_hits)
        self.prefix_tokens.set(stats.prefix_tokens)
        self.drafted_tokens.set(stats.drafted)
        self.accepted_tokens.set(stats.accepted)
        self.slots.set(stats.slots)
        self.slots_used.set(stats.slots_used)
        self.preemptions.set(stats.preemptions)
        self.adapter_loads.set(stats.adapter_loads)
        self.adapters_other_base.set(stats.adapters_other_base)
        self.adapters_other_template.set(stats.adapters_other_template)
