"""How far reading and finishing are behind the ends of the logs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import errors

from aril.fetching.place import Place
from aril.worker.job import Partition
from aril.worker.observe.metrics import Lag, Metrics
from aril.worker.queue import lag as module
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commits import Commits
from aril.worker.queue.lag import lags_of, logs_of, watch_lag
from aril.worker.queue.ledger import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

PLACE = Partition("jobs", 3)
CONSUMER: Any = SimpleNamespace(_client=None)


def held(committed: int | None = 10) -> PartitionState:
    """Return a partition as it was won, committed up to there."""
    checkpoint = None if committed is None else Checkpoint(committed, "")
    return PartitionState(PLACE, Membership(1, 1, "m"), 100, checkpoint)


def test_lag_is_what_is_open_and_what_was_not_read() -> None:
    """What is finished out of order is no lag, though the position waits for it."""
    state = held(10)
    for offset in range(10, 15):
        assert state.read(offset)
    state.finish_offset(12)
    assert lags_of([state], {PLACE: range(20)}) == {PLACE: Lag(unfinished=4 + 5, unread=5)}


def test_an_end_from_before_the_last_read_is_no_negative_lag() -> None:
    """The brokers were asked a moment ago."""
    state = held(10)
    assert state.read(10)
    assert lags_of([state], {PLACE: range(10)}) == {PLACE: Lag(unfinished=1, unread=0)}


def test_a_partition_of_which_nothing_was_read_lags_by_its_whole_log() -> None:
    """Nothing committed, and it rests since too much waits: that is where lag would hide."""
    assert lags_of([held(None)], {PLACE: range(3, 10)}) == {PLACE: Lag(unfinished=7, unread=7)}
    assert lags_of([held()], {}) == {}


def test_what_retention_deleted_is_no_lag() -> None:
    """It is lost, and counted as that."""
    assert lags_of([held(10)], {PLACE: range(15, 20)}) == {PLACE: Lag(unfinished=5, unread=5)}


async def test_all_that_is_held_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that rest as well: nothing is fetched of them, so a fetch would not tell."""
    asked = []

    async def told(_client: object, places: Iterable[Place]) -> dict[Place, range]:
        asked.append([*places])
        return dict.fromkeys(asked[-1], range(2, 7))

    monkeypatch.setattr(module, "log_bounds", told)
    assert await logs_of(CONSUMER, [PLACE]) == {PLACE: range(2, 7)}
    assert await logs_of(CONSUMER, []) == {}
    assert asked == [[Place(*PLACE)]]


@pytest.mark.parametrize("told", [errors.KafkaConnectionError(), TimeoutError()])
async def test_brokers_that_do_not_answer_end_nothing(
    told: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker goes on, and what was known stays."""

    async def fail(*_: object) -> dict[Place, range]:
        raise told

    monkeypatch.setattr(module, "log_bounds", fail)
    assert await logs_of(CONSUMER, [PLACE]) is None


async def test_what_was_known_stays_until_more_is() -> None:
    """A look that brings nothing does not look like no lag."""
    metrics, looks = Metrics(), [None, {PLACE: range(20)}]
    metrics.behind({PLACE: Lag(5, 5)})
    seen = []

    async def logs() -> dict[Partition, range] | None:
        seen.append(metrics.registry.get_sample_value("aril_unread_jobs"))
        return looks.pop(0)

    async def look(times: int) -> None:
        for _ in range(times):
            watching = asyncio.create_task(watch_lag(logs, lambda: [held(10)], metrics))
            await asyncio.sleep(0)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    await look(2)
    seen.append(metrics.registry.get_sample_value("aril_unread_jobs"))
    assert seen == [5, 5, 10]


async def test_a_look_that_fails_stops_no_worker() -> None:
    """It is only a figure: the next look is as ever."""

    async def logs() -> dict[Partition, range] | None:
        raise KeyError("a connection that was closed meanwhile")

    watching = asyncio.create_task(watch_lag(logs, list, Metrics()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


class Member:
    """Commits as it was won, and has the broker take the first commit only."""

    def __init__(self) -> None:
        self._answers = [True, False]

    def as_whom(self, membership: Membership) -> Membership:
        """Return the same."""
        return membership

    async def commit(
        self, _: Membership, checkpoints: Mapping[Partition, Checkpoint]
    ) -> Collection[Partition]:
        """Give the next answer."""
        return checkpoints.keys() if self._answers.pop(0) else ()


async def test_each_commit_is_told_of() -> None:
    """With its seconds, and whether the broker took it."""
    told: list[tuple[float, bool]] = []
    commits = Commits(told=lambda *what: told.append(what))
    commits.speak_through(Member())
    for _ in range(2):
        state = held()
        assert state.read(10)
        state.finish_offset(10)
        await commits.commit(lambda state=state: [state])  # type: ignore[misc]
    assert [accepted for _, accepted in told] == [True, False]
    assert all(seconds >= 0 for seconds, _ in told)
