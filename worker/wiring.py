"""How the parts of a worker hang together, in one place for the app, its tests and benchmarks.

No part knows another. They are told what to do by `aril.worker.lifecycle`, and tell it what
happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aril.worker.batching.dispatch import Dispatcher
from aril.worker.intake.admission import Admission
from aril.worker.intake.tenant_limits import TenantLimits
from aril.worker.replies.answers import Answers
from aril.worker.replies.jobless import JoblessRecords
from aril.worker.replies.notices import Notices
from aril.worker.replies.pending_bytes import PendingBytes
from aril.worker.replies.reply_logs import ReplyLogs
from aril.worker.replies.routes import ReplyRoutes
from aril.worker.takeover.claims import Claims
from aril.worker.takeover.elsewhere import Elsewhere
from aril.worker.takeover.parking import Parking
from aril.worker.tracing import NoTracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aril.worker.batching.asked_adapters import AdapterSource
    from aril.worker.batching.feed import EngineHandle
    from aril.worker.batching.preparation import PromptEncoder, Renderer
    from aril.worker.constraints.cache import Compiler
    from aril.worker.intake.quotas import Quotas
    from aril.worker.intake.tenant_keys import TenantKeys
    from aril.worker.job import Entry
    from aril.worker.observe.metrics import Metrics
    from aril.worker.queue.assignment import PartitionState
    from aril.worker.replies.producer import LogWriter
    from aril.worker.settings import WorkerSettings
    from aril.worker.stages import Event
    from aril.worker.takeover.readback import LogReader
    from aril.worker.tracing import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the jobs of a worker meet outside of it."""

    worker: str  # names this process in every record
    base: str  # the backbone's name, told in every terminal
    writer: LogWriter
    reader: LogReader
    engine: EngineHandle
    prompts: PromptEncoder
    adapters: AdapterSource | None
    constraints: Compiler | None = None  # None: answers are not constrained here
    prove: Callable[[PartitionState, int], Awaitable[bool]]  # that a partition is ours, with a base
    base_digest: str | None = None  # of the backbone's weights
    create_reply_topic: Callable[[str], Awaitable[None]] | None = None
    templates: Renderer | None = None  # for adapters' own templates, where they are used
    jobs_reader: LogReader | None = None  # of the jobs topics, for jobs that were let go of
    limits: TenantLimits = field(default_factory=TenantLimits)  # what each tenant may use
    keys: TenantKeys | None = None  # of the tenants, where they sign
    kv_tokens: int | None = None  # that the engine's cache holds; None: it has none
    take_loads: Callable[[str], int] = lambda _: 0  # adapters read for a tenant since it was asked
    why_refused: Callable[[str], str | None] = lambda _: None  # what is wrong with a topic
    first_use: Callable[[str], Awaitable[str | None]] | None = None  # the same, asked for anew
    tracing: Tracing = field(default_factory=NoTracing)


@dataclass(frozen=True, slots=True)
class Parts:
    """Who does something about a job."""

    admission: Admission
    routes: ReplyRoutes
    parking: Parking
    claims: Claims
    dispatcher: Dispatcher
    answers: Answers
    notices: Notices
    jobless: JoblessRecords
    elsewhere: Elsewhere
    pending: PendingBytes


def wire(
    settings: WorkerSettings,
    metrics: Metrics,
    around: Surroundings,
    *,
    happened: Callable[[Entry, Event], None],
    prove: Callable[[Entry, int], Awaitable[int | None]],
    quotas: Quotas,
) -> Parts:
    """Make the parts of one worker; `happened` is told of every event, for `prove` see Claims."""
    pending = PendingBytes(settings.lookahead_bytes)
    logs = ReplyLogs()
    notices = Notices(around.writer, pending=pending, logs=logs)
    parking = Parking(
        logs,
        pending,
        metrics,
        happened,
        try_other=notices.try_one,
        sound=lambda entry: answers.sound(entry, claims.in_vain(entry)),
    )
    answers = Answers(
        writer=around.writer,
        worker=around.worker,
        dlq_topic=settings.dlq_topic,
        base=around.base,
        base_digest=around.base_digest,
        metrics=metrics,
        pending=pending,
        logs=logs,
        happened=happened,
    )
    claims = Claims(
        writer=around.writer,
        reader=around.reader,
        worker=around.worker,
        base_digest=around.base_digest,
        clock_slack_ms=settings.clock_slack * 1_000,
        metrics=metrics,
        logs=logs,
        pending=pending,
        parking=parking,
        prove=prove,
        happened=happened,
    )
    return Parts(
        admission=Admission(
            settings=settings, metrics=metrics, keys=around.keys, why_refused=around.why_refused
        ),
        routes=ReplyRoutes(
            around.writer,
            pending=pending,
            create=around.create_reply_topic,
            first_use=around.first_use,
            happened=happened,
        ),
        parking=parking,
        claims=claims,
        dispatcher=Dispatcher(
            settings=settings,
            prompts=around.prompts,
            adapters=around.adapters,
            constraints=around.constraints,
            templates=around.templates,
            engine=around.engine,
            metrics=metrics,
            reachable=parking.reachable,
            happened=happened,
            jobs_reader=around.jobs_reader,
            limits=around.limits,
            quotas=quotas,
            kv_tokens=around.kv_tokens,
            take_loads=around.take_loads,
        ),
        answers=answers,
        notices=notices,
        jobless=JoblessRecords(answers, notices, metrics),
        elsewhere=Elsewhere(around.reader),
        pending=pending,
    )
