"""Requests that are accepted; `expect` holds the fields that differ from the defaults."""

from aril.schemas.make_vectors.build import JOB, MISSING, Fields, Vector, pack, vector


def _job(name: str, meaning: str, fields: Fields, expect: Fields | None = None) -> Vector:
    """Return a job that is accepted; what is expected of it is `fields` unless said otherwise."""
    sent = {key: value for key, value in (JOB | fields).items() if value is not MISSING}
    decoded = {key: value for key, value in sent.items() if key != "kind"}
    return vector(name, meaning, pack(sent), {"job": decoded if expect is None else expect})


def good_requests() -> list[Vector]:
    """Return jobs of every form, and a cancellation."""
    digest = "0123456789abcdef" * 4
    every_knob = {
        "max_tokens": 8,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 40,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.5,
        "seed": 9223372036854775807,
        "stop": ["\n\n", "END"],
        "stop_token_ids": [2],
        "ignore_eos": True,
        "logit_bias": {"0": -100.0, "2147483647": 0.5},
        "logprobs": 0,
        "prompt_logprobs": 20,
    }
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße 🍎"},
    ]
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    with_tools = [
        {"role": "user", "content": [{"type": "text", "text": "What time"}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "12:00", "name": "clock", "tool_call_id": "c1"},
    ]
    return [
        _job("smallest job", "Only what is required; everything else has its default.", {}),
        _job("messages", "A conversation.", {"prompt": MISSING, "messages": turns}),
        _job(
            "a conversation with tools",
            "All that a chat template may be told; text may come in parts.",
            {
                "prompt": MISSING,
                "messages": with_tools,
                "tools": [tool],
                "add_generation_prompt": False,
                "continue_final_message": True,
                "chat_template_kwargs": {"enable_thinking": False},
            },
        ),
        _job(
            "strict",
            "A job that wants unknown fields refused; it has none.",
            {"strict": True, "sampling": {"max_tokens": 8}},
        ),
        vector(
            "a strict cancel",
            "Only jobs are strict: a cancel is never refused for a field.",
            pack({"kind": "cancel", "id": "j1", "tenant": "acme", "strict": True}),
            {"cancel": {"id": "j1", "tenant": "acme"}},
        ),
        _job(
            "token ids", "A prompt of tokens.", {"prompt": MISSING, "token_ids": [1, 0, 2**31 - 1]}
        ),
        _job("adapter", "An adapter by name.", {"adapter": "pirate"}),
        _job("adapter with digest", "One content of it only.", {"adapter": f"pirate@{digest}"}),
        _job(
            "a strong adapter",
            "Twice what it adds.",
            {"adapter": "pirate", "adapter_scale": 2.0},
        ),
        _job(
            "a mixture",
            "Each times its weight, which is 1 where none is given; all half as strong.",
            {
                "adapters": [{"name": "pirate", "weight": -0.5}, {"name": f"terse@{digest}"}],
                "adapter_scale": 0.5,
            },
        ),
        _job("every sampling field", "None at its default.", {"sampling": every_knob}),
        _job(
            "a form for the answer",
            "A JSON Schema as the OpenAI interface wraps it.",
            {
                "sampling": {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {
                            "name": "person",
                            "schema": {"type": "object", "properties": {"age": {"minimum": 0}}},
                            "strict": True,
                        },
                    }
                }
            },
        ),
        _job(
            "a schema as text",
            "For one that is nested deeper, or has more fields, than a record may.",
            {
                "sampling": {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"schema": '{"type": "array"}'},
                    }
                }
            },
        ),
        _job(
            "any JSON object",
            "The form without a schema.",
            {"sampling": {"response_format": {"type": "json_object"}}},
        ),
        _job("a regular expression", "Of the whole answer.", {"sampling": {"regex": "[a-z]+"}}),
        _job("a choice", "One of these.", {"sampling": {"choice": ["yes", "no"]}}),
        _job("a grammar", "In Lark.", {"sampling": {"grammar": 'start: "a" b\nb: /[0-9]+/'}}),
        _job(
            "whole number for a real one",
            "An integer is a number where a float is meant.",
            {"sampling": {"temperature": 0}},
        ),
        _job(
            "every other field",
            "Priority, deadline, where replies go, metadata.",
            {
                "priority": -3,
                "deadline_ms": 30_000,
                "reply_partition": 5,
                "reply_from": 9223372036854775807,
                "metadata": {"order": "42", "": "ü"},
            },
        ),
        _job(
            "nil for an optional field",
            "Same as leaving it out, for fields whose default is nil.",
            {"adapter": None, "messages": None, "deadline_ms": None},
            {"id": "j1", "tenant": "acme", "prompt": "Hi"},
        ),
        _job(
            "unknown fields",
            "Ignored at every level, whatever they hold.",
            {"later": {"a": [b"\x00", 1.5]}, "sampling": {"top_k": 3, "later": None}},
            {"id": "j1", "tenant": "acme", "prompt": "Hi", "sampling": {"top_k": 3}},
        ),
        vector(
            "cancel",
            "Ends the job of the same tenant and id.",
            pack({"kind": "cancel", "id": "j1", "tenant": "acme"}),
            {"cancel": {"id": "j1", "tenant": "acme"}},
        ),
    ]
