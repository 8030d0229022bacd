"""Replays: a letter's record is appended again as it was, and a note of it to the dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer

from aril.connecting.sessions import renew_sessions
from aril.dead_letters.letter import Place, note_headers, own_headers
from aril.dead_letters.rulings import Refusal, refusal
from aril.errors import BrokerUnavailable
from aril.kafka import kafka_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from aril.dead_letters.answers import Told
    from aril.dead_letters.letter import Identity, Letter
    from aril.dead_letters.logs import Logs
    from aril.dead_letters.rulings import Rules
    from aril.dead_letters.selection import Chosen
    from aril.worker.settings import WorkerSettings

REQUEST_TIMEOUT_MS: Final = 15_000


class Planned(NamedTuple):
    """A letter, and why it is not replayed, if it is not."""

    letter: Letter
    refused: Refusal | None


class Replayed(NamedTuple):
    """What became of a letter: where its record stands now, and what went wrong."""

    to: Place | None
    problem: str = ""


def plan(chosen: Iterable[Chosen], told: Mapping[Identity, Told], rules: Rules) -> list[Planned]:
    """Decide about letters, in their order. Of those with one id only the first goes: it has it."""
    planned: list[Planned] = []
    taken: dict[tuple[str | None, str | None], Letter] = {}
    for letter, _, notes in chosen:
        refused = refusal(letter, notes, told.get(letter.identity), rules)
        name = letter.asked.tenant, letter.asked.job_id
        if refused is None and None not in name:
            first = taken.setdefault(name, letter)
            if first is not letter:
                text = f"{first.source} has the same id, and is replayed"
                refused = Refusal("id_taken", text)
        planned.append(Planned(letter, refused))
    return planned


class Replayer:
    """Appends to topics of jobs, and notes it. An async context manager."""

    def __init__(self, settings: WorkerSettings, logs: Logs) -> None:
        self._logs = logs
        # Not idempotent, as clients are not: a record that lands twice is the same job twice.
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            acks="all",
            enable_idempotence=False,
            **settings.kafka_security(),
        )
        renew_sessions(self._producer.client)

    async def __aenter__(self) -> Self:
        try:
            with kafka_errors():
                await self._producer.start()
        except BaseException:
            await self._producer.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._producer.stop()

    async def replay(self, letter: Letter) -> Replayed:
        """Append a letter's record to where it came from, then the note.

        In that order: a replay without a note can be done twice, which is the same job sent twice;
        a note without a replay would keep a job from ever being replayed.
        """
        topic, partition, offset = letter.place
        found = [raw async for raw in self._logs.read(topic, partition, offset, offset + 1)]
        if not found:
            return Replayed(None, f"the letter at {letter.place} is gone")
        (raw,) = found
        try:
            to = await self._append(
                letter.source.topic,
                letter.source.partition,
                key=letter.key,
                value=raw.value,
                headers=own_headers(letter),
            )
        except BrokerUnavailable as error:
            return Replayed(None, f"it may have been replayed or not: {error}")
        try:
            headers = note_headers(letter, to)
            await self._append(topic, partition, key=raw.key, value=b"", headers=headers)
        except BrokerUnavailable as error:
            return Replayed(to, f"no note could be made that it was replayed: {error}")
        return Replayed(to)

    async def _append(self, topic: str, partition: int, **record: Any) -> Place:
        with kafka_errors():
            done = await self._producer.send_and_wait(topic, partition=partition, **record)
        return Place(topic, partition, done.offset)
