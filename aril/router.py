"""Many jobs over one reader of reply topics: who gets which record, in bounded memory.

Plain objects without I/O. A job's inbox that is full takes nothing more; once it has been emptied
by half the reader goes back to the first record it left out. The log is the buffer, so a slow
caller costs its neighbours neither memory nor records, only some reading twice.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.errors import BadToken, JobConflict, ReplyUnreadable, StreamLost
from aril.schemas import (
    DecodeError,
    ResetEvent,
    TokensEvent,
    VisibleStream,
    decode_conflict,
    decode_redirect,
    decode_reply,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aril.schemas import Conflict, Event, ReplyRecord
    from aril.transport import Fetched, Place

INBOX_BYTES: Final = 1 << 20
"""Of records whose events one job may be ahead of its caller: logprobs make few events large."""


class Mark(NamedTuple):
    """How far a caller has come in a job's visible stream; marks compare in that order."""

    resets: int = 0
    tokens: int = 0

    def after(self, event: Event) -> Mark:
        """Return the mark of a caller that has been given `event` too."""
        if isinstance(event, TokensEvent):
            return Mark(self.resets, self.tokens + len(event.ids))
        if isinstance(event, ResetEvent):
            return Mark(self.resets + 1, 0)
        return self


class Inbox:
    """One job's end: the reader rule, and the events its caller has not taken yet."""

    def __init__(
        self,
        job: str,
        *,
        place: Place,
        position: int,
        limit: int,
        limit_bytes: int = INBOX_BYTES,
        resume_at: Mark | None = None,
        sent: str | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to read from offset `position`; what `resume_at` covers is not given again.

        `sent` is the hash of the job's record, where it was sent for this inbox. It is full at
        `limit` events, or once their records have `limit_bytes`; one record may be past that, so
        that any is read.
        """
        self.job = job
        self.place = place
        self.start: int = position
        self.position: int = position
        self.limit = limit
        self.sent = sent
        self.limit_bytes = limit_bytes
        self.stream: VisibleStream = VisibleStream()
        self.failure: Exception | None = None
        self.goal: int | None = None  # see `Router.seek`
        self.stalled: bool = False
        self.redirected: bool = False  # stalled until the reader has gone back
        self.taken_bytes = 0  # of the records of all events that the caller took
        self._events: deque[tuple[Event, int]] = deque()  # each with the bytes of its record
        self._bytes = 0
        self._folded = Mark()
        self._given = resume_at or Mark()
        self._replaying = resume_at is not None
        self._wake = wake

    @property
    def given(self) -> Mark:
        """How far the caller has come."""
        return self._given

    @property
    def others(self) -> bool:
        """Whether the id is another job's, which whoever leaves here does not end."""
        return isinstance(self.failure, JobConflict)

    @property
    def waiting(self) -> int:
        """How many events the caller has not taken."""
        return len(self._events)

    @property
    def full(self) -> bool:
        """Whether nothing more is taken for now."""
        return self.waiting >= self.limit or self._bytes >= self.limit_bytes

    @property
    def roomy(self) -> bool:
        """Whether one that was full has been emptied by half."""
        return self.waiting <= self.limit // 2 and self._bytes <= self.limit_bytes // 2

    def offer(self, record: Fetched) -> None:
        """Take the partition's next record for this job, or stall if the inbox is full."""
        if record.offset < self.position or self.stalled:
            return
        if self.full:
            self.stalled = True
            return
        self.position = record.offset + 1
        try:
            reply = decode_reply(record.value)
        except DecodeError as error:
            self.fail(ReplyUnreadable(f"a reply to job {self.job} cannot be read: {error}"))
            return
        if reply is None:
            self._notice(record.value)
            return
        self._fold(reply, len(record.value or b""))

    def _notice(self, value: bytes | None) -> None:
        start = decode_redirect(value, self.job)
        if start is not None:
            if start < self.start and self._nothing_seen:
                self._go_back(start)
            return
        conflict = decode_conflict(value, self.job)
        if conflict is not None and self._is_mine(conflict):
            self.fail(JobConflict(self.job))

    def _is_mine(self, conflict: Conflict) -> bool:
        """Tell whether it is the job read for here that is not answered.

        Who did not send it knows only the place, where then is no other one's answer.
        """
        if self.sent is not None:
            return conflict.sha256 == self.sent
        return self._nothing_seen and conflict.reply_from == self.start

    def reached(self) -> None:
        """Tell the caller that all below the goal has been offered."""
        self.goal = None
        self._wake()

    def _fold(self, reply: ReplyRecord, size: int) -> None:
        for event in self.stream.feed(reply):
            if self.failure is None:  # behind a token that fits no place nothing is given
                self._admit(event, size)

    @property
    def _nothing_seen(self) -> bool:
        return self._folded == self._given == Mark()

    def _go_back(self, start: int) -> None:
        """Read from `start` instead: the job was sent before, and its answer begins there.

        Nothing is taken until the reader is there.
        """
        self.start = self.position = start
        self.stream = VisibleStream()
        self.stalled = self.redirected = True

    def take(self) -> Event | None:
        """Return the caller's next event, or None for now."""
        if not self._events:
            return None
        event, size = self._events.popleft()
        self._bytes -= size
        self.taken_bytes += size
        self._given = self._given.after(event)
        return event

    def fail(self, error: Exception) -> None:
        """Tell the caller, after what has already arrived, that nothing more will come."""
        self.failure = self.failure or error
        self._wake()

    def _admit(self, event: Event, size: int) -> None:
        before, self._folded = self._folded, self._folded.after(event)
        if self._replaying:
            if isinstance(event, TokensEvent | ResetEvent):
                if self._folded <= self._given:
                    return
                beside = before < self._given and before.resets == self._given.resets
            else:
                beside = self._folded < self._given
            if beside:
                text = f"the token of job {self.job} fits no place in its visible stream"
                self.fail(BadToken(text))
                return
            self._replaying = False
        self._events.append((event, size))
        self._bytes += size
        self._wake()


class Router:
    """Hands records to inboxes and steers the reader: which partitions, from which offsets."""

    def __init__(
        self, *, follow: Callable[[Place, int], None], unfollow: Callable[[Place], None]
    ) -> None:
        self._follow = follow
        self._unfollow = unfollow
        self._inboxes: dict[Place, dict[bytes, tuple[Inbox, ...]]] = {}
        self._next: dict[Place, int] = {}
        self._seeking: set[Inbox] = set()

    @property
    def following(self) -> bool:
        """Whether any partition is being read."""
        return bool(self._next)

    def position(self, place: Place) -> int | None:
        """Return the offset that is read next, or None while the partition is not followed."""
        return self._next.get(place)

    def add(self, inbox: Inbox) -> None:
        """Begin to read for a job. Several may read the same one, each at its own pace."""
        key = inbox.job.encode()
        beside = self._inboxes.setdefault(inbox.place, {})
        beside[key] = (*beside.get(key, ()), inbox)
        self._read_from(inbox)

    def remove(self, inbox: Inbox) -> None:
        """Stop reading for a job; harmless if it has stopped."""
        if self._forget(inbox):
            self._rest(inbox.place)

    def seek(self, inbox: Inbox, goal: int) -> None:
        """Have an inbox told, by `reached`, when all below offset `goal` has been offered to it."""
        at = max(inbox.position, self._next.get(inbox.place, 0))
        inbox.goal = goal
        if at >= goal and not inbox.stalled:
            inbox.reached()
        else:
            self._seeking.add(inbox)

    def arrived(self, position: Callable[[Place], int | None]) -> None:
        """Look who has come to its goal; `position` tells up to where all has been delivered.

        It may be further than the last record: not every offset has one.
        """
        for inbox in [*self._seeking]:
            at, goal = position(inbox.place), inbox.goal
            if goal is None or (at is not None and at >= goal and not inbox.stalled):
                self._seeking.discard(inbox)
                inbox.reached()

    def deliver(self, records: Iterable[Fetched]) -> None:
        """Hand over what one poll returned; call it before anything else can move the reader."""
        redirected = []
        for record in records:
            place, offset = record.place, record.offset
            if offset < self._next.get(place, offset + 1):
                continue
            self._next[place] = offset + 1
            for inbox in self._inboxes[place].get(record.key or b"", ()):
                inbox.offer(record)
                if inbox.stream.finished or inbox.failure is not None:
                    self.remove(inbox)
                elif inbox.stalled:
                    self._rest(place)
                    if inbox.redirected and inbox not in redirected:
                        redirected.append(inbox)
        for inbox in redirected:  # only now: what is left of this poll lies ahead of them
            inbox.stalled = inbox.redirected = False
            self._read_from(inbox)

    def taken(self, inbox: Inbox) -> None:
        """Note that a caller took an event: a stalled inbox may have room again."""
        if (
            inbox.stalled and inbox.roomy and inbox.failure is None
        ):  # who has failed is not read for
            inbox.stalled = False
            self._read_from(inbox)

    def trim(self, place: Place, start: int, end: int) -> None:
        """Fail the jobs whose next record is not in the log, read on for the others."""
        self._next.pop(place, None)
        for inbox in self._at(place):
            if not start <= inbox.position <= end:
                text = f"replies to job {inbox.job} from offset {inbox.position} are gone"
                self._drop(inbox, StreamLost(f"{text} (the log holds {start} to {end})"))
            elif not inbox.stalled:
                self._read_from(inbox)
        self._rest(place)

    def fail(self, place: Place, error: Callable[[], Exception]) -> None:
        """Fail every job of a partition, each with an exception of its own."""
        for inbox in self._at(place):
            self._drop(inbox, error())
        self._rest(place)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Fail every job, each with an exception of its own."""
        for place in [*self._inboxes]:
            self.fail(place, error)

    def _at(self, place: Place) -> list[Inbox]:
        return [inbox for readers in self._inboxes.get(place, {}).values() for inbox in readers]

    def _forget(self, inbox: Inbox) -> bool:
        self._seeking.discard(inbox)
        beside, key = self._inboxes.get(inbox.place, {}), inbox.job.encode()
        readers = beside.get(key, ())
        left = tuple(each for each in readers if each is not inbox)
        if left:
            beside[key] = left
        else:
            beside.pop(key, None)
        return len(left) < len(readers)

    def _drop(self, inbox: Inbox, error: Exception) -> None:
        self._forget(inbox)
        inbox.fail(error)

    def _read_from(self, inbox: Inbox) -> None:
        at = self._next.get(inbox.place)
        if at is None or inbox.position < at:
            self._next[inbox.place] = inbox.position
            self._follow(inbox.place, inbox.position)

    def _rest(self, place: Place) -> None:
        """Read a partition no more if no inbox of it takes anything."""
        beside = self._inboxes.get(place, {})
        if not beside:
            self._inboxes.pop(place, None)
        if all(inbox.stalled for inbox in self._at(place)):
            self._next.pop(place, None)
            self._unfollow(place)
