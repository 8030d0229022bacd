"""What is read of a reply log for jobs that wait: in pieces it says what it says in one piece."""

from __future__ import annotations

import random
from collections import Counter

from aril.schemas import Epoch, TokensRecord, encode_reply
from aril.worker.takeover.read_ahead import Pending, ReadAhead
from aril.worker.takeover.readback import LogRecord
from aril.worker.takeover.rule import TakeOver
from tests.support.entries import entry_of

NAMES = ("a", "b", "c")


def pending_of(name: str, reply_from: int | None = None) -> Pending:
    """Return an older job that waits to be taken over by us."""
    return Pending(entry_of(name, epoch=Epoch(9, 1), reply_from=reply_from), "me")


def logged(offset: int, name: str, index: int = 0) -> LogRecord:
    """Return a record of an earlier owner."""
    record = TokensRecord(
        job=name, epoch=Epoch(1, 1), worker="w0", index=index, ids=(offset,), text=""
    )
    return LogRecord(offset, name.encode(), encode_reply(record))


class Life:
    """A log that grows; jobs that wait, are dropped, claimed and read back; reads that break."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: list[LogRecord] = []
        self.ahead = ReadAhead()
        self.waiting: dict[str, Pending] = {}
        self.batch: list[Pending] = []
        self.starts: dict[Pending, int] = {}
        self.written: Counter[str] = Counter()
        self.names = [*NAMES, "d", "e", "f"]
        self.born: dict[str, int] = {}  # where the log was when a job was first heard of
        self.judged = 0

    def step(self) -> None:
        """Let something happen."""
        name = self.random.choice(self.names)
        chance = self.random.random()
        born = self.born.setdefault(name, len(self.log))
        if chance < 0.4:  # mostly in its place
            index = self.written[name] - (self.random.random() < 0.2)
            self.log.append(logged(len(self.log), name, max(0, index)))
            self.written[name] = max(0, index) + 1
        elif chance < 0.7:
            if name not in self.waiting:
                told = self.random.choice([None, born])
                self.waiting[name] = pending_of(name, told)
                self.ahead.add(self.waiting[name])
        elif chance < 0.75:
            if name in self.waiting:
                assert self.ahead.take(self.waiting[name].entry) is self.waiting.pop(name)
        elif chance < 0.85:
            self.claim(name)
        elif self.batch:
            self.read()
        assert len(self.ahead) == len(self.waiting)

    def claim(self, name: str) -> None:
        """Let a job's turn come, if it waits."""
        if name in self.waiting:
            pending = self.waiting.pop(name)
            assert self.ahead.take(pending.entry) is pending
            self.batch.append(pending)

    def read(self) -> None:
        """Append claims and read them back; jobs may be claimed meanwhile, the read may break."""
        for each in self.batch:
            each.claimed_at = len(self.log)
            claim = encode_reply(each.takeover.claim())
            self.log.append(LogRecord(len(self.log), each.entry.job_id.encode(), claim))
        last = len(self.log) - 1
        for each in self.ahead.unread(self.batch):
            each.begin(floor=0, log_start=0, last=last)
            self.starts[each] = each.read_to or 0
        fold = self.ahead.folding(self.batch)
        batch, self.batch = self.batch, []
        breaks_at = last if self.random.random() < 0.2 else None
        for record in self.log[self.ahead.first(batch) : last + 1]:
            if record.offset == breaks_at:
                self.ahead.failed()
                for each in batch:
                    each.forget()
                self.batch += batch
                return
            if self.random.random() < 0.05:
                self.claim(self.random.choice(self.names))
            fold(record)
        self.ahead.passed(last)
        for each in batch:
            self.judge(each)

    def judge(self, pending: Pending) -> None:
        """Compare with reading it all at once, from the job's start."""
        whole = Pending(pending.entry, "me", read_to=self.starts[pending])
        name = pending.entry.job_id.encode()
        for record in self.log[: pending.claimed_at + 1]:
            if record.key == name:
                whole.fold(record)
        seen, expected = pending.takeover, whole.takeover
        assert seen.history.stream.token_ids == expected.history.stream.token_ids
        assert seen.history.stream.epoch == expected.history.stream.epoch
        assert seen.history.strikes == expected.history.strikes
        assert (seen.verdict(), seen.base_above()) == (expected.verdict(), expected.base_above())
        self.judged += 1
        if self.random.random() < 0.3:  # contested: it claims again, and reads on
            self.batch.append(pending)
            return
        if pending.entry.job_id not in self.names:
            return
        self.names.remove(pending.entry.job_id)  # its answer is ours; another job comes
        self.names.append(f"j{self.judged}")


def test_in_pieces_a_log_says_what_it_says_in_one() -> None:
    """Whatever happens to the jobs and the reads between."""
    judged = 0
    for seed in range(300):
        life = Life(seed)
        for _ in range(150):
            life.step()
        judged += life.judged
    assert judged > 1_000


def test_a_batch_that_is_known_is_read_from_the_last_pass_on() -> None:
    """Two jobs wait while a third is claimed: what was read then is not read again."""
    ahead = ReadAhead()
    waiting = [pending_of(name) for name in NAMES]
    for each in waiting:
        ahead.add(each)
    log = [logged(offset, NAMES[offset % 3], offset // 3) for offset in range(9)]
    for number, pending in enumerate(waiting):
        assert ahead.take(pending.entry) is pending
        pending.claimed_at = last = len(log)
        key = pending.entry.job_id.encode()
        log.append(LogRecord(last, key, encode_reply(pending.takeover.claim())))
        for each in ahead.unread([pending]):
            each.begin(floor=0, log_start=0, last=last)
        fold = ahead.folding([pending])
        first = ahead.first([pending])
        assert first == (0 if number == 0 else last)
        for record in log[first : last + 1]:
            fold(record)
        ahead.passed(last)
        assert len(pending.takeover.history.stream.token_ids) == 3


def test_a_job_that_nobody_told_of_makes_one_long_pass_for_all() -> None:
    """A pass that has to start far back anyway reads for every job that waits."""
    ahead = ReadAhead()
    first, second = (pending_of(name) for name in "ab")
    ahead.add(second)
    assert set(ahead.unread([first])) == {first, second}
    first.read_to = 5
    assert ahead.unread([first]) == []


def test_where_an_answer_may_begin() -> None:
    """A tenant can shorten the way, not lengthen it; a start below the log's is a lost prefix."""
    for told, floor, log_start, expected, lost in (
        (None, 3, 0, 3, False),
        (7, 3, 0, 7, False),
        (1, 3, 0, 3, False),
        (99, 3, 0, 3, False),  # beyond the log's end: not to be believed
        (1, 4, 4, 4, True),
        (None, 4, 4, 4, False),
        (5, 4, 4, 5, False),
    ):
        pending = pending_of("a", told)
        pending.begin(floor=floor, log_start=log_start, last=20)
        assert (pending.read_to, pending.prefix_lost) == (expected, lost)


def test_a_takeover_is_made_when_it_is_needed() -> None:
    """Most of a long backlog is never heard of in the log: nothing is built for it."""
    pending = pending_of("a")
    pending.begin(floor=0, log_start=0, last=5)
    assert pending.begun is None
    pending.fold(logged(0, "a"))
    assert isinstance(pending.begun, TakeOver)
