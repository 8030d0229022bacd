"""librdkafka's consumer as the member of a group of KIP-848: how it is set up, and why so."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.settings import WorkerSettings

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")


def options_of(settings: WorkerSettings, client_id: str) -> dict[str, Any]:
    """Return librdkafka's options. Session and heartbeat are the brokers' to say in KIP-848."""
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": client_id,
        "group.id": settings.group,
        "group.protocol": "consumer",
        # No `group.instance.id`: a static member that comes back has the epoch of the one before.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "latest",
        # In KIP-848 it is also how long we may take to hand partitions on.
        "max.poll.interval.ms": settings.rebalance_timeout_ms,
        "logger": logging.getLogger("confluent_kafka"),
        **settings.librdkafka_security(),
    }


class DaemonThreads(Executor):
    """Runs each call in a thread of its own, for which the end of the process does not wait.

    One may be left in a `close` that never ends.
    """

    def submit(
        self, fn: Callable[ParamsT, ResultT], /, *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> Future[ResultT]:
        """Start a call; see `concurrent.futures.Executor`."""
        future: Future[ResultT] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=call, name="librdkafka", daemon=True).start()
        return future
