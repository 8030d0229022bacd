"""The form of an answer on the wire: one at most, bounded, the same in msgpack and JSON."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from aril.schemas import (
    DecodeError,
    Job,
    Sampling,
    decode_request,
    encode_request,
    limits,
    question_of,
)

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}, "required": ["b"]}


def form(**fields: Any) -> dict[str, Any]:
    """Return a response_format of a schema."""
    return {"response_format": {"type": "json_schema", "json_schema": fields}}


def record(sampling: dict[str, Any]) -> dict[str, Any]:
    """Return a job's fields."""
    return {"v": 1, "kind": "job", "id": "j", "tenant": "t", "prompt": "p", "sampling": sampling}


def decoded(sampling: dict[str, Any]) -> Sampling:
    """Read a job back from both forms; they are the same."""
    fields = record(sampling)
    job, same = (
        decode_request(data) for data in (msgpack.packb(fields), json.dumps(fields).encode())
    )
    assert job == same
    assert isinstance(job, Job)
    again = decode_request(encode_request(job))
    assert again == job
    return job.sampling


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        (form(schema=SCHEMA, name="n", strict=True), "json_schema", json.dumps(SCHEMA)),
        (form(schema=json.dumps(SCHEMA), description="d"), "json_schema", json.dumps(SCHEMA)),
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type":"object"}'),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["é", "b"]}, "choice", '["é", "b"]'),
        ({"grammar": 'start: "a"'}, "grammar", 'start: "a"'),
    ],
)
def test_each_has_one_form(fields: dict[str, Any], kind: str, text: str) -> None:
    """However it was asked for; properties keep their order, which is the answer's."""
    found = decoded(fields).constraint
    assert found is not None
    assert found.kind == kind
    if kind == "json_schema":
        assert list(json.loads(found.text).items()) == list(json.loads(text).items())
    else:
        assert found.text == text
    assert found.field == next(iter(fields))


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}])
def test_any_text_is_no_constraint(fields: dict[str, Any]) -> None:
    """Also beside one of the others."""
    assert decoded(fields).constraint is None
    held = decoded(fields | {"regex": "a"}).constraint
    assert held is not None
    assert held.kind == "regex"


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"regex": "a", "choice": ["a"]}, "one_constraint", "at most one of"),
        (form(schema=[1]), "schema_type", "sampling.response_format.json_schema.schema: must be"),
        (form(name="n"), "missing", "sampling.response_format.json_schema.schema: is required"),
        (form(schema={"enum": [b"x"]}), "no_json", "JSON has no word for"),
        (form(schema=SCHEMA) | {"regex": "a"}, "one_constraint", "at most one of"),
        ({"response_format": {"type": "json_object", "json_schema": {"schema": {}}}},
         "schema_and_type", "goes with type json_schema"),
        ({"choice": [""]}, "string_too_short", "sampling.choice[0]: at least 1"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_told_by_its_field(fields: dict[str, Any], reason: str, words: str) -> None:
    """And with none of its words."""
    with pytest.raises(DecodeError) as refused:
        decode_request(msgpack.packb(record(fields)))
    assert refused.value.reason == reason
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"regex": "a" * (limits.MAX_REGEX_CHARS + 1)}, limits.MAX_REGEX_CHARS),
        ({"grammar": "a" * (limits.MAX_GRAMMAR_CHARS + 1)}, limits.MAX_GRAMMAR_CHARS),
        ({"choice": ["a"] * (limits.MAX_CHOICES + 1)}, limits.MAX_CHOICES),
        ({"choice": ["a" * (limits.MAX_CHOICE_CHARS + 1)]}, limits.MAX_CHOICE_CHARS),
        (form(schema=" " * (limits.MAX_SCHEMA_BYTES + 1)), limits.MAX_SCHEMA_BYTES),
    ],
)
def test_each_has_a_bound(fields: dict[str, Any], limit: int) -> None:
    """Which is told, with what was given."""
    with pytest.raises(DecodeError) as refused:
        decode_request(msgpack.packb(record(fields)))
    assert (refused.value.limit, refused.value.given) == (limit, limit + 1)


def test_a_strict_job_may_have_them() -> None:
    """All the fields of the OpenAI interface are known; a misspelt one is refused."""
    fields = record(form(schema=SCHEMA, name="n", strict=False, description="d"))
    decode_request(msgpack.packb(fields | {"strict": True}))
    fields["sampling"]["response_format"]["json_schema"]["schemas"] = {}
    with pytest.raises(DecodeError, match="schemas"):
        decode_request(msgpack.packb(fields | {"strict": True}))


def test_a_form_is_part_of_what_is_asked_and_of_no_repr() -> None:
    """Another form is another job; logs see none."""
    jobs = [
        Job(id="j", tenant="t", prompt="p", sampling=Sampling.model_validate(fields))
        for fields in ({"regex": "secret"}, {"grammar": "secret"}, {"choice": ["secret"]},
                       form(schema={"const": "secret"}), {})
    ]  # fmt: skip
    assert len({question_of(job) for job in jobs}) == len(jobs)
    for job in jobs:
        assert "secret" not in repr(job) + str(job)
