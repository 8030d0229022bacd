"""A record of the dead-letter topic, as it is read: a letter, or the note that one was replayed.

What a letter's own headers say was written by a worker (`aril.worker.replies.dead_letters`). What
its value says is its sender's word: whose it names is only vouched for where a worker believed it.

A note has the key of its letter, and stands behind it in the same partition: a reader that keeps
the first of a key and drops the others, as all should, never meets it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from aril.schemas import Cancel, DecodeError, Job, decode_request, is_job_id, is_tenant
from aril.schemas.signature import SignatureError, SignatureFault, find_signature
from aril.worker.queue.raw_batch import BATCH, RECORD
from aril.worker.replies.dead_letters import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPLAYED: Final = "replayed"  # the reason that a note gives; no worker puts a record aside for it
REPLAYED_TO: Final = "aril-replayed-to"
REPLAYED_FROM: Final = "aril-replayed-from"
RAW: Final = frozenset({RECORD, BATCH})  # reasons of letters whose value is no record's
UNVOUCHED: Final = frozenset({*map(str, SignatureFault), "topic_without_tenant"})

Headers = tuple[tuple[str, bytes | None], ...]


class Place(NamedTuple):
    """Where a record stands: `str` is how it is written, in keys of letters as well."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` gives. Raises ValueError."""
        topic, partition, offset = text.rsplit("/", 2)
        if not (topic and _is_number(partition) and _is_number(offset)):
            raise ValueError("not topic/partition/offset")
        return cls(topic, int(partition), int(offset))


class Raw(NamedTuple):
    """A record of the dead-letter topic as Kafka gives it."""

    place: Place
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Asked(NamedTuple):
    """What a letter's value asks for, as far as that can be told."""

    kind: str | None = None  # job or cancel; None: it is neither, `why` says what is wrong
    why: str = ""
    tenant: str | None = None
    job_id: str | None = None
    reply_partition: int | None = None
    job: Job | None = None


class Note(NamedTuple):
    """A letter was replayed: which one, when, and where its record stands now."""

    letter: Identity
    at_ms: int
    to: str


class Identity(NamedTuple):
    """What tells letters apart: two of one place and time are one, appended twice.

    A place alone is not enough: a topic that was made anew counts from 0 again.
    """

    source: Place
    sent_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A record that was put aside. Times are milliseconds since the epoch."""

    place: Place  # of the letter itself
    put_aside_ms: int
    source: Place  # where its record stood
    sent_ms: int
    reason: str
    code: str
    message: str
    key: bytes | None  # of its record
    headers: Headers  # its sender's
    value: bytes | None  # None as well where it was let go of, `lean`
    size: int  # of the value that is kept, bytes
    cut_from: int | None  # what the value's length was, where only its beginning is kept
    left_out: int  # bytes of key and headers that are not kept
    asked: Asked

    @property
    def identity(self) -> Identity:
        """What it has in common with its repetitions and its notes."""
        return Identity(self.source, self.sent_ms)

    @property
    def vouched(self) -> bool:
        """Whether a worker believed that it is whose it says."""
        return self.reason not in UNVOUCHED

    @property
    def raw(self) -> bool:
        """Whether its value is a piece of the log and not a record's value."""
        return self.reason in RAW

    @property
    def signed_ms(self) -> int | None:
        """When it was signed, as it says; None if it carries no signature that can be read."""
        try:
            return find_signature(self.headers).signed_ms
        except SignatureError:
            return None

    def lean(self) -> Letter:
        """Let go of what may be large, and of the prompt above all."""
        return replace(self, value=None, asked=self.asked._replace(job=None))


def read(raw: Raw, *, jobs_topic: str) -> Letter | Note | None:
    """Return what a record is; None if it is nothing that a worker or `aril dlq` has written.

    `jobs_topic` is the setting: where tenants have topics of their own, these say whose a job is.
    """
    told = dict(raw.headers)
    try:
        source = Place(
            _text(told, "aril-topic"), _number(told, "partition"), _number(told, "offset")
        )
        sent_ms = _number(told, "timestamp")
        reason = _text(told, "aril-reason")
        if reason == REPLAYED:
            to = _text(told, REPLAYED_TO)
            return Note(Identity(source, sent_ms), raw.timestamp_ms, to)
        cut_from = _number(told, "cut") if "aril-cut" in told else None
        letter = Letter(
            place=raw.place,
            put_aside_ms=raw.timestamp_ms,
            source=source,
            sent_ms=sent_ms,
            reason=reason,
            code=_text(told, "aril-code"),
            message=_text(told, "aril-message"),
            key=told.get("aril-key"),
            headers=tuple(each for each in raw.headers if each[0] not in OURS),
            value=raw.value,
            size=len(raw.value or b""),
            cut_from=cut_from,
            left_out=_number(told, "left-out") if "aril-left-out" in told else 0,
            asked=Asked(),
        )
    except (KeyError, ValueError):
        return None
    return replace(letter, asked=_asked(letter, jobs_topic))


def _asked(letter: Letter, jobs_topic: str) -> Asked:
    """Read what the value asks; where it cannot be read, the key is its job's id as a rule."""
    if letter.raw:
        return Asked(why="the raw bytes of a batch that cannot be read")
    cut = letter.cut_from is not None
    asked = Asked(why="only its beginning is kept") if cut else _named(letter.value)
    key = None if letter.key is None else letter.key.decode(errors="replace")
    if asked.job_id is None and is_job_id(key):
        asked = asked._replace(job_id=key)
    owner = letter.source.topic.removeprefix(jobs_topic.removesuffix("*"))
    if jobs_topic.endswith("*") and owner != letter.source.topic and is_tenant(owner):
        asked = asked._replace(tenant=owner)
    return asked


def _named(value: bytes | None) -> Asked:
    try:
        request = decode_request(value or b"")
    except DecodeError as error:
        return Asked(None, str(error), error.tenant, error.job, error.reply_partition)
    if isinstance(request, Cancel):
        return Asked("cancel", "", request.tenant, request.id)
    return Asked("job", "", request.tenant, request.id, request.reply_partition, request)


def note_headers(letter: Letter, to: Place) -> Sequence[tuple[str, bytes]]:
    """Return what notes that a letter's record was appended again."""
    told = {
        "aril-reason": REPLAYED,
        "aril-topic": letter.source.topic,
        "aril-partition": str(letter.source.partition),
        "aril-offset": str(letter.source.offset),
        "aril-timestamp": str(letter.sent_ms),
        REPLAYED_TO: str(to),
    }
    return [(name, text.encode()) for name, text in told.items()]


def own_headers(letter: Letter) -> list[tuple[str, bytes | None]]:
    """Return the headers that its record gets when it is replayed: its own, and whence it comes."""
    theirs = [(name, value) for name, value in letter.headers if name != REPLAYED_FROM]
    return [*theirs, (REPLAYED_FROM, str(letter.place).encode())]


def _text(told: Mapping[str, bytes | None], name: str) -> str:
    value = told[name]
    if value is None:
        raise ValueError(name)
    return value.decode()


def _number(told: Mapping[str, bytes | None], name: str) -> int:
    return int(_text(told, f"aril-{name}"))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
