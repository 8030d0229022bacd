"""A job on its way through the worker: where it came from, who writes its answer, how far it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import question_of
from aril.schemas.json_form import is_json, to_json
from aril.schemas.limits import HEADER_BYTES, MAX_HEADERS_BYTES, MAX_KEY_BYTES, MAX_SEED
from aril.worker.stages import ENDING, Life, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.schemas import Activation, Epoch, FinishReason, Job, JobError, PromptLogprobs
    from aril.worker.adapters import AdapterWeights
    from aril.worker.constraints.compiler import CompiledConstraint
    from aril.worker.engine.mixture import Mixture
    from aril.worker.observe.traces.identity import Owner

# Characters of prompt that one token is taken to stand for before it was tokenised: only the
# order in which tenants are served leans on it.
CHARS_PER_TOKEN = 4

# The answer that is expected, in tokens, where nothing is known of it.
UNTOLD_ANSWER = 256

# Why a record is put aside whose tenant could be told nothing: its job may be sent again.
UNROUTABLE = "missing_reply_topic"
UNWRITABLE = "reply_unwritable"

# Memory of a waiting job beside its bytes on the wire, and of those bytes once they are objects.
ENTRY_BYTES = 3_000
DECODED_FACTOR = 2
# A header's objects in memory, beside its bytes: a tuple, a string, bytes.
HEADER_OBJECTS_BYTES = 150


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Prompt(NamedTuple):
    """What a job's prompt comes to."""

    ids: tuple[int, ...]
    answer_tokens: int  # the most that there may be


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read: all that the dead letters keep of it."""

    source: Partition
    offset: int
    timestamp_ms: int  # log-append time, milliseconds since the epoch
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    left_out: int = 0  # bytes of key and headers that are not kept

    @property
    def headers_bytes(self) -> int:
        """What the headers count of their limit, `aril.schemas.limits.MAX_HEADERS_BYTES`."""
        size = sum(len(name) + len(value or b"") for name, value in self.headers)
        return size + HEADER_BYTES * len(self.headers)

    @property
    def size(self) -> int:
        """Bytes that it is taken to hold in memory, while it is also there as a job."""
        objects = ENTRY_BYTES + HEADER_OBJECTS_BYTES * len(self.headers)
        plain = len(self.key or b"") + self.headers_bytes
        return objects + plain + DECODED_FACTOR * len(self.value or b"")

    def in_its_form(self, reply: bytes) -> bytes:
        """Return a reply to it as it is written itself: in JSON for JSON."""
        return to_json(reply) if is_json(self.value) else reply

    def lean(self) -> Record:
        """Leave out headers that are too many, and the end of a key that is too long.

        No job with such has a use for them, and they need not lie in memory until that is told.
        """
        key, headers = self.key, self.headers
        over = max(0, len(key or b"") - MAX_KEY_BYTES)
        cut = self.headers_bytes
        if cut > MAX_HEADERS_BYTES:
            headers = ()
        else:
            cut = 0
        if not (over or cut):
            return self
        key = key and key[:MAX_KEY_BYTES]
        return replace(self, key=key, headers=headers, left_out=over + cut)


class Asked(NamedTuple):
    """What is known of the first job with an identity when another comes."""

    digest: bytes
    reply_from: int | None
    reply_partition: int | None
    unanswered: Epoch | None = None  # its last epoch, if no end of its answer could be written


@dataclass(slots=True, eq=False, kw_only=True)
class Entry:
    """One job of one assignment. Mutable; owned by the event loop."""

    key: int  # unique in this process; names the job in the engine
    record: Record
    tenant: str
    job_id: str
    job: Job | None  # None: the record was refused, only its error is still to be written
    digest: bytes  # of what it asks: an equal one under its id is the same job sent twice
    generation: int  # the group's, in which its partition was won
    epoch: Epoch  # the rank under which its answer is written
    owned: bool  # ours to write: fresh (appended after the assignment began), or taken over
    deadline_ms: float  # when it is too late to answer, milliseconds since the epoch
    reply_topic: str
    wanted_partition: int | None
    reply_from: int | None = None  # where its client began to read, as that says
    reply_partition: int = -1
    length: int = 0  # of its record's value, in bytes
    shelved: bool = False  # what it says was let go of, `aril.worker.batching.shelf`
    life: Life = field(default_factory=Life)
    kept: bool = False  # it goes on across a rebalance; its record was not delivered again yet
    begun_before: bool = False  # an earlier owner had begun it, as that said, or we in vain
    touched: bool = False  # something of it may be in its reply log, or on its way there
    claimed: bool = False  # a claim of its epoch stands in the log
    finish: FinishReason | None = None  # how its answer ended, once it is complete
    prompt_logprobs: PromptLogprobs | None = None  # with its end, if it asked for them
    error: JobError | None = None  # what it ends with, once that is known
    dead_letter: str | None = None  # reason to put the record aside once the tenant was told
    begun: bool = False  # it was counted as begun: `aril.worker.accounting`
    first_token_told: bool = False  # same, of its first token
    told_tokens: int = 0  # of its answer, where its terminal stands
    submitted_ms: float = 0.0
    first_token_ms: float = 0.0
    last_token_ms: float = 0.0
    prompt_ids: tuple[int, ...] = ()
    answer_tokens: int = 0  # the most that the answer may have, once the prompt is known
    seed: int = 0
    adapter: AdapterWeights | Mixture | None = None
    digests: tuple[str, ...] = ()  # of its adapters, in the job's order
    activation: Activation | None = None  # of an adapter with an invocation: where it works
    constraint: CompiledConstraint | None = None
    # Tokens that were visible when it was taken over, and that it had brought when it gave way.
    resume_ids: tuple[int, ...] = ()
    inherited: int = 0  # how many of these were visible when it was taken over
    brought: list[int] = field(default_factory=list)  # tokens, since it was last submitted
    gathered: float = 0.0  # when it first came into the window, on the event loop's clock
    counted: int = 0  # bytes that count as its tenant's waiting ones
    charged: float = 0.0  # what its tenant's counter was charged for it
    charge: float = 0.0  # the same, over the tenant's weight as it was then
    spent: float = 0.0  # what it has cost, in the same prices
    taken_from: Owner | None = None  # whose answer was visible, or begun, when it was taken over
    claimed_at: int | None = None  # where our claim stands in its reply log
    earlier_bases: tuple[str, ...] = ()  # digests of other backbones, which brought those tokens
    strikes: int = 0  # writers that ended without a word, `aril.worker.takeover.rule`
    strikes_alone: int = 0
    alone: bool = False  # it runs with nothing beside it
    delays: int = 0  # how often it gave the engine back, since what it needs took a while
    kept_waiting: int = 0  # how often its log did not answer when it was to
    settled_with: list[int] = field(default_factory=list)  # offsets finished when this one is

    @property
    def stage(self) -> Stage:
        """How far it is."""
        return self.life.stage

    @property
    def ending(self) -> bool:
        """Whether it is known how it ends."""
        return self.life.stage in ENDING

    @property
    def dropped(self) -> bool:
        """Whether its assignment ended: nothing of it may be written or committed."""
        return self.life.stage is Stage.DROPPED

    @property
    def settled(self) -> bool:
        """Whether it was answered; its offset is not finished while it is kept."""
        return self.life.stage is Stage.SETTLED

    @property
    def over(self) -> bool:
        """Whether nothing can come of it any more here."""
        return self.settled or self.dropped

    @property
    def under_way(self) -> bool:
        """Whether it was begun, here or before."""
        return self.begun_before or self.submitted_ms > 0

    @property
    def asked(self) -> Asked:
        """What is remembered of it once it is finished."""
        untold = self.dead_letter in {UNROUTABLE, UNWRITABLE}
        unanswered = self.epoch if untold else None
        return Asked(self.digest, self.reply_from, self.wanted_partition, unanswered)

    @property
    def source(self) -> Partition:
        """The partition it came from."""
        return self.record.source

    @property
    def reply_log(self) -> Partition:
        """Where its answer stands, once that is known."""
        return Partition(self.reply_topic, self.reply_partition)

    @property
    def size(self) -> int:
        """Bytes that it is taken to hold in memory."""
        return self.record.size

    @property
    def whole_size(self) -> int:
        """Bytes that it holds once it is whole."""
        kept = len(self.record.value or b"")
        return self.size + DECODED_FACTOR * (self.length - kept)

    @property
    def priority(self) -> int:
        """Higher goes first among the tenant's own."""
        return self.job.priority if self.job else 0

    @property
    def answered(self) -> int:
        """Tokens of the answer that are known here."""
        return len(self.resume_ids) + len(self.brought)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt, as far as it can be told before tokenising."""
        return self.length // CHARS_PER_TOKEN

    @property
    def most_tokens(self) -> int:
        """Tokens that its answer has at most, as far as the job says."""
        return self.job.sampling.longest if self.job else 0

    @property
    def cost(self) -> int:
        """Work that it asks for, in tokens, as far as it can be told before tokenising."""
        told = self.job.sampling.max_tokens if self.job else 0
        return self.prompt_tokens + (UNTOLD_ANSWER if told is None else told)


def digest_of(value: bytes | None, job: Job | None = None) -> bytes:
    """Return what tells two records apart: 16 bytes are plenty among one tenant's equal ids.

    Of a job it is what is asked, of a record that is none its very bytes.
    """
    if job is not None:
        return hashlib.blake2b(question_of(job), digest_size=16, person=b"question").digest()
    return hashlib.blake2b(value or b"", digest_size=16).digest()


def seed_of(entry: Entry) -> int:
    """Return the seed of a job's sampling, the same for every owner.

    A job that gives none gets one from its record: other jobs get others, and whoever takes the
    job over draws the very noise that its first owner would have drawn.
    """
    given = entry.job.sampling.seed if entry.job is not None else None
    if given is not None:
        return given
    source = entry.record.source
    place = f"{source.topic}/{source.partition}/{entry.record.offset}".encode()
    drawn = hashlib.blake2b(place + digest_of(entry.record.value), digest_size=8).digest()
    return int.from_bytes(drawn) & MAX_SEED
