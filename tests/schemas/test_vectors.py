"""The committed vectors are current, and this package does what they say."""

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

import aril.schemas
from aril.schemas import (
    Cancel,
    DecodeError,
    DoneEvent,
    Event,
    Job,
    ResetEvent,
    TokensEvent,
    VisibleStream,
    decode_conflict,
    decode_redirect,
    decode_reply,
    decode_request,
    encode_reply,
    murmur2,
    reply_partition,
)
from aril.schemas.make_vectors.__main__ import vector_files

FOLDER = Path(aril.schemas.__file__).parent / "vectors"
Vector = dict[str, Any]


def load(name: str) -> list[Any]:
    """Return the vectors of a committed file as test parameters."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    vectors: list[Vector] = content["vectors"]
    return [pytest.param(vector, id=vector.get("name") or vector["meaning"]) for vector in vectors]


def bytes_of(vector: Vector) -> bytes:
    """Return the bytes of a vector: `hex`, then `repeat.hex` so many times."""
    repeat = vector.get("repeat", {"hex": "", "times": 0})
    return bytes.fromhex(vector["hex"]) + bytes.fromhex(repeat["hex"]) * repeat["times"]


def found(error: DecodeError, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what an error says about the things that a vector expects of it."""
    return {name: getattr(error, name) for name in asked}


def test_files_are_current() -> None:
    """`python -m aril.schemas.make_vectors` would change nothing."""
    assert {path: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == vector_files()


@pytest.mark.parametrize(
    "name", ["requests", "replies", "streams", "tokens", "resumes", "environments"]
)
def test_names_are_unique(name: str) -> None:
    """A vector can be spoken of by its name."""
    names = [parameter.id for parameter in load(name)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("vector", load("requests"))
def test_requests(vector: Vector) -> None:
    """Each request is accepted or refused as its vector says."""
    expect, data = vector["expect"], bytes_of(vector)
    if "error" in expect:
        with pytest.raises(DecodeError) as caught:
            decode_request(data)
        assert found(caught.value, expect["error"]) == expect["error"]
        return
    request = decode_request(data)
    kind = {Job: "job", Cancel: "cancel"}[type(request)]
    assert request.model_dump(mode="json", exclude_defaults=True) == expect[kind]


@pytest.mark.parametrize("vector", load("replies"))
def test_replies(vector: Vector) -> None:
    """Each reply is read, skipped or refused as its vector says."""
    expect, data = vector["expect"], bytes_of(vector)
    if "error" in expect:
        with pytest.raises(DecodeError) as caught:
            decode_reply(data)
        assert found(caught.value, expect["error"]) == expect["error"]
        return
    record = decode_reply(data)
    assert decode_redirect(data, "j1") == expect.get("redirect")
    conflict = decode_conflict(data, "j1")
    assert (None if conflict is None else conflict._asdict()) == expect.get("conflict")
    assert (record is None) == ("skipped" in expect)
    if record is not None:
        assert msgpack.unpackb(encode_reply(record)) == {"v": 1, **expect["record"]}


@pytest.mark.parametrize("vector", load("partitions"))
def test_partitions(vector: Vector) -> None:
    """Hash and partitions are the vector's."""
    data = bytes.fromhex(vector["hex"])
    assert data.decode() == vector["job"]
    assert murmur2(data) == vector["murmur2_signed"] % 2**32
    for count, partition in vector["partition_of"].items():
        assert reply_partition(vector["job"], int(count)) == partition


def described(event: Event) -> dict[str, Any]:
    """Return an event as the vectors write it."""
    if isinstance(event, TokensEvent):
        return {"tokens": {"index": event.index, "ids": list(event.ids), "text": event.text}}
    if isinstance(event, ResetEvent):
        return {"reset": {"withdrawn": event.withdrawn}}
    if isinstance(event, DoneEvent):
        return {"done": {"index": event.index, "text": event.text}}
    return {"error": {"index": event.index, "code": event.code.value}}


@pytest.mark.parametrize("vector", load("streams"))
def test_streams(vector: Vector) -> None:
    """Each log makes the events that its vector says, record by record, and the end state."""
    stream = VisibleStream()
    for step in vector["log"]:
        data = bytes.fromhex(step["hex"])
        assert msgpack.unpackb(data) == {"v": 1, **step["record"]}
        try:
            record = decode_reply(data)
        except DecodeError:
            record = None
        events = () if record is None else stream.feed(record)
        assert [described(event) for event in events] == step["events"]
    ends = {"DoneEvent": "done", "ErrorEvent": "error", "NoneType": None}
    assert vector["visible"] == {
        "epoch": list(stream.epoch),
        "writer": stream.writer,
        "token_ids": stream.token_ids,
        "text": stream.text,
        "terminal": ends[type(stream.terminal).__name__],
        "resets": stream.resets,
    }
