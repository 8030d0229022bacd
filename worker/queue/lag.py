"""How far each partition is behind the end of its log, asked of the brokers now and then.

What a fetch says of a log's end is not enough: nothing is fetched of a partition that rests since
too much waits, which is when its lag grows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka import errors

from aril.fetching.bounds import log_bounds
from aril.fetching.place import Place
from aril.worker.job import Partition
from aril.worker.observe.logs import get_logger
from aril.worker.observe.metrics import Lag

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiokafka import AIOKafkaConsumer

    from aril.worker.observe.metrics import Metrics
    from aril.worker.queue.assignment import PartitionState

log = get_logger(__name__)

LOOK_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 10.0


async def watch_lag(
    logs: Callable[[], Awaitable[dict[Partition, range] | None]],
    held: Callable[[], Iterable[PartitionState]],
    metrics: Metrics,
) -> None:
    """Look until cancelled. Where no broker tells of the logs, what was known stays."""
    while True:
        try:
            found = await logs()
            if found is not None:
                metrics.behind(lags_of(held(), found))
        except Exception:  # a figure that cannot be had stops no worker
            log.exception("lag_unknown")
        await asyncio.sleep(LOOK_SECONDS)


def lags_of(
    held: Iterable[PartitionState], logs: Mapping[Partition, range]
) -> dict[tuple[str, int], Lag]:
    """Return how far each partition is behind, of those whose log is known.

    What retention has deleted is no lag: it is counted as lost.
    """
    found: dict[tuple[str, int], Lag] = {}
    for state in held:
        log = logs.get(state.source)
        if log is not None:
            # Without a ledger nothing is committed and nothing was read: it begins with the log.
            read = log.start if state.ledger is None else max(log.start, state.ledger.next_offset)
            unread = max(0, log.stop - read)
            is_open = 0 if state.ledger is None else state.ledger.open
            found[state.source] = Lag(unfinished=is_open + unread, unread=unread)
    return found


async def logs_of(
    consumer: AIOKafkaConsumer, held: Iterable[Partition]
) -> dict[Partition, range] | None:
    """Ask which offsets logs hold; None where no broker answers, or a rebalance comes."""
    places = [Place(*each) for each in held]
    if not places:
        return {}
    client = consumer._client  # noqa: SLF001 - aiokafka's own ends are not all true
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            bounds = await log_bounds(client, places)
    except (errors.KafkaError, TimeoutError):
        return None
    return {Partition(*place): log for place, log in bounds.items()}
