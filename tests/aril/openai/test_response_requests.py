"""Bodies of `/v1/responses` become a chat's job; what is wrong is told by the body's own names."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.openai.errors import Refused
from aril.openai.response_requests import CHATS_ONLY, NOTHING_KEPT, ONLY, TOLD, response_request
from aril.schemas import ErrorCode

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def job(**fields: Any) -> Any:
    """Return the job of a request."""
    return response_request({"model": "aril", "input": "Hi"} | fields).job


def messages(**fields: Any) -> list[dict[str, Any]]:
    """Return the messages of a request's job."""
    return [each.model_dump(exclude_none=True) for each in job(**fields)["messages"]]


def refusal(**fields: Any) -> Refused:
    """Return why a body is refused."""
    with pytest.raises(Refused) as caught:
        response_request({"model": "aril", "input": "Hi"} | fields)
    return caught.value


def test_input_is_messages() -> None:
    """A text is a user's turn; instructions come before it; parts and items keep their order."""
    assert messages() == [{"role": "user", "content": "Hi"}]
    first, *_ = messages(instructions="Be brief.")
    assert first == {"role": "system", "content": "Be brief."}
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
    ]
    roles = [each["role"] for each in messages(input=items)]
    assert roles == ["system", "user", "assistant", "assistant", "tool"]
    assert messages(input=items)[3]["tool_calls"][0]["id"] == "c1"


def test_what_is_asked() -> None:
    """Lengths, sampling, form, effort and log probabilities arrive under the contract's names."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    said = job(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=4,
        metadata={"a": "b"},
        text={"format": {"type": "json_schema", "name": "x", "strict": True, "schema": schema}},
        reasoning={"effort": "low"},
        include=["message.output_text.logprobs"],
        top_logprobs=3,
    )
    sampling = said["sampling"]
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (9, 0.5, 4)
    assert sampling.response_format.type == "json_schema"
    assert (sampling.logprobs, said["metadata"]) == (3, {"a": "b"})
    assert said["chat_template_kwargs"] == {"reasoning_effort": "low"}
    tool = {"type": "function", "name": "f", "description": "d", "parameters": {}, "strict": True}
    (passed,) = job(tools=[tool])["tools"]
    assert passed == {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {}},
    }


def test_how_it_is_answered() -> None:
    """Stream and background are the gateway's; the rest of what was said is told again."""
    asked = response_request(
        {"model": "terse", "input": "Hi", "stream": True, "background": True, "store": True}
    )
    assert (asked.stream, asked.background) == (True, True)
    assert asked.told == {"model": "terse", "background": True}
    assert asked.job["adapter"] == "terse"


@pytest.mark.parametrize("field", [*NOTHING_KEPT, *ONLY, *CHATS_ONLY])
def test_what_is_not_served(field: str) -> None:
    """It is refused by its name, and not where it says nothing."""
    assert refusal(**{field: "x"}).param == field
    response_request({"model": "aril", "input": "Hi", field: None})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "nobody", "content": "x"}], "instructions": "x"}, "input[0].role"),
        ({"input": "x" * 600_000}, "input"),
        ({"instructions": 3}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"text": {"verbosity": "high"}}, "text.verbosity"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": "x"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"top_logprobs": 99}, "top_logprobs"),
        ({"background": "yes"}, "background"),
        ({"stream": 1}, "stream"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"input": [{"role": "user", "content": [{"type": []}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": {}}]}]}, "input[0].content[0].type"),
        ({"parallel_tool_calls": "\ud800"}, "parallel_tool_calls"),
        ({"parallel_tool_calls": float("inf")}, "parallel_tool_calls"),
        ({"tools": [{"type": "function", "name": "f", "strict": "\ud800"}]}, "tools[0].strict"),
        ({"tools": [{"type": "function", "name": "f", "output_schema": "\ud800"}]}, "tools"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {"a": float("inf")}}],
          "tool_choice": "none"}, "tools"),
        ({"text": {"format": {"type": "json_schema", "name": "x",
                              "schema": {"maximum": float("inf")}}}}, "text.format"),
        ({"metadata": {"a": "\ud800"}}, None),
    ],
)  # fmt: skip
def test_faults_have_the_bodys_names(fields: dict[str, Any], param: str | None) -> None:
    """Never those of the chat that it is judged as."""
    error = refusal(**fields)
    assert (error.param or "").startswith(param or ""), error.param
    assert "messages" not in error.message


def test_an_adapter_that_cannot_be() -> None:
    """The model's name is judged as a chat's."""
    error = refusal(model="no such name")
    assert (error.param, error.code) == ("model", ErrorCode.UNKNOWN_ADAPTER)


@given(body=json_values, field=st.sampled_from([*TOLD, "input", "include", "reasoning"]))
def test_anything_else_is_refused_and_nothing_worse(body: Any, field: str) -> None:
    """Whatever a body or one of its fields holds: a job, or a refusal."""
    for each in (body, {"model": "aril", "input": "Hi", field: body}):
        with contextlib.suppress(Refused):
            json.dumps(response_request(each).told, allow_nan=False).encode()
