"""What a job's writer appends next: a pure buffer between the engine's steps and the log.

One stream has at most one batch of records under way. What the engine brings meanwhile is put
together: one tokens record holds all that came since, so a slow broker costs latency, never
memory for records, and no record follows one whose fate is unknown.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import TokensRecord, encode_reply
from aril.schemas.limits import MAX_TOKENS_PER_RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.schemas import DoneRecord, Epoch, ErrorRecord, TokenLogprobs

    Terminal = DoneRecord | ErrorRecord


class _Step(NamedTuple):
    """What one step of the engine brought."""

    ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprobs, ...]


class ReplyStream:
    """The records of one job under one epoch, in order."""

    __slots__ = (
        "_steps",
        "_terminal",
        "base_digest",
        "claimed",
        "ended",
        "epoch",
        "form",
        "job",
        "sent",
        "worker",
        "written",
    )

    def __init__(
        self,
        *,
        job: str,
        epoch: Epoch,
        worker: str,
        base_digest: str | None = None,
        form: Callable[[bytes], bytes] = lambda record: record,
    ) -> None:
        """Prepare; ``form`` is what the records are written in, told of each in msgpack.

        ``base_digest``, of the backbone that answers, goes into the first record: a claim has it.
        """
        self.job = job
        self.epoch = epoch
        self.worker = worker
        self.base_digest = base_digest
        self.form = form
        self.sent = 0  # tokens in records that were taken
        self.written = 0  # tokens in records that were acknowledged; kept by the writer
        self.claimed = False  # a claim of this epoch stands in the log
        self.ended = False  # the terminal was taken
        self._steps: deque[_Step] = deque()
        self._terminal: Callable[[int, str], Terminal] | None = None

    def begin(self, epoch: Epoch, visible: int, *, claimed: bool) -> None:
        """Go on under `epoch` behind tokens that are visible already; nothing was taken yet."""
        if self.sent or self.ended:
            raise ValueError(f"job {self.job}: its stream has begun under {self.epoch}")
        self.epoch, self.claimed = epoch, claimed
        self.sent = self.written = visible

    @property
    def in_log(self) -> bool:
        """Whether a record of this epoch stands in the log, or may."""
        return self.claimed or self.sent > 0 or self.ended

    @property
    def count(self) -> int:
        """Tokens of the answer so far, written or waiting."""
        return self.sent + sum(len(step.ids) for step in self._steps)

    @property
    def closing(self) -> bool:
        """Whether the terminal is known; nothing can be added behind it."""
        return self._terminal is not None

    def add(
        self, ids: Sequence[int], text: str, logprobs: Sequence[TokenLogprobs] | None = None
    ) -> None:
        """Add what a step brought; ``logprobs`` has one entry an id."""
        if self.closing:
            raise ValueError(f"job {self.job}: a token after the terminal")
        self._steps.append(_Step(tuple(ids), text, tuple(logprobs or ())))

    def close(self, terminal: Callable[[int, str], Terminal]) -> None:
        """End the answer. ``terminal`` makes the record from the token count and unsent text."""
        if self.closing:
            raise ValueError(f"job {self.job}: a second terminal")
        self._terminal = terminal

    def take(self) -> list[bytes]:
        """Return the records to append now, in order; empty when there is nothing to say."""
        records = []
        while any(step.ids for step in self._steps):
            records.append(self._take_tokens())
        if self._terminal is not None and not self.ended:
            self.ended = True
            rest = "".join(step.text for step in self._steps)
            self._steps.clear()
            records.append(self.form(encode_reply(self._terminal(self.sent, rest))))
        return records

    def _take_tokens(self) -> bytes:
        """Join whole steps: the text of a record is what its own tokens made safe."""
        joined = [self._steps.popleft()]
        size = len(joined[0].ids)
        while self._steps and size + len(self._steps[0].ids) <= MAX_TOKENS_PER_RECORD:
            joined.append(self._steps.popleft())
            size += len(joined[-1].ids)
        record = TokensRecord(
            job=self.job,
            epoch=self.epoch,
            worker=self.worker,
            index=self.sent,
            ids=tuple(token for step in joined for token in step.ids),
            text="".join(step.text for step in joined),
            logprobs=tuple(row for step in joined for row in step.logprobs) or None,
            base_digest=None if self.sent or self.claimed else self.base_digest,
        )
        self.sent += size
        return self.form(encode_reply(record))
