"""JSON Schema of the records, for programs in other languages.

`python -m aril.schemas.json_schema` rewrites json/job.schema.json and json/reply.schema.json. They
describe the msgpack maps as if they were JSON. Five rules cannot be said there and are said in the
README: integers are msgpack integers (1.0 is not one), a tokens record has one row of logprobs per
id, the numbers of a prompt are whole rows, min_tokens is at most max_tokens, and a strict job has
no further fields. Every other map may hold further fields, which readers ignore.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from aril.schemas import limits, names
from aril.schemas.errors import ErrorCode
from aril.schemas.job import Cancel, Job
from aril.schemas.reply import Timings, Usage

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FOLDER: Final = Path(__file__).parent / "json"
_CONSTRAINTS: Final = ("response_format", "regex", "choice", "grammar")


def job_schema() -> Schema:
    """Return the schema of the records on the jobs topic."""
    _, definitions = models_json_schema([(Job, "validation"), (Cancel, "validation")])
    schemas = definitions["$defs"]
    for name, kind in (("Job", "job"), ("Cancel", "cancel")):
        schema = schemas[name]
        head = {"v": {"const": limits.VERSION}, "kind": {"const": kind}}
        schema["properties"] = head | schema["properties"]
        schema["required"] = [*head, *schema["required"]]
    schemas["Job"]["oneOf"] = [_given(field) for field in ("prompt", "messages", "token_ids")]
    # What goes to the chat template goes with messages; a default says nothing.
    schemas["Job"]["anyOf"] = [
        _given("messages"),
        {
            "properties": {
                "tools": {"maxItems": 0},
                "chat_template_kwargs": {"maxProperties": 0},
                "add_generation_prompt": {"const": True},
                "continue_final_message": {"const": False},
            }
        },
    ]
    # One way to name adapters, and no strength without any.
    schemas["Job"]["not"] = {"allOf": [_given("adapter"), _given("adapters")]}
    schemas["Job"]["allOf"] = [
        {
            "anyOf": [
                _given("adapter"),
                _given("adapters"),
                {"properties": {"adapter_scale": {"const": 1}}},
            ]
        }
    ]
    schemas["ResponseFormat"]["anyOf"] = [
        {
            "required": ["json_schema"],
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {"not": {"type": "null"}},
            },
        },
        {
            "properties": {
                "type": {"enum": ["text", "json_object"]},
                "json_schema": {"type": "null"},
            }
        },
    ]
    none: dict[str, Schema] = {name: {"type": "null"} for name in _CONSTRAINTS}
    none["response_format"] = {"properties": {"type": {"const": "text"}}}  # so is nil
    schemas["Sampling"]["anyOf"] = [
        {"properties": {other: none[other] for other in _CONSTRAINTS if other != name}}
        for name in _CONSTRAINTS
    ]
    schemas["Message"]["anyOf"] = [
        _given("content"),
        {"properties": {"role": {"const": "assistant"}}},
    ]
    return {
        "$schema": DIALECT,
        "title": "Aril request, version 1",
        "oneOf": [{"$ref": "#/$defs/Job"}, {"$ref": "#/$defs/Cancel"}],
        "$defs": schemas,
    }


def reply_schema() -> Schema:
    """Return the schema of the records on the reply topics, kinds of version 1 only."""
    kinds = {
        "claim": _record(
            "A new owner takes the job over and keeps what is visible.",
            {
                "alone": {"type": "boolean", "description": "it runs with nothing beside it"},
                "base_digest": _base_digest(),
            },
            optional=("alone", "base_digest"),
        ),
        "release": _record("A writer stops on purpose; nothing visible changes.", {}),
        "tokens": _tokens(),
        "done": _done(),
        "error": _error(),
        "redirect": _redirect(),
        "conflict": _conflict(),
    }
    for kind, schema in kinds.items():
        schema["properties"] = {"kind": {"const": kind}} | schema["properties"]
        schema["required"].insert(0, "kind")
    return {
        "$schema": DIALECT,
        "title": "Aril reply, version 1",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds],
        "$defs": kinds,
    }


def render(schema: Schema) -> str:
    """Return the text of a schema file."""
    return json.dumps(schema, indent=2) + "\n"


def schema_files() -> dict[Path, str]:
    """Return each file with the text it should have."""
    return {
        FOLDER / "job.schema.json": render(job_schema()),
        FOLDER / "reply.schema.json": render(reply_schema()),
    }


def _given(field: str) -> Schema:
    return {"required": [field], "properties": {field: {"not": {"type": "null"}}}}


def _record(
    description: str, fields: Mapping[str, Schema], *, optional: tuple[str, ...] = ()
) -> Schema:
    generation = _integer(limits.MAX_EPOCH_PART)
    attempt = _integer(limits.MAX_EPOCH_PART, minimum=1)
    head = {
        "v": {"const": limits.VERSION},
        "job": {"type": "string", "pattern": names.JOB_ID_PATTERN},
        "epoch": _row([generation, attempt], length=2) | {"description": "[generation, attempt]"},
        "worker": {"type": "string", "pattern": names.WORKER_PATTERN},
    }
    properties = head | dict(fields)
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
    }


def _tokens() -> Schema:
    token, number = _integer(limits.MAX_TOKEN_ID), {"type": "number"}
    row = _row([number, *[token, number] * limits.MAX_LOGPROBS], length=None)
    fields = {
        "index": _integer(limits.MAX_INDEX),
        "ids": {
            "type": "array",
            "items": token,
            "minItems": 1,
            "maxItems": limits.MAX_TOKENS_PER_RECORD,
        },
        "text": _text(limits.MAX_REPLY_TEXT_CHARS),
        "logprobs": {
            "type": ["array", "null"],
            "items": row,
            "maxItems": limits.MAX_TOKENS_PER_RECORD,
            "description": "per id: [logprob, then id and logprob of each of the most likely]",
        },
        "base_digest": _base_digest(),
    }
    return _record(
        "Tokens from the index-th on, and the text that became safe to show with them.",
        fields,
        optional=("logprobs", "base_digest"),
    )


def _done() -> Schema:
    count, milliseconds = _integer(limits.MAX_INDEX), {"type": "number", "minimum": 0}
    name = _text(limits.MAX_REPLY_NAME_CHARS)
    fields = {
        "index": count,
        "text": _text(limits.MAX_REPLY_TEXT_CHARS),
        "finish_reason": {"enum": ["stop", "length"]},
        "usage": _map(dict.fromkeys(Usage._fields, count)),
        "adapter": _or_null(name),
        "digest": _or_null(name),
        "adapter_active_from": _or_null(count)
        | {
            "description": "only of an adapter with an invocation: the prompt's token from which on"
            " it worked, nil: nowhere"
        },
        "adapters": {
            "type": "array",
            "items": _map({"name": name, "digest": name, "weight": {"type": "number"}}),
            "minItems": 1,
            "maxItems": limits.MAX_MIXED_ADAPTERS,
            "description": "of a mixture, in the job's order; adapter and digest are nil then",
        },
        "base": name,
        "base_digest": _base_digest(),
        "earlier_bases": {
            "type": "array",
            "items": name,
            "maxItems": limits.MAX_EARLIER_BASES,
            "description": "digests of other backbones, which brought some of the tokens",
        },
        "seed": _integer(limits.MAX_SEED),
        "timings": _map(dict.fromkeys(Timings._fields, milliseconds)),
        "prompt_logprobs": _prompt_logprobs(),
        "metadata": _metadata(),
    }
    return _record(
        "The answer is complete: index tokens, and the rest of the text.",
        fields,
        optional=(
            "adapter",
            "digest",
            "adapter_active_from",
            "adapters",
            "base_digest",
            "earlier_bases",
            "prompt_logprobs",
            "metadata",
        ),
    )


def _prompt_logprobs() -> Schema:
    numbers = {
        "type": "array",
        "items": {"type": "number"},
        "maxItems": limits.MAX_PROMPT_LOGPROB_NUMBERS,
        "description": "for each prompt token from the second on 1 + 2 * top: its logprob, then id "
        "and logprob of each of the most likely",
    }
    return _or_null(_map({"top": _integer(limits.MAX_LOGPROBS), "numbers": numbers}))


def _error() -> Schema:
    given = {"type": ["number", "string", "null"], "maxLength": limits.MAX_GIVEN_CHARS}
    fields = {
        "index": _integer(limits.MAX_INDEX),
        "code": {"enum": [code.value for code in ErrorCode]},
        "message": _text(limits.MAX_ERROR_MESSAGE_CHARS),
        "retryable": {"type": "boolean"},
        "limit": {"type": ["number", "null"]},
        "given": given,
        "retry_after_ms": _or_null(_integer(limits.MAX_RETRY_AFTER_MS)),
        "metadata": _metadata(),
    }
    return _record(
        "The job ended without a complete answer, after index tokens.",
        fields,
        optional=("limit", "given", "retry_after_ms", "metadata"),
    )


def _redirect() -> Schema:
    return _notice(
        "Of no answer: that to a job which was sent again begins at this offset.",
        {"reply_from": _integer(limits.MAX_OFFSET)},
    )


def _conflict() -> Schema:
    place = _or_null(_integer(limits.MAX_OFFSET))
    return _notice(
        "Of no answer: the job whose record's value has this SHA-256 gets none, as another has"
        " its id.",
        {
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "reply_from": place | {"description": "as that job had it"},
        },
        optional=("reply_from",),
    )


def _notice(title: str, fields: Schema, optional: tuple[str, ...] = ()) -> Schema:
    schema = _record(title, fields, optional=optional)
    for name in ("epoch", "worker"):
        del schema["properties"][name]
        schema["required"].remove(name)
    return schema


def _integer(maximum: int, *, minimum: int = 0) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def _text(max_chars: int) -> Schema:
    return {"type": "string", "maxLength": max_chars}


def _base_digest() -> Schema:
    text = _or_null(_text(limits.MAX_REPLY_NAME_CHARS))
    return text | {"description": "of the backbone's weights"}


def _or_null(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _row(items: list[Schema], *, length: int | None) -> Schema:
    return {
        "type": "array",
        "prefixItems": items,
        "minItems": length or 1,
        "maxItems": length or len(items),
    }


def _map(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _metadata() -> Schema:
    return {
        "type": "object",
        "propertyNames": {"maxLength": limits.MAX_METADATA_KEY_CHARS},
        "additionalProperties": _text(limits.MAX_METADATA_VALUE_CHARS),
        "maxProperties": limits.MAX_METADATA_ENTRIES,
    }


def main() -> None:
    """Rewrite the schema files."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in schema_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
