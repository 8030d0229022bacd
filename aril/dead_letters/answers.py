"""What reply logs say of the jobs that letters hold: answered, begun, nothing, or lost."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import (
    DecodeError,
    DoneEvent,
    ReleaseRecord,
    VisibleStream,
    decode_reply,
    reply_partition,
    reply_topic,
)
from aril.worker.replies.jobless import REDIRECT_UNWRITABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.dead_letters.letter import Identity, Letter, Place, Raw
    from aril.dead_letters.logs import Logs


class Where(NamedTuple):
    """A partition of a reply topic."""

    topic: str
    partition: int


@dataclass(slots=True)
class Answer:
    """What a reply log has of one job, by the reader rule, from a letter's time on."""

    stream: VisibleStream = field(default_factory=VisibleStream)
    begun: Place | None = None  # the first record of an answer, or a claim of one
    ended: Place | None = None  # the visible terminal

    @property
    def end(self) -> str:
        """How it ended: `done`, or the error's code; empty if it has not."""
        terminal = self.stream.terminal
        if terminal is None:
            return ""
        return "done" if isinstance(terminal, DoneEvent) else str(terminal.code)

    def feed(self, raw: Raw, job_id: str) -> None:
        """Take the log's next record of the job's key; what is no reply counts for no reader."""
        try:
            reply = None if raw.value is None else decode_reply(raw.value)
        except DecodeError:
            return
        if reply is None or reply.job != job_id or isinstance(reply, ReleaseRecord):
            return
        self.begun = self.begun or raw.place
        self.stream.feed(reply)
        if self.stream.finished:
            self.ended = self.ended or raw.place


class Told(NamedTuple):
    """What the reply logs say of a letter's job.

    `missing` is a reply topic that does not exist. `lost` says that retention may have deleted
    what there was.
    """

    topic: str
    missing: bool = False
    lost: bool = False
    answers: tuple[Answer, ...] = ()

    @property
    def ended(self) -> Answer | None:
        """The answer that has ended, if there is one."""
        return next((each for each in self.answers if each.ended is not None), None)

    @property
    def begun(self) -> Answer | None:
        """An answer that was begun, if there is one."""
        return next((each for each in self.answers if each.begun is not None), None)


@dataclass(slots=True)
class _Log:
    """One partition of a reply topic, and what is looked for there."""

    letters: list[Letter] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)  # by job
    lost_before_ms: float = -math.inf  # what was said until then may have been deleted


class AnswerBook:
    """Looks the answers of many letters up; each reply log is read once for all of them."""

    def __init__(self, logs: Logs, *, replies_prefix: str, slack_ms: float) -> None:
        """Prepare; brokers' clocks differ by `slack_ms` at most."""
        self._logs = logs
        self._prefix = replies_prefix
        self._slack_ms = slack_ms

    async def look_up(self, letters: Iterable[Letter]) -> dict[Identity, Told]:
        """Return what is told of each letter whose job and tenant are known."""
        found: defaultdict[Where, _Log] = defaultdict(_Log)
        looked: list[tuple[Letter, str, str, list[Where]]] = []
        for letter in letters:
            tenant, job_id = letter.asked.tenant, letter.asked.job_id
            if tenant is not None and job_id is not None:
                topic = reply_topic(self._prefix, tenant)
                places = self._places(topic, job_id, letter.asked.reply_partition)
                looked.append((letter, job_id, topic, places))
                for where in places:
                    found[where].letters.append(letter)
                    found[where].answers.setdefault(job_id, Answer())
        for where, log in found.items():
            await self._read(where, log)
        return {
            letter.identity: Told(
                topic,
                missing=not places,
                lost=any(self._since(letter) <= found[where].lost_before_ms for where in places),
                answers=tuple(found[where].answers[job_id] for where in places),
            )
            for letter, job_id, topic, places in looked
        }

    def _places(self, topic: str, job_id: str, asked: int | None) -> list[Where]:
        """Return where a job's answer can be: the partition that it names, and that of its hash.

        The second one is also where a worker says that there is none of that number.
        """
        count = len(self._logs.partitions(topic))
        if not count:
            return []
        numbers = {reply_partition(job_id, count)}
        if asked is not None and asked < count:
            numbers.add(asked)
        return [Where(topic, number) for number in sorted(numbers)]

    def _since(self, letter: Letter) -> float:
        """Return since when there can be an answer to a letter's job."""
        if letter.reason == REDIRECT_UNWRITABLE:  # it was sent before: its answer may be older
            return 0
        return letter.sent_ms - self._slack_ms

    async def _read(self, where: Where, log: _Log) -> None:
        topic, partition = where
        start = (await self._logs.starts(topic))[partition]
        end = (await self._logs.ends(topic))[partition]
        since_ms = int(min(map(self._since, log.letters)))
        floor = max(start, await self._logs.at(topic, partition, since_ms, otherwise=end))
        first_ms: float = math.inf
        async for raw in self._logs.read(topic, partition, floor, end):
            first_ms = min(first_ms, raw.timestamp_ms)
            job_id = (raw.key or b"").decode(errors="replace")
            if job_id in log.answers:
                log.answers[job_id].feed(raw, job_id)
        if start > 0 and floor == start:
            log.lost_before_ms = first_ms
