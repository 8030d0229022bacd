"""Coming up: model and brokers side by side, topics checked, each step told to the probes.

What waiting can cure is waited for: a broker that is not up yet, topics that somebody is about to
create. What it cannot cure ends the process with one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from aril.worker.intake.tenant_limits import TenantLimits, TenantLimitsError
from aril.worker.loading import ModelError, RoomError
from aril.worker.observe.logs import get_logger
from aril.worker.replies.producer import LogWriter
from aril.worker.topics.admin import Contract, TopicAdmin, TopicsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.intake.tenant_keys import TenantKeys
    from aril.worker.loading import Loaded
    from aril.worker.observe.health import Health
    from aril.worker.observe.metrics import Metrics
    from aril.worker.settings import WorkerSettings
    from aril.worker.topics.tenant_topics import TenantTopics

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class WorkerFailedError(Exception):
    """The worker cannot go on; the message is one line. `setting` says that a setting is why."""

    def __init__(self, message: str, *, setting: bool = False) -> None:
        super().__init__(message)
        self.setting = setting


class Startup:
    """The way up of one worker."""

    def __init__(
        self, settings: WorkerSettings, name: str, health: Health, tenant_topics: TenantTopics
    ) -> None:
        self._settings = settings
        self._tenant_topics = tenant_topics
        self._name = name
        self._health = health
        self._started = time.monotonic()

    async def run(self, load: Callable[[WorkerSettings], Loaded]) -> tuple[Loaded, LogWriter]:
        """Load and connect side by side; return when both are done and the topics are right.

        Raises WorkerFailedError where waiting will not help.
        """
        writer = LogWriter(self._settings, self._name)
        ways = [
            loading := asyncio.create_task(self._load_apart(load)),
            asyncio.create_task(self._reach_topics(writer)),
        ]
        try:
            await asyncio.gather(*ways)  # a model that cannot be served ends a wait for brokers
        except BaseException:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await writer.stop()
            raise
        return loading.result(), writer

    async def _reach_topics(self, writer: LogWriter) -> None:
        await self._connect(writer)
        await self._check_topics()

    async def _load_apart(self, load: Callable[[WorkerSettings], Loaded]) -> Loaded:
        """Load in a thread that no exit waits for: it may be minutes from its end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Loaded] = loop.create_future()

        def settle(loaded: Loaded | None, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            elif loaded is not None:
                done.set_result(loaded)

        def work() -> None:
            loaded, error = None, None
            try:
                loaded = load(self._settings)
            except BaseException as caught:  # noqa: BLE001 - it is raised on the event loop
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are leaving
                loop.call_soon_threadsafe(settle, loaded, error)

        threading.Thread(target=work, name="load", daemon=True).start()
        try:
            loaded = await done
        except ModelError as error:
            raise WorkerFailedError(str(error), setting=isinstance(error, RoomError)) from error
        self._health.is_ready("model")
        log.info("model_loaded", seconds=round(time.monotonic() - self._started, 1))
        return loaded

    async def _connect(self, writer: LogWriter) -> None:
        while True:
            try:
                await writer.start()
            except (KafkaError, OSError) as error:
                why = f"no broker answers at {self._settings.bootstrap}: {type(error).__name__}"
                self._health.not_ready("topics", why)
                log.warning("brokers_unreachable", bootstrap=self._settings.bootstrap)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _check_topics(self) -> None:
        """Wait until the topics of all are as the contract wants them; say what is not, once.

        A topic of one tenant that is not keeps nobody waiting: that tenant's jobs are refused. A
        reply topic is looked at when it is first used: there may be tens of thousands.
        """
        contract = Contract.of(self._settings)
        told: set[str] = set()
        while True:
            try:
                async with topic_admin(self._settings) as admin:
                    findings = await admin.verify_shared()
            except TopicsError as error:
                errors = [f"the brokers could not be asked: {error}"]
            else:
                self._tenant_topics.learn(findings)
                findings = [each for each in findings if not contract.is_of_one_tenant(each.topic)]
                errors = [str(each) for each in findings if each.level == "error"]
                for each in findings:
                    if each.level == "warning" and str(each) not in told:
                        told.add(str(each))
                        log.warning("topics", finding=str(each))
            if not errors:
                self._health.is_ready("topics")
                return
            self._health.not_ready("topics", "; ".join(errors))
            for text in errors:
                if text not in told:
                    told.add(text)
                    log.error("topics_not_as_the_contract_wants", finding=text)
            await asyncio.sleep(RETRY_SECONDS)


def topic_admin(settings: WorkerSettings) -> TopicAdmin:
    """Return an admin for the topics of the contract, to be entered."""
    return TopicAdmin(settings.bootstrap, Contract.of(settings), security=settings.kafka_security())


def read_tenant_keys(settings: WorkerSettings, metrics: Metrics) -> TenantKeys | None:
    """Return the tenants' keys, where they sign. Raises WorkerFailedError."""
    if settings.tenant_keys is None:
        return None
    from aril.worker.intake.tenant_keys import (  # noqa: PLC0415 - cryptography, only for those who need it
        TenantKeys,
        TenantKeysError,
    )

    try:
        return TenantKeys(settings.tenant_keys, age_seconds=settings.signature_age, metrics=metrics)
    except TenantKeysError as error:
        raise WorkerFailedError(str(error)) from None


def read_tenant_limits(settings: WorkerSettings) -> TenantLimits:
    """Return what each tenant may use. Raises WorkerFailedError."""
    try:
        return TenantLimits(settings.limits)
    except TenantLimitsError as error:
        raise WorkerFailedError(str(error), setting=True) from None


async def create_reply_topic(settings: WorkerSettings, tenant: str) -> None:
    """Create a tenant's reply topic as the contract wants it; failing is only logged."""
    try:
        async with topic_admin(settings) as admin:
            await admin.ensure([tenant])
        log.info("reply_topic_created", tenant=tenant)
    except TopicsError as error:
        log.warning("reply_topic_not_created", tenant=tenant, error=str(error))
