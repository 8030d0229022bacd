"""How the pieces of a worker hang together, in one place for the app, its tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.batching.dispatch import Dispatcher, Ends
from worker.lifecycle import Service
from worker.replies.answers import Answers
from worker.replies.pending_bytes import Outgoing
from worker.replies.routes import ReplyRoutes
from worker.takeover.claims import Claims

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker.batching.dispatch import AdapterSource, EngineHandle, PromptEncoder
    from worker.intake.tenant_keys import TenantKeys
    from worker.observe.metrics import Metrics
    from worker.replies.producer import LogWriter
    from worker.settings import WorkerSettings
    from worker.takeover.readback import LogReader


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Records go into ``service``, the engine's outputs too; the rest happens by itself."""

    service: Service
    dispatcher: Dispatcher
    answers: Answers
    claims: Claims


def build_pipeline(
    *,
    settings: WorkerSettings,
    worker: str,
    base: str,
    writer: LogWriter,
    reader: LogReader,
    engine: EngineHandle,
    prompts: PromptEncoder,
    adapters: AdapterSource | None,
    metrics: Metrics,
    create_reply_topic: Callable[[str], Awaitable[None]] | None = None,
    keys: TenantKeys | None = None,
) -> Pipeline:
    """Connect intake, dispatch, answers and look-ups over one writer, one reader and one engine.

    ``worker`` names this process in every record, ``base`` the backbone in every terminal. Who
    proves that a partition is ours is bound to ``claims`` afterwards. ``keys`` are those of the
    tenants, where they sign.
    """
    outgoing = Outgoing(settings.lookahead_bytes)
    routes = ReplyRoutes(writer, create=create_reply_topic, outgoing=outgoing)
    service = Service(
        settings=settings,
        worker=worker,
        routes=routes,
        metrics=metrics,
        outgoing=outgoing,
        keys=keys,
    )
    claims = Claims(
        writer=writer,
        reader=reader,
        worker=worker,
        clock_slack_ms=settings.clock_slack * 1_000,
        metrics=metrics,
    )
    claims.bind(state_of=service.state_of)
    answers = Answers(
        writer=writer,
        claims=claims,
        dlq_topic=settings.dlq_topic,
        base=base,
        metrics=metrics,
        jobs=service,
        outgoing=outgoing,
    )
    dispatcher = Dispatcher(
        settings=settings,
        prompts=prompts,
        adapters=adapters,
        engine=engine,
        metrics=metrics,
        claims=claims,
        ends=Ends(refuse=answers.fail, answered=answers.answered, run_alone=service.run_alone),
    )
    service.bind(dispatcher, answers)
    routes.bind(routed=service.routed, unanswerable=service.unanswerable)
    return Pipeline(service, dispatcher, answers, claims)
