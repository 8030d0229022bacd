"""Replies: what goes in comes out, and no worker can send what no reader accepts."""

import math
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given

from aril.schemas import (
    ClaimRecord,
    DoneRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    JobError,
    ReplyRecord,
    Timings,
    TokenLogprobs,
    TokensRecord,
    Usage,
    decode_reply,
    encode_reply,
    limits,
)
from aril.schemas.json_form import to_json
from tests.support.records import REPLIES

TOKENS = TokensRecord(job="j", epoch=Epoch(1, 1), worker="w", index=0, ids=(1,), text="a")
DONE = DoneRecord(
    job="j",
    epoch=Epoch(1, 1),
    worker="w",
    index=1,
    text="",
    finish_reason="stop",
    usage=Usage(1, 1),
    adapter=None,
    digest=None,
    base="base",
    seed=0,
    timings=Timings(0.0, 0.0, 0.0),
)


@given(REPLIES)
def test_round_trip(record: ReplyRecord) -> None:
    """Every valid record is the same after encoding and decoding."""
    assert decode_reply(encode_reply(record)) == record


@given(REPLIES)
def test_records_are_values(record: ReplyRecord) -> None:
    """Records can be hashed, and records of different kinds are never equal."""
    assert hash(record) == hash(replace(record))
    claim = ClaimRecord(job=record.job, epoch=record.epoch, worker=record.worker)
    if isinstance(record, ClaimRecord):
        claim = replace(claim, base_digest=record.base_digest)
    assert (record == claim) == isinstance(record, ClaimRecord)


@pytest.mark.parametrize(
    "bad",
    [
        replace(TOKENS, ids=()),
        replace(TOKENS, ids=(0,) * (limits.MAX_TOKENS_PER_RECORD + 1)),
        replace(TOKENS, text="x" * (limits.MAX_REPLY_TEXT_CHARS + 1)),
        replace(TOKENS, text="\ud800"),
        replace(TOKENS, logprobs=()),
        replace(TOKENS, logprobs=(TokenLogprobs(-math.inf),)),
        replace(TOKENS, logprobs=(TokenLogprobs(0.0, ((1, math.nan),)),)),
        replace(DONE, text="x" * (limits.MAX_REPLY_TEXT_CHARS + 1)),
        replace(DONE, epoch=Epoch(1, 0)),
        replace(DONE, worker=""),
        replace(DONE, timings=Timings(0.0, -1.0, 0.0)),
        replace(DONE, metadata={str(n): "" for n in range(17)}),
        replace(DONE, prompt_logprobs=()),
        replace(DONE, prompt_logprobs=(TokenLogprobs(-1.0),)),
        replace(DONE, prompt_logprobs=(None, None)),
        replace(DONE, prompt_logprobs=(None, TokenLogprobs(-1.0), TokenLogprobs(0.0, ((1, 0.0),)))),
        replace(DONE, prompt_logprobs=(None, TokenLogprobs(-math.inf))),
        replace(DONE, prompt_logprobs=(None, *[TokenLogprobs(-1.0)] * 32_769)),
        ClaimRecord(job="a/b", epoch=Epoch(1, 1), worker="w"),
    ],
)
def test_unacceptable_records_are_not_sent(bad: ReplyRecord) -> None:
    """A record that readers would drop is refused where it is made."""
    with pytest.raises(ValueError):  # noqa: PT011 - a surrogate is refused by UTF-8 itself
        encode_reply(bad)


def test_largest_tokens_record_fits() -> None:
    """All bounds of a tokens record reached at once stay below the bound on its bytes."""
    row = TokenLogprobs(-0.1, ((limits.MAX_TOKEN_ID, -0.1),) * limits.MAX_LOGPROBS)
    count = limits.MAX_TOKENS_PER_RECORD
    largest = replace(
        TOKENS,
        job="j" * limits.MAX_JOB_ID_CHARS,
        worker="w" * limits.MAX_WORKER_CHARS,
        epoch=Epoch(limits.MAX_EPOCH_PART, limits.MAX_EPOCH_PART),
        index=limits.MAX_INDEX,
        ids=(limits.MAX_TOKEN_ID,) * count,
        text="x" * limits.MAX_REPLY_TEXT_CHARS,
        logprobs=(row,) * count,
    )
    data = encode_reply(largest)
    assert len(data) < limits.MAX_REPLY_BYTES
    assert decode_reply(data) == largest


@pytest.mark.parametrize("top", [0, 1, 20])
def test_the_longest_prompt_fits_into_a_terminal(top: int) -> None:
    """In both forms, beside metadata of the largest size and text that was held back."""
    value = -0.10000000149011612  # a float32, with as many digits as they have
    row = TokenLogprobs(value, ((limits.MAX_TOKEN_ID, value),) * top)
    count = limits.MAX_PROMPT_LOGPROB_NUMBERS // (1 + 2 * top)
    largest = replace(
        DONE,
        text="\u4e16" * 4_096,
        metadata={
            "é" * 62 + f"{at:02}": "世" * limits.MAX_METADATA_VALUE_CHARS for at in range(16)
        },
        prompt_logprobs=(None, *[row] * count),
    )
    data = encode_reply(largest)
    assert len(data) < limits.MAX_REPLY_BYTES
    assert len(to_json(data)) < limits.MAX_REPLY_BYTES
    assert decode_reply(data) == decode_reply(to_json(data)) == largest


def test_plain_token_is_small() -> None:
    """The record that is sent per token stays near a hundred bytes."""
    record = replace(TOKENS, job="x" * 36, worker="worker-0:17", ids=(31_000,), text=" seed")
    assert len(encode_reply(record)) < 130


def test_unknown_kind_is_skipped() -> None:
    """Kinds of later versions do not disturb a reader of version 1."""
    assert decode_reply(msgpack.packb({"v": 1, "kind": "progress"})) is None


@pytest.mark.parametrize("code", ErrorCode)
def test_any_job_error_can_be_told(code: ErrorCode) -> None:
    """Whatever a JobError holds makes a record that readers accept."""
    head: dict[str, Any] = {"job": "j", "epoch": Epoch(1, 1), "worker": "w", "index": 0}
    for limit, given_value in (
        (1, "x" * 1_000),
        (math.inf, math.nan),
        (None, None),
        (0.5, 2**63),
        (-(10**400), 2**64),
    ):
        error = JobError(code, "m" * 1_000, limit=limit, given=given_value)
        record = ErrorRecord.of(error, **head)
        assert decode_reply(encode_reply(record)) == record
        assert record.retryable is code.retryable
        assert len(record.message) == limits.MAX_ERROR_MESSAGE_CHARS
