"""Reads any partitions of any topics, from any offsets, in one loop a broker and bounded memory.

No consumer group: what is read, and from where, is said by `follow` and `unfollow`, at any time and
for as many partitions as there are. A broker is told of changes only (`aril.fetching.session`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from aiokafka import errors
from aiokafka.protocol.fetch import FetchRequest

from aril.fetching.disarm import disarmed, has_packed
from aril.fetching.packed import HAS_CRAMJAM
from aril.fetching.place import Place
from aril.fetching.records import read_records
from aril.fetching.session import FetchSession

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka.client import AIOKafkaClient

    from aril.fetching.leaders import Leaders
    from aril.fetching.place import Fetched
    from aril.fetching.session import Ask

log = logging.getLogger(__name__)  # clients read here, and set up no structlog

FETCH_BYTES: Final = 8 << 20  # of one answer; brokers give a first batch whole, however large
PLACE_BYTES: Final = 1 << 20
TURN_BYTES: Final = 1 << 18  # that are read before others have the event loop
HELD_BYTES: Final = 16 << 20  # read and not polled: from here on nothing more is asked for
MISSING_SECONDS: Final = 10.0  # before a topic that nobody knows counts as gone
RETRY_SECONDS: Final = 0.1
MOST_RETRY_SECONDS: Final = 2.0
_NO_CODEC: Final = "records are packed by snappy, lz4 or zstd: install aril-client[compression]"
_MOVED: Final = (
    errors.NotLeaderForPartitionError,
    errors.UnknownTopicOrPartitionError,
    errors.LeaderNotAvailableError,
    errors.ReplicaNotAvailableError,
)
_NO_SESSION: Final = {70, 71}  # unknown to the broker; of another epoch


class PlaceError(Exception):
    """A partition cannot be read: its offset is not in the log, or no reading is allowed."""

    def __init__(self, place: Place, error: Exception) -> None:
        super().__init__(f"{place.topic}/{place.partition}: {error}")
        self.place = place
        self.error = error


class SessionFetch(FetchRequest):  # type: ignore[misc] # aiokafka is untyped
    """A fetch within a session, where the broker has these."""

    def __init__(self, ask: Ask, wait_ms: int) -> None:
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for place, offset in ask.read:
            topics.setdefault(place.topic, []).append((place.partition, offset, PLACE_BYTES))
        super().__init__(wait_ms, 1, FETCH_BYTES, 0, [*topics.items()])
        self._ask = ask

    def build(self, request_struct_class: Any) -> Any:
        """See aiokafka, whose requests end each session that they begin."""
        request = super().build(request_struct_class)
        if request_struct_class.API_VERSION >= 7:  # noqa: PLR2004 - where sessions begin
            forget: dict[str, list[int]] = {}
            for place in self._ask.forget:
                forget.setdefault(place.topic, []).append(place.partition)
            request.session_id, request.session_epoch = self._ask.session, self._ask.epoch
            request.forgotten_topics_data = [*forget.items()]
        return request


class Follower:
    """One reader of many partitions."""

    def __init__(self, client: AIOKafkaClient, leaders: Leaders, *, wait_ms: int) -> None:
        """Prepare to read through `client`; a broker without news answers after `wait_ms`."""
        self._client = client
        self._leaders = leaders
        self._wait_ms = wait_ms
        self._offsets: dict[Place, int] = {}  # what is followed, and what is read next of it
        self._last: dict[Place, int] = {}  # of those that are not read for ever
        self._passed: list[Place] = []
        self._nodes: dict[int, _Node] = {}
        self._homes: dict[Place, _Node] = {}
        self._homeless: dict[str, set[Place]] = {}  # by topic: no leader is known
        self._seeking: dict[str, asyncio.Task[None]] = {}
        self._read: list[tuple[Place, int, list[Fetched]]] = []
        self._failed: dict[Place, Exception] = {}
        self._held = 0
        self._unreadable: dict[Place, int] = {}
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def follow(self, place: Place, offset: int, last: int | None = None) -> None:
        """Read a partition from `offset` on; what was read of it before and not polled is void.

        With `last` it is read until its position is behind that, and has then `passed`; some
        records more may come.
        """
        self._void(place)
        self._offsets[place] = offset
        self._last.pop(place, None)
        if last is not None:
            self._last[place] = last
        home = self._homes.get(place)
        if home is not None:
            home.want(place, offset)
        elif not self._settle(place):
            self._seek(place)

    def unfollow(self, place: Place) -> None:
        """Read a partition no more; harmless if it is not."""
        if self._offsets.pop(place, None) is not None:
            self._last.pop(place, None)
            self._unreadable.pop(place, None)
            self._void(place)
            self._leave(place)

    def passed(self) -> list[Place]:
        """Return the partitions that were read to their `last` since this was called before.

        Asked for right behind `poll`, all their records have been returned.
        """
        passed, self._passed = self._passed, []
        return [each for each in passed if each in self._last]

    def position(self, place: Place) -> int | None:
        """Return what is read next of a partition; None if it is not followed."""
        return self._offsets.get(place)

    async def poll(self, seconds: float) -> list[Fetched]:
        """Return what has been read, each partition's records in order.

        [] after so long, or where a position has moved without one. Raises PlaceError: that
        partition is not followed any more, the others' records are kept.
        """
        if not self._read and not self._failed:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
        if self._failed:
            place, error = self._failed.popitem()
            raise PlaceError(place, error)
        read, self._read = self._read, []
        self._held = 0
        self._room.set()
        return [record for _, _, records in read for record in records]

    async def close(self) -> None:
        """Read nothing more."""
        tasks = [node.task for node in self._nodes.values()] + [*self._seeking.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._nodes.clear()

    # --- where partitions are read

    def _settle(self, place: Place) -> bool:
        """Have a followed partition's leader read it, if it is known."""
        number = self._leaders.of(place)
        if number is None:
            return False
        node = self._nodes.get(number)
        if node is None:
            node = self._nodes[number] = _Node(self, number)
        self._homes[place] = node
        node.want(place, self._offsets[place])
        return True

    def _leave(self, place: Place) -> None:
        home = self._homes.pop(place, None)
        if home is not None:
            home.session.drop(place)
        elif waiting := self._homeless.get(place.topic):
            waiting.discard(place)

    def _moved(self, places: Iterable[Place]) -> None:
        """Look where partitions are led by now."""
        for place in places:
            self._leave(place)
            self._leaders.forget(place.topic)
            self._seek(place)

    def _seek(self, place: Place) -> None:
        topic = place.topic
        self._homeless.setdefault(topic, set()).add(place)
        if topic not in self._seeking:
            task = asyncio.create_task(self._find(topic), name=f"aril-leader-of-{topic}")
            self._seeking[topic] = task

    async def _find(self, topic: str) -> None:
        """Ask for a topic's leaders until all that is followed of it has one."""
        loop = asyncio.get_running_loop()
        begun, pause = loop.time(), RETRY_SECONDS
        homeless = self._homeless[topic]
        try:
            while homeless:
                try:
                    await self._leaders.learn(topic)
                except errors.TopicAuthorizationFailedError as error:
                    self._give_up([*homeless], error)
                except errors.UnknownTopicOrPartitionError as error:
                    if loop.time() - begun > MISSING_SECONDS:
                        self._give_up([*homeless], error)
                except errors.KafkaError as error:
                    log.warning("no leader of %s is known: %r", topic, error)
                homeless -= {place for place in homeless if self._settle(place)}
                if homeless:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, MOST_RETRY_SECONDS)
        finally:  # without an await since the last look: nobody has come meanwhile
            del self._homeless[topic], self._seeking[topic]

    def _give_up(self, places: Iterable[Place], error: Exception) -> None:
        for place in places:
            if self._offsets.pop(place, None) is not None:
                self._last.pop(place, None)
                self._void(place)
                self._leave(place)
                self._failed[place] = error
        self._news.set()

    def _void(self, place: Place) -> None:
        self._failed.pop(place, None)
        if self._held:
            self._read = [each for each in self._read if each[0] != place]

    # --- what has come

    def took(self, place: Place, node: _Node, raw: bytes) -> None:
        """Take what a broker gave of a partition from the offset that it was asked for."""
        offset = self._offsets[place]
        read = read_records(place, raw, offset)
        position = read.next_offset
        if read.error is not None and position == offset:
            if isinstance(read.error, errors.UnsupportedCodecError) and not HAS_CRAMJAM:
                self._give_up([place], errors.UnsupportedCodecError(_NO_CODEC))
                return
            if self._unreadable.get(place) == offset:  # it was not the network
                del self._unreadable[place]
                position = read.behind
                log.error(
                    "unreadable batch left out: %s/%d, %d to %d", *place, offset, position - 1
                )
            else:
                self._unreadable[place] = offset
                log.warning("unreadable batch: %s/%d at %d: %r", *place, offset, read.error)
        self._offsets[place] = position
        if position > self._last.get(place, position):
            node.session.drop(place)
            self._passed.append(place)
        else:
            node.session.want(place, position)
        if read.records:
            self._read.append((place, len(raw), read.records))
            self._held += len(raw)
            if self._held >= HELD_BYTES:
                self._room.clear()
        if position > offset:
            self._news.set()

    def refused(self, place: Place, kind: type[errors.KafkaError]) -> None:
        """Take it that a broker gave nothing of a partition but an error."""
        if kind in _MOVED:
            self._moved([place])
        elif kind in {errors.OffsetOutOfRangeError, errors.TopicAuthorizationFailedError}:
            self._give_up([place], kind())
        else:
            log.warning("%s/%d cannot be read now: %s", *place, kind.__name__)

    async def fetch(self, number: int, session: FetchSession) -> Any:
        """Ask a broker once, when there is room for what it gives. Raises KafkaError."""
        await self._room.wait()
        response = await self._client.send(number, SessionFetch(session.ask(), self._wait_ms))
        topics = response.topics or []
        if any(has_packed(each[-1]) for _, found in topics for each in found if each[-1]):
            topics = await asyncio.to_thread(disarmed, topics)  # it is unpacked for that
        return response, topics

    def lost(self, node: _Node) -> None:
        """Take it that a broker cannot be reached: others may lead by now."""
        self._client.force_metadata_update()  # brokers: their addresses
        self._moved([*node.session])


class _Node:
    """What is read from one broker."""

    def __init__(self, follower: Follower, number: int) -> None:
        self.session = FetchSession()
        self._follower = follower
        self._number = number
        self._wanted = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"aril-fetch-{number}")

    def want(self, place: Place, offset: int) -> None:
        """Read a partition from here, from `offset` on."""
        self.session.want(place, offset)
        self._wanted.set()

    async def _run(self) -> None:
        pause = RETRY_SECONDS
        while True:
            if not self.session:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                await self._once()
            except Exception as error:  # noqa: BLE001 - also one of ours: reading goes on
                log.warning("broker %d cannot be read from: %r", self._number, error)
                self.session.lost()
                self._follower.lost(self)
                await asyncio.sleep(pause)
                pause = min(2 * pause, MOST_RETRY_SECONDS)
            else:
                pause = RETRY_SECONDS

    async def _once(self) -> None:
        response, topics = await self._follower.fetch(self._number, self.session)
        code = getattr(response, "error_code", 0)
        if code in _NO_SESSION:
            self.session.lost()
            return
        if (kind := errors.for_code(code)) is not errors.NoError:
            raise kind
        came = [
            (place, errors.for_code(each[1]), each[-1] or b"")
            for topic, found in topics
            for each in found
            if self.session.asked(place := Place(topic, each[0])) is not None
        ]
        self.session.answered(getattr(response, "session_id", 0))
        paused, at_once = False, 0
        for place, kind, raw in came:
            if self.session.asked(place) is None:
                continue  # while others' records were read it was followed from elsewhere
            if kind is not errors.NoError:
                self._follower.refused(place, kind)
                paused = True
            elif raw:
                self._follower.took(place, self, raw)
                at_once += len(raw)
                if at_once > TURN_BYTES:  # small records are a while of the event loop
                    at_once = 0
                    await asyncio.sleep(0)
        if paused:
            await asyncio.sleep(RETRY_SECONDS)
