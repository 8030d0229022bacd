"""Jobs from the moment that they are read to their end, and the answers that they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aril.worker.observe.distribution import COUNTS
from aril.worker.observe.metrics.families import JOB_SECONDS, SHORT_SECONDS

if TYPE_CHECKING:
    from aril.worker.observe.metrics.families import Families

Operation = Literal["chat", "text_completion", "unknown"]

ANSWERED_BEFORE: Final = "answered_before"
"""The end of a job whose terminal stood already: whoever wrote that has counted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job that has ended, once; times in seconds."""

    tenant: str
    end: str  # stop, length, an error code, or ANSWERED_BEFORE
    failed: bool
    seconds: float  # from its log-append time
    prompt_tokens: int
    tokens: int  # visible ones of its answer, whoever wrote them
    operation: Operation
    first_token_seconds: float | None  # None: another worker brought it, or there was none
    token_seconds: float | None  # a token after the first, of those from here; None: there are none


class JobMetrics:
    """Families of jobs, without a label that names anybody."""

    def __init__(self, families: Families) -> None:
        families.section("Jobs and answers")
        counter, gauge, histogram = families.counter, families.gauge, families.histogram
        self.jobs = counter(
            "aril_jobs_total",
            "Jobs ended, each once, by end: stop, length, an error code, or answered_before where"
            " the terminal stood already.",
            "end",
        )
        self.prompt_tokens = counter(
            "aril_prompt_tokens_total",
            "Prompt tokens handed to the engine; those of a job that begins again, again.",
        )
        self.tokens = counter("aril_tokens_total", "Tokens generated.")
        self.queue_seconds = histogram(
            "aril_queue_seconds",
            "Log-append time to entering the engine; of each job once, where it first begins."
            " Jobs wait: add workers.",
            JOB_SECONDS,
        )
        self.ttft_seconds = histogram(
            "aril_ttft_seconds",
            "Log-append time to the first token; of each job once, where it first begins.",
            JOB_SECONDS,
        )
        self.job_seconds = histogram(
            "aril_job_seconds",
            "Log-append time to the acknowledged terminal, of jobs ended here.",
            JOB_SECONDS,
        )
        self.inter_token_seconds = histogram(
            "aril_inter_token_seconds",
            "Between a job's tokens, as the engine brings them.",
            SHORT_SECONDS,
        )
        self.tokens_per_record = histogram(
            "aril_tokens_per_record", "Tokens that one reply record carries.", COUNTS
        )
        self.backlog_jobs = gauge("aril_backlog_jobs", "Jobs read that wait for their turn.")
        self.backlog_bytes = gauge("aril_backlog_bytes", "Memory that they are taken to hold.")
        self.waiting_tokens = gauge(
            "aril_waiting_tokens",
            "Work that is read and waits, as expected: prompt and answer of every job before the"
            " engine, a quarter of its record's bytes and its max_tokens (256 if it has none).",
        )
        self.running_jobs = gauge("aril_running_jobs", "Jobs in the engine.")
        self.rows = gauge("aril_rows", "The most jobs that decode at the same time: ARIL_MAX_ROWS.")
        self.unfinished_jobs = gauge("aril_unfinished_jobs", "Jobs read and not finished.")
        self.kept = counter("aril_jobs_kept_total", "Jobs that stayed here over a rebalance.")
        self.released = counter(
            "aril_releases_total", "Jobs given up on purpose, for the next owner."
        )
        self.interrupted = counter(
            "aril_jobs_interrupted_total", "Jobs whose append failed, and went on."
        )
        self.read_again = counter(
            "aril_jobs_read_again_total",
            "Jobs that waited without what they say, beyond their tenant's part of the look-ahead,"
            " and were read from the jobs topic once more.",
        )
        self.displaced = counter(
            "aril_jobs_displaced_total",
            "Times that a job gave its row to a tenant that had less, and went on later.",
        )
        self.lost = counter(
            "aril_jobs_lost_total",
            "Jobs that retention deleted before anybody finished them. Must stay 0.",
        )
        self.duplicates = counter("aril_jobs_duplicate_total", "Records that repeat a known job.")
        self.unexpected_events = counter(
            "aril_unexpected_events_total",
            "Events that no row of a job's life expects. Must stay 0: a bug of ours, and the log"
            " has a line of it.",
        )
        self.claims = counter(
            "aril_claims_total",
            "Claims appended, to take jobs over. Many without rebalances mean appends that fail.",
        )
        self.takeovers_other_base = counter(
            "aril_takeovers_other_base_total",
            "Jobs that went on here behind tokens of a backbone with other weights: expected while"
            " a fleet is updated, else a worker has the wrong model.",
        )
        self.records_read_back = counter(
            "aril_records_read_back_total",
            "Reply records read to learn what is visible of jobs taken over.",
        )
        self.takeover_seconds = histogram(
            "aril_takeover_seconds",
            "One pass of claims: appended, acknowledged, read back.",
            SHORT_SECONDS,
        )
        self.parked_jobs = gauge(
            "aril_parked_jobs", "Jobs that wait for their replies' partition; all others go on."
        )
        self.reply_logs_down = gauge(
            "aril_reply_logs_down", "Partitions of replies that do not answer."
        )
        self.append_failures = counter(
            "aril_append_failures_total", "Appends that failed or timed out."
        )
        self.outgoing_bytes = gauge(
            "aril_outgoing_bytes",
            "Memory of what waits for a broker, dead letters too. Reading rests at"
            " ARIL_LOOKAHEAD_BYTES.",
        )
        self.unreadable_batches = counter(
            "aril_unreadable_batches_total",
            "Batches, or parts of them, that could not be read as records: a broken producer or"
            " disk.",
        )
        self.dead_letters = counter(
            "aril_dead_letters_total", "Records put aside, by reason.", "reason"
        )
        self.constraints = counter(
            "aril_constraints_total",
            "Constraints asked for, by what was done: compiled, cached or refused.",
            "outcome",
        )
        self.constraint_compile_seconds = histogram(
            "aril_constraint_compile_seconds",
            "Trying and compiling a constraint, waiting included.",
            SHORT_SECONDS,
        )
        self.tenant_keys = gauge(
            "aril_tenant_keys", "Public keys of tenants in use, where tenants sign."
        )
        self.topics_refused = gauge(
            "aril_topics_refused",
            "Topics of one tenant that break the contract, whose jobs are refused: of kind replies"
            " or jobs.",
            "kind",
        )
