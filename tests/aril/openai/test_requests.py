"""Bodies of the two endpoints become jobs: what is taken, passed over and refused by name."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.openai.body import HARMLESS, ONLY
from aril.openai.common import MAX_JOBS, MAX_N
from aril.openai.errors import Refused, failure_of
from aril.openai.requests import CHAT, DEFAULT_MAX_TOKENS, TEXT, request_of
from aril.schemas import ErrorCode, limits
from aril.schemas.job import Job

HI: Final = [{"role": "user", "content": "Hi"}]
DIGEST: Final = "ab" * 32
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def chat(**fields: Any) -> Any:
    """Ask for one answer of a chat; return its job."""
    (job,) = request_of(CHAT, {"model": "aril", "messages": HI} | fields).jobs
    return job


def text(**fields: Any) -> Any:
    """Ask for one text; return its job."""
    (job,) = request_of(TEXT, {"model": "aril", "prompt": "Once"} | fields).jobs
    return job


def refusal(url: str = CHAT, **fields: Any) -> Refused:
    """Return why a body is refused."""
    with pytest.raises(Refused) as caught:
        request_of(url, {"model": "aril", "messages": HI} | fields)
    return caught.value


def test_a_plain_chat() -> None:
    """Messages go into the job as they are; what was not said is not in it."""
    job = chat()
    assert [message.model_dump(exclude_none=True) for message in job["messages"]] == HI
    assert job.keys() == {"messages"}


def test_sampling_goes_by_the_same_names() -> None:
    """Each field that both have arrives with its value."""
    said = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": -1,
        "frequency_penalty": 0.25,
        "min_tokens": 2,
        "seed": 5,
        "logit_bias": {"17": -100},
        "stop_token_ids": [3],
        "ignore_eos": True,
        "prompt_logprobs": 1,
        "max_tokens": 9,
        "stop": ["END", "\n"],
    }
    sampling = chat(**said)["sampling"]
    assert json.loads(sampling.model_dump_json(include=said.keys())) == said
    assert sampling.model_dump(exclude_unset=True).keys() == said.keys()


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ({"stop": "END"}, {"stop": ("END",)}),
        ({"top_k": -1}, {}),
        ({"max_tokens": 9, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"guided_regex": "a+"}, {"regex": "a+"}),
        ({"guided_choice": ["a", "b"]}, {"choice": ("a", "b")}),
        ({"guided_grammar": "start: /a/"}, {"grammar": "start: /a/"}),
        ({"structured_outputs": {"regex": "a+"}}, {"regex": "a+"}),
        ({"structured_outputs": {"choice": ["a"], "disable_fallback": True}}, {"choice": ("a",)}),
        ({"grammar": "start: /a/"}, {"grammar": "start: /a/"}),
        ({"temperature": None, "stop": None, "seed": None}, {}),
    ],
)
def test_what_is_said_otherwise(said: dict[str, Any], becomes: dict[str, Any]) -> None:
    """Fields of OpenAI and vLLM that the contract has in other words."""
    sampling = chat(**said).get("sampling")
    assert ({} if sampling is None else sampling.model_dump(exclude_defaults=True)) == becomes


@pytest.mark.parametrize(
    "said",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"b": 1, "a": 2}}}},
        {"guided_json": {"b": 1, "a": 2}},
        {"guided_json": '{"b":1,"a":2}'},
        {"structured_outputs": {"json": {"b": 1, "a": 2}}},
    ],
)
def test_a_schema_is_sent_as_text(said: dict[str, Any]) -> None:
    """With its properties in their order, free of the bounds of a record's shape."""
    form = chat(**said)["sampling"].response_format
    assert form.json_schema.schema_ == '{"b":1,"a":2}'


def test_a_deep_schema_is_taken() -> None:
    """Deeper than maps of a record may be nested."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(limits.MAX_DEPTH):
        schema = {"type": "object", "properties": {"a": schema}}
    assert chat(guided_json=schema)["sampling"].response_format.json_schema.schema_


@pytest.mark.parametrize("inner", [float("inf"), float("nan")])
@pytest.mark.parametrize("depth", [0, 100_000])
def test_a_schema_that_no_json_can_say(inner: float, depth: int) -> None:
    """What Python reads of a body is not always what it can write: it is refused by name."""
    schema: dict[str, Any] = {"maximum": inner}
    for _ in range(depth):
        schema = {"a": schema}
    for said, param in (
        ({"guided_json": schema}, "guided_json"),
        ({"structured_outputs": {"json": schema}}, "structured_outputs.json"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
            "response_format",
        ),
    ):
        assert refusal(**said).param == param


@pytest.mark.parametrize("n", [10**400, -(10**400), 10**4_200], ids=["large", "small", "long"])
def test_a_number_of_answers_beyond_all_numbers(n: int) -> None:
    """Of any length: refused as one that is a little too large."""
    error = refusal(n=n)
    assert (error.param, error.given) == ("n", None)
    assert len(error.message) < 60


def test_a_json_object_in_structured_outputs() -> None:
    """It is the `json_object` of a response format."""
    form = chat(structured_outputs={"json_object": True})["sampling"].response_format
    assert form.type == "json_object"


def test_an_answer_has_one_form() -> None:
    """Two are refused, and both are named."""
    error = refusal(guided_regex="a", structured_outputs={"choice": ["a"]})
    assert error.param == "structured_outputs.choice"
    assert "guided_regex" in error.message


@pytest.mark.parametrize(
    ("model", "adapter"),
    [
        ("aril", None),
        ("Smol/LM", None),
        ("terse", "terse"),
        (f"terse@{DIGEST}", f"terse@{DIGEST}"),
        ("aril:terse", "terse"),
        (f"Smol/LM:terse@{DIGEST}", f"terse@{DIGEST}"),
    ],
)
def test_model_names_the_adapter(model: str, adapter: str | None) -> None:
    """By itself, with a digest, behind a name of the backbone; the backbone is no adapter."""
    asked = request_of(CHAT, {"model": model, "messages": HI}, bases={"Smol/LM"})
    assert asked.jobs[0].get("adapter") == adapter
    assert asked.model == model


@pytest.mark.parametrize(
    "model", ["Other", "other:terse", "shared", "terse@", "", "a:b:c", "ärger"]
)
def test_an_unknown_model_is_like_an_unknown_adapter(model: str) -> None:
    """404, and `model` is named."""
    error = refusal(model=model) if model else refusal(model="Terse")
    assert failure_of(error).status == 404
    assert (error.param, error.code) == ("model", ErrorCode.UNKNOWN_ADAPTER)


def test_an_adapters_own_fields() -> None:
    """A mixture, a strength, a deadline: of the contract, in its words."""
    mixed = [{"name": "terse", "weight": 0.5}, {"name": "bold"}]
    job = chat(adapters=mixed, adapter_scale=0.5, deadline_ms=1500)
    assert [(each.name, each.weight) for each in job["adapters"]] == [("terse", 0.5), ("bold", 1)]
    assert (job["adapter_scale"], job["deadline"]) == (0.5, 1.5)
    assert chat(adapter="terse")["adapter"] == "terse"
    assert refusal(model="terse", adapter="bold").param == "adapter"
    assert refusal(model="terse", adapters=mixed).param == "adapters"


def test_vllms_priority_is_turned_round() -> None:
    """There the lower one goes first."""
    assert chat(priority=-5)["priority"] == 5


def test_whose_it_is_comes_back() -> None:
    """`user` joins the metadata, which are echoed; one of that name is not replaced."""
    assert chat(user="u-1", metadata={"k": "v"})["metadata"] == {"user": "u-1", "k": "v"}
    assert chat(user="u-1", metadata={"user": "v"})["metadata"] == {"user": "v"}


def test_the_template_is_told() -> None:
    """Tools, variables, an open last message; no tools for whom none may be called."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    job = chat(tools=tools, chat_template_kwargs={"a": 1}, reasoning_effort="low")
    assert job["tools"] == tuple(tools)
    assert job["chat_template_kwargs"] == {"a": 1, "reasoning_effort": "low"}
    assert "tools" not in chat(tools=tools, tool_choice="none")
    ends = [*HI, {"role": "assistant", "content": "Well,"}]
    job = chat(messages=ends, continue_final_message=True, add_generation_prompt=False)
    assert (job["continue_final_message"], job["add_generation_prompt"]) == (True, False)
    assert refusal(tools=tools, tool_choice="required").param == "tool_choice"


def test_an_answer_may_be_sent_back_whole() -> None:
    """With all that OpenAI's and vLLM's objects hold: nulls and what no template reads."""
    call = {"id": "c-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "developer", "content": [{"type": "text", "text": "Be", "cache_control": {}}]},
        {"role": "user", "content": "Hi", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
            "reasoning_content": "hm",
            "tool_calls": [call],
        },
        {"role": "tool", "content": "4", "tool_call_id": "c-1"},
        {"role": "assistant", "content": "4", "tool_calls": []},
    ]
    messages = chat(messages=turns)["messages"]
    assert [message.role for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert messages[0].text == "Be"
    assert messages[1].name == "ann"
    assert (messages[2].tool_calls, messages[2].content) == ((call,), None)
    assert (messages[3].tool_call_id, messages[4].tool_calls) == ("c-1", None)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "x", "colour": "red"}]}, "messages[0].colour"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
        ({"top_p": 2}, "top_p"),
        ({"temperature": "0"}, "temperature"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x", ""]}, "stop[1]"),
        ({"n": 0}, "n"),
        ({"n": MAX_N + 1}, "n"),
        ({"n": True}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_cost": True}}, "stream_options.include_cost"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"chat_template_kwargs": {"1": 1}}, "chat_template_kwargs"),
        ({"tools": [{}] * 129}, "tools"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"priority": 1000}, "priority"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"colour": "red"}, "colour"),
        ({"prompt": "x"}, "prompt"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"metadata": {"k": "\ud800"}}, None),
        ({"seed": 2**70}, None),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(said: dict[str, Any], param: str | None) -> None:
    """By the name that the body has for it, as 400."""
    error = refusal(**said)
    assert error.param == param
    assert failure_of(error).status == 400


def test_a_bound_is_told() -> None:
    """With the limit and what was given, as numbers."""
    body = failure_of(refusal(top_p=2)).error
    assert (body["limit"], body["given"], body["code"]) == (1, 2, "limit_exceeded")
    assert body["message"] == "top_p: at most 1.0, not 2"


@pytest.mark.parametrize("field", sorted(HARMLESS))
@given(value=json_values)
def test_harmless_fields_change_nothing(field: str, value: object) -> None:
    """Whatever they say."""
    assert chat(**{field: value}) == chat()
    assert text(**{field: value}) == text()


@pytest.mark.parametrize("field", sorted(ONLY))
def test_fields_that_are_not_served(field: str) -> None:
    """Are refused by name, unless they ask for nothing."""
    for value in ONLY[field]:
        assert chat(**{field: value}) == chat()
        assert text(**{field: value}) == text()
    for url, body in ((CHAT, {"messages": HI}), (TEXT, {"prompt": "Once"})):
        with pytest.raises(Refused) as caught:
            request_of(url, body | {field: "something"})
        assert caught.value.param == field


def test_true_is_no_one() -> None:
    """A field that may be 1 may not be true, which Python holds to be equal."""
    assert chat(length_penalty=1) == chat()
    assert refusal(length_penalty=True).param == "length_penalty"


@pytest.mark.parametrize(
    ("prompt", "jobs"),
    [
        ("Once", [{"prompt": "Once"}]),
        ([5, 6], [{"token_ids": (5, 6)}]),
        (["Once", "Twice"], [{"prompt": "Once"}, {"prompt": "Twice"}]),
        ([[5], [6, 7]], [{"token_ids": (5,)}, {"token_ids": (6, 7)}]),
    ],
)
def test_prompts_of_a_text(prompt: object, jobs: list[dict[str, Any]]) -> None:
    """A text, token ids, or several of either; 16 tokens where nothing is said."""
    asked = request_of(TEXT, {"model": "aril", "prompt": prompt})
    assert [{key: job[key] for key in job if key != "sampling"} for job in asked.jobs] == jobs  # type: ignore[literal-required]
    assert {job["sampling"].max_tokens for job in asked.jobs} == {DEFAULT_MAX_TOKENS}  # type: ignore[union-attr]


def test_how_long_a_text_is() -> None:
    """What is said goes; null is to the end of the context, as vLLM has it."""
    assert text(max_tokens=3)["sampling"].max_tokens == 3
    assert text(min_tokens=20)["sampling"].max_tokens == 20
    assert "sampling" not in text(max_tokens=None)
    asked = request_of(TEXT, {"prompt": "x"}, defaults={"sampling": {"max_tokens": 7}})
    assert asked.jobs[0]["sampling"].max_tokens == 7  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["x", 5]}, "prompt[0]"),
        ({"prompt": [5, "x"]}, "prompt[1]"),
        ({"prompt": ["x"] * (MAX_JOBS + 1)}, "prompt"),
        ({"prompt": ["x"] * 9, "n": 128}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "prompt": [5]}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": HI}, "messages"),
    ],
)
def test_what_is_refused_of_a_text(said: dict[str, Any], param: str) -> None:
    """By name."""
    with pytest.raises(Refused) as caught:
        request_of(TEXT, {"model": "aril", "prompt": "Once"} | said)
    if said.get("prompt") == ["x", 5]:
        param = "prompt"  # an element that is no text is judged as one
    assert caught.value.param == param


def test_several_answers_have_seeds_of_their_own() -> None:
    """Counted on from the first one's; drawn ones are drawn for each."""
    asked = request_of(CHAT, {"messages": HI, "n": 3, "seed": limits.MAX_SEED})
    assert [job["sampling"].seed for job in asked.jobs] == [limits.MAX_SEED, 0, 1]  # type: ignore[union-attr]
    asked = request_of(TEXT, {"prompt": ["a", "b"], "n": 2, "best_of": 2, "seed": 1})
    assert [(job["prompt"], job["sampling"].seed) for job in asked.jobs] == [  # type: ignore[union-attr]
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]


def test_how_it_is_to_be_answered() -> None:
    """Streaming, usage, what is echoed."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = request_of(CHAT, {"messages": HI, "stream": True, "stream_options": options})
    assert (asked.stream, asked.include_usage, asked.model) == (True, True, "aril")
    asked = request_of(TEXT, {"prompt": ["a", "b"], "n": 2, "echo": True})
    assert asked.echoed == ("a", "a", "b", "b")


def test_defaults_are_for_what_is_not_said() -> None:
    """An own adapter or form goes before them; the rest is filled in."""
    defaults = {
        "adapter": "terse",
        "adapter_scale": 0.5,
        "priority": 3,
        "sampling": {"temperature": 0.0, "top_k": 4, "regex": "a"},
    }
    asked = request_of(CHAT, {"messages": HI, "temperature": 1}, defaults=defaults)
    (job,) = asked.jobs
    assert (job["adapter"], job["adapter_scale"], job["priority"]) == ("terse", 0.5, 3)
    sampling: Any = job["sampling"]
    assert (sampling.temperature, sampling.top_k, sampling.regex) == (1, 4, "a")
    body = {"model": "bold", "messages": HI, "guided_choice": ["a"], "priority": 0}
    (job,) = request_of(CHAT, body, defaults=defaults).jobs
    assert job["adapter"] == "bold"
    assert "adapter_scale" not in job
    assert "priority" not in job
    sampling = job["sampling"]
    assert (sampling.regex, sampling.choice) == (None, ("a",))


@pytest.mark.parametrize(("url", "body"), [(CHAT, {"messages": HI}), (TEXT, {"prompt": "x"})])
def test_log_probabilities_by_default(url: str, body: dict[str, Any]) -> None:
    """What is asked for all is told in the answer as well."""
    asked = request_of(url, body, defaults={"sampling": {"logprobs": 2}})
    assert asked.top_logprobs == 2
    assert request_of(url, body).top_logprobs is None


def test_an_unknown_endpoint() -> None:
    """Is named."""
    with pytest.raises(Refused, match="url"):
        request_of("/v1/embeddings", {})


bodies = st.dictionaries(
    st.sampled_from(
        [
            "messages",
            "prompt",
            "model",
            "n",
            "stop",
            "stream",
            "stream_options",
            "response_format",
            "structured_outputs",
            "guided_json",
            "logprobs",
            "top_logprobs",
            "logit_bias",
            "tools",
            "metadata",
            "user",
            "adapters",
            "seed",
            "chat_template_kwargs",
            "priority",
            "min_tokens",
            "max_tokens",
        ]
    ),
    json_values,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": json_values}
    ),
    min_size=1,
    max_size=3,
)


@given(bodies, st.none() | messages, st.sampled_from([CHAT, TEXT]))
def test_any_body_gives_jobs_or_a_refusal(body: dict[str, Any], turns: Any, url: str) -> None:
    """Whatever JSON it is, and what is accepted is a job of the contract."""
    if turns is not None:
        body = body | {"messages": turns}
    with contextlib.suppress(Refused):  # and nothing else
        for fields in request_of(url, body).jobs:
            named: dict[str, Any] = {key: each for key, each in fields.items() if key != "deadline"}
            assert Job(id="x", tenant="acme", **named).id


@given(json_values)
def test_anything_else_is_refused(body: object) -> None:
    """A body that is not an object, or holds anything."""
    with pytest.raises(Refused):
        request_of(CHAT, body)


def test_what_a_worker_would_refuse_is_refused_here() -> None:
    """Also by size: a record has at most a megabyte."""
    huge = [{"role": "user", "content": "ä" * 450_000}]
    schema = {"type": "string", "description": "x" * 65_000}
    assert chat(messages=huge)
    huge[0]["content"] += "ä" * 30_000
    error = refusal(messages=huge, guided_json=schema)
    assert (error.code, error.limit) == (ErrorCode.LIMIT_EXCEEDED, limits.MAX_REQUEST_BYTES)
