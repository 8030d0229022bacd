"""A worker from start to exit: what comes up in which order, and how it leaves.

Up: probes first, then model and brokers side by side, topics checked, group joined, one ready line.
Down, on SIGTERM or SIGINT: no more jobs are taken, the running ones get ``drain_seconds``, what
is finished is committed, the group is left at once instead of by time-out. Jobs that did not fit
stay uncommitted: the next owner has them. A second signal stops at once. Where the engine has
failed or hangs, what runs in it is left without a word: one of these jobs may be to blame.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import uuid
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka.errors import InconsistentGroupProtocolError, KafkaError

from aril.connecting.errors import SecurityError
from aril.garbage import look_seldom, what_stays
from aril.worker.engine.runner import EngineThread
from aril.worker.intake.tenant_limits import TenantLimits
from aril.worker.lifecycle import Lifecycle
from aril.worker.loading import load_model
from aril.worker.observe.health import Health, start_http, watch_loop_lag
from aril.worker.observe.logs import configure_logs, get_logger, log_loop_errors
from aril.worker.observe.metrics import Metrics
from aril.worker.observe.traces import TracesError, open_recorder
from aril.worker.placement.consolidation import SAMPLE_SECONDS, Consolidation
from aril.worker.queue.commits import Commits
from aril.worker.queue.consumer import JobsConsumer
from aril.worker.queue.lag import watch_lag
from aril.worker.queue.membership.interface import GroupProtocolError
from aril.worker.queue.membership.make import require_librdkafka
from aril.worker.queue.watchdog import ConsumerSilentError, watch
from aril.worker.replies.producer import STUCK_SECONDS
from aril.worker.startup import (
    Startup,
    WorkerFailedError,
    create_reply_topic,
    read_tenant_keys,
    read_tenant_limits,
    topic_admin,
)
from aril.worker.step_tracing import traced
from aril.worker.takeover.readback import KafkaLogReader
from aril.worker.topics.contract import Contract
from aril.worker.topics.tenant_topics import TenantTopics
from aril.worker.tracing import JobTracing, NoTracing
from aril.worker.wiring import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from aiohttp import web

    from aril.worker.intake.tenant_keys import TenantKeys
    from aril.worker.loading import Loaded
    from aril.worker.observe.traces.recorder import Recorder
    from aril.worker.replies.producer import LogWriter
    from aril.worker.settings import WorkerSettings
    from aril.worker.tracing import Tracing

log = get_logger(__name__)

ResultT = TypeVar("ResultT")

TICK_SECONDS = 0.05
FAREWELL_SECONDS = 2.0
SPANS_SECONDS = 5.0  # that spans get to be sent, at most
AGAIN_SECONDS = 5.0  # until a task that goes on is cancelled again
LAST_STEP_SECONDS = 10.0  # that the step which is running gets to end, once all is given up
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SETTING = 2


def run_worker(
    settings: WorkerSettings, *, load: Callable[[WorkerSettings], Loaded] = load_model
) -> int:
    """Run until a signal or a failure; return the exit code: 0 drained, 1 failed, 2 a setting."""
    configure_logs(settings)
    try:
        settings.kafka_security()
        if settings.group_protocol == "consumer":
            require_librdkafka()
        worker = Worker(settings, load=load)
    except (SecurityError, TracesError, GroupProtocolError) as error:
        log.error("worker_failed", error=str(error))  # noqa: TRY400 - one line is meant for a person
        return EXIT_SETTING
    return asyncio.run(worker.run())


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all have ended.

    Once is not enough: aiokafka's ``AIOKafkaClient.close`` loses what comes while it waits.
    """
    left = {*tasks}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)


class _StoppedError(Exception):
    """A signal came before there was anything to drain."""


class Worker:
    """One worker process."""

    def __init__(
        self, settings: WorkerSettings, *, load: Callable[[WorkerSettings], Loaded]
    ) -> None:
        self._settings = settings
        self._load = load
        self._name = f"{socket.gethostname()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._metrics = Metrics(settings.metrics_tenants)
        self._health = Health()
        self._stop = asyncio.Event()
        self._started = time.monotonic()
        self._dtype: str | None = None  # of the backbone's numbers, once it is loaded
        self._keys: TenantKeys | None = None
        self._limits = TenantLimits()
        self._tenant_topics = TenantTopics(
            Contract.of(settings), self._metrics, partial(topic_admin, settings)
        )
        self._recorder: Recorder | None = None
        if settings.traces != "off":
            metrics = self._metrics
            self._recorder = open_recorder(
                self._name, ended=metrics.spans_ended, exported=metrics.spans_exported
            )
        self._stopping: float | None = None  # since when, by the monotonic clock
        consolidates = settings.assignor == "consolidate"
        self._consolidation = Consolidation(settings, self._metrics) if consolidates else None

    async def run(self) -> int:
        """Come up, serve, leave; return the exit code."""
        loop = asyncio.get_running_loop()
        log_loop_errors(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._announce()
        http: web.AppRunner | None = None
        try:
            if self._settings.http_address is not None:
                http = await start_http(self._settings.http_address, self._health, self._metrics)
            self._keys = read_tenant_keys(self._settings, self._metrics)
            self._limits = read_tenant_limits(self._settings)
            startup = Startup(self._settings, self._name, self._health, self._tenant_topics)
            loaded, writer = await self._or_stop(startup.run(self._load))
            try:
                await self._serve(loaded, writer)
            finally:
                await writer.stop()
        except _StoppedError:
            pass
        except InconsistentGroupProtocolError:
            why = (
                f"group {self._settings.group} has workers with another ARIL_ASSIGNOR,"
                " or is a group of another kind, such as a share group"
            )
            log.error("worker_failed", error=why)  # noqa: TRY400 - one line is meant for a person
            return EXIT_FAILED
        except (WorkerFailedError, GroupProtocolError) as error:
            log.error("worker_failed", error=str(error))  # noqa: TRY400 - one line is meant for a person
            return EXIT_SETTING if error.setting else EXIT_FAILED
        except (ConsumerSilentError, KafkaError, OSError) as error:
            log.error("worker_failed", error=str(error) or type(error).__name__)  # noqa: TRY400 - one line is meant for a person
            return EXIT_FAILED
        except Exception:
            log.exception("worker_failed")
            return EXIT_FAILED
        finally:
            await self._tenant_topics.close()
            await self._close_recorder()
            if http is not None:
                await http.cleanup()
        log.info("worker_stopped")
        return EXIT_OK

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            log.warning("stopping_at_once")
            os._exit(128 + number)
        log.info("stopping", signal=signal.Signals(number).name)
        self._health.draining()
        self._stopping = time.monotonic()
        self._stop.set()

    def _announce(self) -> None:
        settings = self._settings
        log.info(
            "starting",
            version=version("aril-client"),
            worker=self._name,
            model=settings.model,
            bootstrap=settings.bootstrap,
            group=settings.group,
            group_protocol=settings.group_protocol,
            assignor=settings.who_assigns,
            jobs_topic=settings.jobs_topic,
            http=settings.http,
        )
        if settings.tenant_from == "field":
            log.warning(
                "tenants_are_trusted",
                why="tenant_from=field: whoever may write to the jobs topic may name any tenant",
            )

    async def _or_stop(self, work: Coroutine[None, None, ResultT]) -> ResultT:
        """Await something that a signal may break off."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise _StoppedError
        return await task

    async def _serve(self, loaded: Loaded, writer: LogWriter) -> None:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def engine_failed(error: BaseException) -> None:
            if not failed.done():
                why = f"the engine failed: {type(error).__name__}"
                failed.set_exception(WorkerFailedError(why))

        self._dtype = loaded.dtype
        self._tell_what_serves(loaded)
        tracing = self._tracing(loaded)
        steps = self._settings.traces == "steps"
        loop = asyncio.get_running_loop()
        engine = EngineThread(
            traced(loaded.engine, tracing.stepped, loop) if steps else loaded.engine
        )
        reader = KafkaLogReader(self._settings, self._name)
        jobs_reader = KafkaLogReader(self._settings, f"{self._name}-shelf")
        commits = Commits(told=self._metrics.committed)
        surroundings = Surroundings(
            worker=self._name,
            base=loaded.base,
            base_digest=loaded.base_digest,
            writer=writer,
            reader=reader,
            engine=engine,
            prompts=loaded.prompts,
            adapters=loaded.adapters,
            constraints=loaded.constraints,
            templates=loaded.templates,
            prove=commits.prove,
            create_reply_topic=partial(create_reply_topic, self._settings)
            if self._settings.create_topics
            else None,
            keys=self._keys,
            why_refused=self._tenant_topics.why_refused,
            first_use=self._tenant_topics.first_use,
            jobs_reader=jobs_reader,
            limits=self._limits,
            kv_tokens=loaded.kv_tokens,
            take_loads=loaded.take_loads,
            tracing=tracing,
        )
        lifecycle = Lifecycle(self._settings, self._metrics, surroundings)
        engine.start(
            asyncio.get_running_loop(),
            on_outputs=lifecycle.on_outputs,
            on_failure=engine_failed,
        )
        self._health.watch_engine(engine.age)
        consumer = JobsConsumer(self._settings, lifecycle, self._name, commits, self._consolidation)
        try:
            await self._or_stop(consumer.start())
            with what_stays():
                await self._work(consumer, lifecycle, writer, failed)
        finally:
            await reader.stop()
            await jobs_reader.stop()
            await asyncio.to_thread(engine.close, timeout=LAST_STEP_SECONDS)
            if loaded.templates is not None:
                await loaded.templates.ended()

    def _tracing(self, loaded: Loaded) -> Tracing:
        if self._recorder is None:
            return NoTracing()
        settings = self._settings
        return JobTracing(
            self._recorder,
            worker=self._name,
            base=loaded.base,
            group=settings.group,
            dlq_topic=settings.dlq_topic,
        )

    async def _close_recorder(self) -> None:
        """Send the spans that are left, in what is left of the time to drain."""
        if self._recorder is None:
            return
        gone = time.monotonic() - (self._stopping or time.monotonic())
        left = self._settings.drain_seconds - gone if self._stopping else 0.0
        await self._recorder.close(min(SPANS_SECONDS, max(FAREWELL_SECONDS, left)))

    def _tell_what_serves(self, loaded: Loaded) -> None:
        metrics = self._metrics
        metrics.gen_ai.model = loaded.base
        metrics.engine.watch(loaded.stats)
        metrics.rows.set(self._settings.max_rows)
        metrics.describe_build(
            model=loaded.base, dtype=loaded.dtype, assignor=self._settings.who_assigns
        )

    async def _work(
        self,
        consumer: JobsConsumer,
        lifecycle: Lifecycle,
        writer: LogWriter,
        failed: asyncio.Future[None],
    ) -> None:
        parts = lifecycle.parts
        polling = asyncio.create_task(consumer.run())
        stopped = asyncio.create_task(self._stop.wait())
        consolidation = self._consolidation
        others = [
            asyncio.create_task(work)
            for work in (
                parts.dispatcher.run(),
                self._commit_often(consumer),
                watch(consumer.progress, consumer.replace),
                self._tick_often(lifecycle, writer),
                self._tenant_topics.watch(writer.topics_in_use),
                watch_loop_lag(self._metrics),
                look_seldom(idle=lambda: not parts.dispatcher.running),
                watch_lag(consumer.logs, lambda: consumer.states, self._metrics),
                *([self._keys.watch()] if self._keys is not None else []),
                *([self._limits.watch()] if self._settings.limits is not None else []),
                *(
                    [self._consolidate_often(consolidation, consumer, lifecycle)]
                    if consolidation is not None
                    else []
                ),
            )
        ]
        telling = asyncio.create_task(self._tell_when_ready(consumer))
        vital: set[asyncio.Future[Any]] = {polling, stopped, failed, *others}
        try:
            await asyncio.wait(vital, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await self._drain(consumer, lifecycle)
        finally:
            lifecycle.release_all()
            await parts.answers.farewell(FAREWELL_SECONDS)
            await parts.elsewhere.stop()
            await parts.dispatcher.stop()
            await parts.claims.stop()
            await parts.notices.stop()
            await parts.answers.stop()
            await consumer.stop()
            await cancel_all((telling, stopped, *others))
            ended = await asyncio.gather(polling, *others, return_exceptions=True)
        for result in (failed.exception() if failed.done() else None, *ended):
            if isinstance(result, Exception):
                raise result

    async def _drain(self, consumer: JobsConsumer, lifecycle: Lifecycle) -> None:
        """Let the running jobs finish, as far as the time reaches.

        All others go on at once: the group is left first, and who has the partitions next is told
        which jobs are still ours to end.
        """
        parts = lifecycle.parts
        consumer.rest()
        parts.dispatcher.close()
        drain = self._settings.drain_seconds
        until = time.monotonic() + drain
        if drain and (parts.dispatcher.running or not parts.answers.idle):
            consumer.leave(lifecycle.hand_on(), drain + FAREWELL_SECONDS)
        while time.monotonic() < until:
            if not (parts.dispatcher.running or parts.claims.ending) and parts.answers.idle:
                return
            if lifecycle.engine_lost:
                log.warning("drain_ended_by_engine", running=parts.dispatcher.running)
                return
            await asyncio.sleep(TICK_SECONDS)
        log.warning("drain_cut_short", running=parts.dispatcher.running)

    async def _tell_when_ready(self, consumer: JobsConsumer) -> None:
        await consumer.joined()
        self._health.is_ready("group")
        log.info(
            "ready",
            seconds=round(time.monotonic() - self._started, 1),
            partitions=len(consumer.states),
            dtype=self._dtype,
            weights=self._settings.weights,
            stop_with="SIGTERM or Ctrl-C drains, twice stops at once",
        )

    async def _commit_often(self, consumer: JobsConsumer) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_interval_ms / 1_000)
            await consumer.commit()

    async def _tick_often(self, lifecycle: Lifecycle, writer: LogWriter) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            lifecycle.tick()
            down = lifecycle.parts.parking.logs_down
            if down and writer.silent_seconds > STUCK_SECONDS:
                self._health.not_ready("replies", f"nothing gets through; {down} partitions down")
            else:
                self._health.is_ready("replies")

    async def _consolidate_often(
        self, consolidation: Consolidation, consumer: JobsConsumer, lifecycle: Lifecycle
    ) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            if consolidation.look(lifecycle.sample(), time.monotonic(), draining=consumer.resting):
                consumer.rejoin()
