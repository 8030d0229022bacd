"""What reply logs say of the jobs that letters hold: answered, begun, nothing, or lost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from schemas import (
    DecodeError,
    DoneEvent,
    ReleaseRecord,
    VisibleStream,
    decode_reply,
    reply_partition,
    reply_topic,
)
from worker.replies.jobless import REDIRECT_UNWRITABLE

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


class AnswerBook:
    """Looks the answers of many letters up; each reply log is read once for all of them."""

    def __init__(self, logs: Logs, *, replies_prefix: str, slack_ms: float) -> None:
        """Prepare; brokers' clocks differ by `slack_ms` at most."""
        self._logs = logs
        self._prefix = replies_prefix
        self._slack_ms = slack_ms

    async def look_up(self, letters: Iterable[Letter]) -> dict[Identity, Told]:
        """Return what is told of each letter whose job and tenant are known."""
        told: dict[Identity, Told] = {}
        wanted: defaultdict[Where, dict[str, Answer]] = defaultdict(dict)
        floors: dict[Where, int] = {}
        for letter in letters:
            tenant, job_id = letter.asked.tenant, letter.asked.job_id
            if tenant is None or job_id is None:
                continue
            topic = reply_topic(self._prefix, tenant)
            answers, lost = [], False
            for where in self._places(topic, job_id, letter.asked.reply_partition):
                floor, lost_here = await self._floor(where, letter)
                floors[where] = min(floor, floors.get(where, floor))
                lost = lost or lost_here
                answers.append(wanted[where].setdefault(job_id, Answer()))
            missing = not answers
            told[letter.identity] = Told(topic, missing, lost, tuple(answers))
        for where, jobs in wanted.items():
            await self._read(where, floors[where], jobs)
        return told

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

    async def _floor(self, where: Where, letter: Letter) -> tuple[int, bool]:
        """Return from where on a log has to be read, and whether its beginning may be gone."""
        start = (await self._logs.starts(where.topic))[where.partition]
        if letter.reason == REDIRECT_UNWRITABLE:  # it was sent again: its answer may be older
            return start, start > 0
        since_ms = int(letter.sent_ms - self._slack_ms)
        floor = await self._logs.at(where.topic, where.partition, since_ms, otherwise=start)
        return floor, start > 0 and floor <= start

    async def _read(self, where: Where, floor: int, jobs: dict[str, Answer]) -> None:
        end = (await self._logs.ends(where.topic))[where.partition]
        by_key = {job_id.encode(): (job_id, answer) for job_id, answer in jobs.items()}
        async for raw in self._logs.read(where.topic, where.partition, floor, end):
            if raw.key in by_key:
                job_id, answer = by_key[raw.key]
                answer.feed(raw, job_id)
