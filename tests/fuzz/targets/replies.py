"""Replies: what a client, and a worker that takes a job over, read from a reply topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgpack

from aril.router import Inbox
from aril.schemas import (
    Activation,
    DecodeError,
    DoneRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    MixedAdapter,
    ReplyRecord,
    Timings,
    TokenLogprobs,
    TokensRecord,
    Usage,
    VisibleStream,
    decode_redirect,
    decode_reply,
    encode_redirect,
    encode_reply,
    limits,
)
from aril.schemas.reply import ClaimRecord, ReleaseRecord
from aril.transport import Fetched, Place
from tests.fuzz.mutate import bend, bend_tree, chance, pick, tree
from tests.fuzz.target import ACCEPTED, Target, holds, slug

if TYPE_CHECKING:
    from random import Random

_EPOCHS: Final = (Epoch(0, 1), Epoch(3, 1), Epoch(3, 2), Epoch(2**53 - 1, 2**53 - 1))
_WORKERS: Final = ("w1", "w2", "h" * 128)


def _record(rng: Random) -> ReplyRecord:
    kind = rng.random()
    head: dict[str, Any] = {"job": "j", "epoch": pick(rng, _EPOCHS), "worker": pick(rng, _WORKERS)}
    index = pick(rng, (0, 0, 1, 2, limits.MAX_INDEX))
    if kind < 0.1:
        return ClaimRecord(**head, alone=chance(rng, 0.5))
    if kind < 0.15:
        return ReleaseRecord(**head)
    if kind < 0.65:
        ids = tuple(int(rng.random() * 50_000) for _ in range(pick(rng, (1, 1, 2, 9))))
        row = TokenLogprobs(-0.5, ((7, -0.5), (9, -3.0)))
        rows = tuple(row for _ in ids) if chance(rng, 0.3) else None
        return TokensRecord(**head, index=index, ids=ids, text="né\n" * len(ids), logprobs=rows)
    if kind < 0.8:
        return ErrorRecord(
            **head,
            index=index,
            code=pick(rng, tuple(ErrorCode)),
            message="adapter: no such adapter",
            retryable=chance(rng, 0.5),
            limit=pick(rng, (None, 1, 2.5)),
            given=pick(rng, (None, 3, 1e300, "text")),
            metadata=pick(rng, ({}, {"a": "b"})),
        )
    return DoneRecord(
        **head,
        index=index,
        text="!",
        finish_reason=pick(rng, ("stop", "length")),
        usage=Usage(3, index),
        adapter=pick(rng, (None, "helpdesk")),
        digest=pick(rng, (None, "0f" * 32)),
        activation=pick(rng, (None, Activation(None), Activation(7))),
        adapters=pick(rng, ((), (MixedAdapter("a", "0f" * 32, -0.5),) * 4)),
        base="smollm2",
        base_digest=pick(rng, (None, "0f" * 32)),
        seed=pick(rng, (0, limits.MAX_SEED)),
        timings=Timings(0.5, 12.25, 1e9),
        prompt_logprobs=pick(rng, (None, (None,), (None, TokenLogprobs(-0.5, ((7, -0.5),))))),
        metadata={"trace": "1"},
    )


_PLACE = Place("replies.acme", 0)


def _make(rng: Random) -> bytes:
    kind = rng.random()
    if kind < 0.02:
        return bytes(msgpack.packb(tree(rng)))
    if chance(rng, 0.05):
        data = encode_redirect("j", pick(rng, (0, 17, limits.MAX_OFFSET)))
    else:
        data = encode_reply(_record(rng))
    if 0.15 < kind < 0.65:
        data = msgpack.packb(bend_tree(rng, msgpack.unpackb(data)))
    return bend(rng, data) if kind > 0.6 else data


def _check(data: bytes) -> str:
    inbox = Inbox("j", place=_PLACE, position=20, limit=4)
    inbox.offer(Fetched(_PLACE, 20, b"j", data))
    start = decode_redirect(data, "j")
    holds(start is None or 0 <= start <= limits.MAX_OFFSET, "a redirect leads to an offset")
    try:
        record = decode_reply(data)
    except DecodeError as error:
        holds(inbox.failure is not None, "a client is told of what it cannot read")
        return slug(error.reason)
    holds(inbox.failure is None, "a client reads what can be read")
    if record is None:
        return "unknown_kind"
    holds(decode_reply(encode_reply(record)) == record, "it comes back as it was")
    stream = VisibleStream()
    events = stream.feed(record)
    holds(inbox.stream.snapshot() == stream.snapshot(), "a client sees what the rule says")
    holds(inbox.waiting == len(events) <= 1, "one record is one event at most")
    before = stream.snapshot()
    if not stream.finished and stream.count:
        holds(stream.feed(record) == (), "a record that comes twice counts once")
        holds(stream.snapshot() == before, "and changes nothing")
    return f"{ACCEPTED} {type(record).__name__.removesuffix('Record').lower()}"


TARGET: Final = Target(
    name="replies",
    about="reply records: aril.schemas.decode_reply, decode_redirect, the client's inbox",
    share=1_500,
    make=_make,
    check=_check,
    factor=64,
)
