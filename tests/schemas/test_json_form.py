"""Records in JSON mean what they mean in msgpack, within the same bounds."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from aril.schemas import (
    Cancel,
    DecodeError,
    Job,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    limits,
    question_of,
)
from aril.schemas.json_form import is_json, to_json
from tests.support.records import REPLIES, REQUESTS

if TYPE_CHECKING:
    from aril.schemas.reply import ReplyRecord


@given(REQUESTS)
def test_a_request_is_the_same_in_both_forms(request_: Job | Cancel) -> None:
    """Also what tells whether it was sent before: a job may be sent again in the other form."""
    text = to_json(encode_request(request_))
    read = decode_request(text)
    assert is_json(text)
    assert read == request_
    if isinstance(request_, Job) and isinstance(read, Job):
        assert question_of(read) == question_of(request_)


@given(REPLIES)
def test_a_reply_is_the_same_in_both_forms(record: ReplyRecord) -> None:
    """What a worker writes of its own records, every reader here reads."""
    assert decode_reply(to_json(encode_reply(record))) == record


@pytest.mark.parametrize(
    "data", [None, b"", b"\x81\xa1v\x01", b"[1]", b" ", b'"{', b" " * 65 + b"{"]
)
def test_what_does_not_begin_as_a_map_is_no_json(data: bytes | None) -> None:
    """Blanks may stand before it, but not for ever."""
    assert not is_json(data)


HEAD = '{"v":1,"kind":"job","id":"j","tenant":"t","prompt":"p"'
ROOM = limits.MAX_REQUEST_BYTES - 200


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("too_many_parts", '"",' * (ROOM // 3)),
        ("too_many_containers", "[]," * (ROOM // 3)),
        ("too_many_containers", "{}," * (ROOM // 3)),
        ("too_many_elements", "0," * (ROOM // 2)),
        ("too_many_containers", "[" * ROOM),
        ("not_json", "9" * ROOM),
        ("not_json", '"' + "x" * (ROOM - 20)),
    ],
)
def test_a_full_record_of_anything_is_refused_in_little_memory(reason: str, text: str) -> None:
    """A megabyte of what costs most is looked at before objects are made of it."""
    data = f'{HEAD},"later":[{text}'.encode()
    tracemalloc.start()
    with pytest.raises(DecodeError) as caught:
        decode_request(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == reason
    assert peak < 4 * limits.MAX_REQUEST_BYTES


def test_a_long_prompt_of_tokens_passes() -> None:
    """The longest that msgpack may have, and a text as long as JSON has room for."""
    ids = [0] * limits.MAX_PROMPT_TOKENS
    job = {"v": 1, "kind": "job", "id": "j", "tenant": "t", "token_ids": ids}
    read = decode_request(json.dumps(job).encode())
    assert isinstance(read, Job)
    assert read.token_ids == tuple(ids)


FREE: dict[str, dict[str, Any]] = {
    "tools": {"tools": [{"limit": 0}]},
    "chat_template_kwargs": {"chat_template_kwargs": {"limit": 0}},
    "tool_calls": {"messages": [{"role": "assistant", "tool_calls": [{"limit": 0}]}]},
    "schema": {"sampling": {"response_format": {"type": "json_schema", "json_schema": {
        "schema": {"maximum": 0}}}}},
}  # fmt: skip


@pytest.mark.parametrize("field", FREE)
@pytest.mark.parametrize(("number", "fits"), [(2**64 - 1, True), (-(2**63), True), (2**64, False)])
def test_numbers_that_msgpack_lacks_are_refused(field: str, number: int, *, fits: bool) -> None:
    """JSON has integers of any length: wherever a job may say what it likes, not past 64 bits."""
    job: dict[str, Any] = {"v": 1, "kind": "job", "id": "j", "tenant": "t"}
    job |= {"messages": [{"role": "user", "content": "Hi"}]} | FREE[field]
    data = json.dumps(job).replace(": 0}", f": {number}}}").encode()
    if fits:
        read = decode_request(data)
        assert isinstance(read, Job)
        assert decode_request(encode_request(read)) == read
        assert question_of(read)
        return
    with pytest.raises(DecodeError, match="more than 64 bits") as refused:
        decode_request(data)
    assert (refused.value.reason, refused.value.tenant) == ("no_json", "t")
