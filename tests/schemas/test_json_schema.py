"""The committed JSON Schemas are current and judge records as the codec does."""

import copy
from typing import Any

import jsonschema
import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aril.schemas import DecodeError, decode_reply, decode_request, encode_reply, encode_request
from aril.schemas.json_schema import FOLDER, job_schema, reply_schema, schema_files
from tests.support.records import REPLIES, REQUESTS

JOBS = jsonschema.Draft202012Validator(job_schema())
REPLY = jsonschema.Draft202012Validator(reply_schema())

# Values at and around the bounds, of every JSON type. Whole floats are left out: JSON Schema takes
# 1.0 for an integer, msgpack does not.
EDGES = [
    None, True, False, 0, 1, -1, 2, 20, 21, 1.5, -0.5, 10.5, 100, 101, 256, 257, 2**31 - 1, 2**31,
    2**53 - 1, 2**53, 2**63 - 1, 2**63, "", "a", "shared", "shared@" + "0" * 64, "a@" + "0" * 64,
    "A", "a/b", "x" * 63, "x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 256, "x" * 257, "x" * 513,
    "user", "stop", "overloaded", [], [1], [1, 1], [0, 0], [""], ["x"] * 16, ["x"] * 17,
    [0] * 64, [0] * 65, [[-0.5]], [[-0.5, 1, -0.5]], [[1.5] * 43], {}, {"a": "b"}, {"a": 1},
    {"a": "x" * 513}, {"x" * 65: ""}, {str(n): "" for n in range(17)}, [{"role": "user"}],
    [{"role": "user", "content": ""}], [{"role": "boss", "content": ""}],
]  # fmt: skip


def test_files_are_current() -> None:
    """`python -m aril.schemas.json_schema` would change nothing."""
    files = {path: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert files == schema_files()


@pytest.mark.parametrize("schema", [job_schema(), reply_schema()])
def test_schemas_are_schemas(schema: dict[str, Any]) -> None:
    """Both are valid by their own dialect."""
    jsonschema.Draft202012Validator.check_schema(schema)


@given(REQUESTS)
def test_good_requests_pass(request_: Any) -> None:
    """Whatever the codec writes is valid by the schema."""
    JOBS.validate(msgpack.unpackb(encode_request(request_)))


@given(REPLIES)
def test_good_replies_pass(record: Any) -> None:
    """The same for replies."""
    REPLY.validate(msgpack.unpackb(encode_reply(record)))


def mutated(draw: st.DrawFn, fields: dict[str, Any]) -> dict[str, Any]:
    """Return `fields` with one place, at any depth, replaced, removed or added."""
    root = copy.deepcopy(fields)
    here: Any = root
    while True:
        names = sorted(here) if isinstance(here, dict) else list(range(len(here)))
        name = draw(st.sampled_from(names))
        if isinstance(here[name], dict | list) and here[name] and draw(st.booleans()):
            here = here[name]
            continue
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if action == "remove":
            del here[name]
        elif action == "add" and isinstance(here, dict):
            here["later"] = draw(st.sampled_from(EDGES))
        else:
            here[name] = draw(st.sampled_from(EDGES))
        return root


@st.composite
def bad_requests(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a request that is probably wrong in one place."""
    request = draw(REQUESTS)
    full = request.model_dump(mode="json", exclude_defaults=draw(st.booleans()))
    kind = "cancel" if len(full) == 2 else "job"
    return mutated(draw, {"v": 1, "kind": kind, **full})


@st.composite
def bad_replies(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a reply that is probably wrong in one place."""
    return mutated(draw, msgpack.unpackb(encode_reply(draw(REPLIES))))


def beyond_job_schema(fields: dict[str, Any]) -> bool:
    """Tell the two rules that the schema cannot: min_tokens ≤ max_tokens, and strict jobs."""
    if fields.get("strict") is True:
        return True
    sampling = fields.get("sampling")
    if not isinstance(sampling, dict):
        return False
    least, most = sampling.get("min_tokens"), sampling.get("max_tokens")
    return isinstance(least, int) and isinstance(most, int) and least > most


@given(bad_requests())
@example({"v": 1, "kind": "job", "id": "a", "tenant": "a", "prompt": "a", "tools": [{}]})
@example({"v": 1, "kind": "job", "id": "a", "tenant": "a", "messages": [{"role": "user"}]})
def test_requests_are_judged_alike(fields: dict[str, Any]) -> None:
    """Schema and codec agree on requests that are wrong in one place."""
    try:
        decode_request(msgpack.packb(fields))
    except DecodeError:
        assert not JOBS.is_valid(fields) or beyond_job_schema(fields)
    else:
        JOBS.validate(fields)


def beyond_reply_schema(fields: dict[str, Any]) -> bool:
    """Tell the rules that the schema cannot: rows per id, rows of odd length, a prompt's rows."""
    prompt = fields.get("prompt_logprobs")
    if isinstance(prompt, dict) and isinstance(prompt.get("numbers"), list):
        return True
    rows, ids = fields.get("logprobs"), fields.get("ids")
    if not isinstance(rows, list) or not isinstance(ids, list):
        return False
    return len(rows) != len(ids) or any(isinstance(row, list) and len(row) % 2 == 0 for row in rows)


@given(bad_replies())
def test_replies_are_judged_alike(fields: dict[str, Any]) -> None:
    """Schema and codec agree on replies that are wrong in one place, bar the rules it lacks."""
    try:
        record = decode_reply(msgpack.packb(fields))
    except DecodeError:
        assert not REPLY.is_valid(fields) or beyond_reply_schema(fields)
    else:
        assert REPLY.is_valid(fields) == (record is not None)
