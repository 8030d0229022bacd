"""The body of a request to `/v1/responses` → the one job that it asks for.

As far as it is text in and text out it is a chat by other names: instructions and input are its
messages. So it is said as one and judged as one, and what is wrong is told by the names that the
body has. What would need something to be kept between requests is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aril.openai.body import Body
from aril.openai.errors import Refused
from aril.openai.requests import chat_request

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aril.openai.common import Asked
    from aril.openai.jobs import JobFields

RESPONSES: Final = "/v1/responses"
LOGPROBS: Final = "message.output_text.logprobs"

# What a chat's body calls otherwise; of both names only the one of here is taken.
NAMES: Final = {
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "top_logprobs": "top_logprobs",
    "logprobs": "top_logprobs",
}
CHATS_ONLY: Final = (
    "add_generation_prompt",
    "continue_final_message",
    "function_call",
    "functions",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "n",
    "reasoning_effort",
    "response_format",
)
ONLY: Final[Mapping[str, tuple[object, ...]]] = {
    "access_programs": ({},),
    "background_options": ({},),
    "context_management": ([],),
    "image": ({},),
    "max_tool_calls": (),
    "prompt": (),
    "truncation": ("disabled",),
}
NOTHING_KEPT: Final = ("previous_response_id", "conversation")
PARTS: Final = {"input_text": "text", "output_text": "text", "text": "text"}
# Of an item that was output and is sent back whole.
OF_OUTPUT: Final = frozenset({"id", "status", "phase"})
OF_PARTS: Final = frozenset({"annotations", "logprobs", "prompt_cache_breakpoint"})
OF_TOOLS: Final = frozenset({"defer_loading", "allowed_callers", "output_schema"})
TOLD: Final = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "user",
)
_AT: Final = re.compile(r"messages(?:\[(\d+)\](.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseAsked:
    """What a request asks for."""

    job: JobFields
    stream: bool
    background: bool
    told: Mapping[str, Any] = field(default_factory=dict)
    """What a response says of its request."""


def response_request(
    body: object, *, bases: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> ResponseAsked:
    """Return what a body of `/v1/responses` asks for; as `request_of`. Raises `Refused`."""
    fields = Body(body)
    given: Mapping[str, Any] = body if isinstance(body, dict) else {}
    for name in NOTHING_KEPT:
        if fields.take(name) is not None:
            raise Refused(
                f"{name}: is not served: nothing is kept to go on from, send the items as input",
                param=name,
            )
    for name, allowed in ONLY.items():
        fields.take_only(name, *allowed)
    for name in CHATS_ONLY:
        if fields.take(name) is not None:
            raise Refused(f"{name}: is no field of this", param=name)
    background = bool(fields.take_as(bool, "background"))
    fields.take_as(bool, "parallel_tool_calls")
    instructions = fields.take_as(str, "instructions")
    chat = {name: given[name] for name in given if name not in _TAKEN and name not in ONLY}
    chat |= _text(fields.take_as(dict, "text")) | _reasoning(fields.take_as(dict, "reasoning"))
    chat |= _logprobs(fields)
    if (longest := fields.take("max_output_tokens")) is not None:
        chat["max_completion_tokens"] = longest
    if (tools := fields.take_as(list, "tools")) is not None:
        chat["tools"] = [_tool(Body(each, f"tools[{at}]")) for at, each in enumerate(tools)]
    items = _input(fields.take("input"))
    chat["messages"] = [*_system(instructions), *items]
    try:
        asked = chat_request(chat, bases=bases, defaults=defaults)
    except Refused as error:
        raise _renamed(error, given.get("input"), before=len(_system(instructions))) from None
    return _made(asked, given, background=background)


_TAKEN: Final = frozenset(
    {
        *CHATS_ONLY,
        *NOTHING_KEPT,
        "background",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "parallel_tool_calls",
        "reasoning",
        "text",
        "tools",
        "top_logprobs",
    }
)


def _made(asked: Asked, given: Mapping[str, Any], *, background: bool) -> ResponseAsked:
    told = {name: _sayable(name, given[name]) for name in TOLD if given.get(name) is not None}
    return ResponseAsked(
        job=asked.jobs[0],
        stream=asked.stream,
        background=background,
        told={"model": asked.model, "background": background} | told,
    )


def _sayable(name: str, value: object) -> object:
    """Return what a response will say of its request. Raises `Refused` for what no JSON can."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        raise Refused(f"{name}: holds text or a number that JSON has not", param=name) from None
    return value


def _system(instructions: str | None) -> list[dict[str, Any]]:
    return [] if instructions is None else [{"role": "system", "content": instructions}]


def _input(given: object) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise Refused("input: must be a text or an array of items", param="input")
    return [_item(Body(each, f"input[{at}]")) for at, each in enumerate(given)]


def _item(body: Body) -> dict[str, Any]:
    """Return the message of one item."""
    kind = body.take("type") or "message"
    if kind == "function_call":
        function = {"name": body.take("name"), "arguments": body.take("arguments")}
        call = {"id": body.take("call_id"), "type": "function", "function": function}
        message: dict[str, Any] = {"role": "assistant", "tool_calls": [call]}
    elif kind == "function_call_output":
        call_id, output = body.take("call_id"), _content(body, "output")
        message = {"role": "tool", "tool_call_id": call_id, "content": output}
    elif kind == "message":
        message = {"role": body.take("role"), "content": _content(body, "content")}
    else:
        what = f"items of type {kind!r:.64}"
        raise Refused(f"{body.name('type')}: {what} are not served", param=body.name("type"))
    body.end(OF_OUTPUT)
    return message


def _content(body: Body, name: str) -> Any:
    content = body.take(name)
    if not isinstance(content, list):
        return content
    return [_part(Body(each, body.name(f"{name}[{at}]"))) for at, each in enumerate(content)]


def _part(body: Body) -> dict[str, Any]:
    kind = body.take("type")
    if not isinstance(kind, str) or kind not in PARTS:
        what = f"parts of type {kind!r:.64}" if isinstance(kind, str) else "parts without a type"
        raise Refused(f"{body.name('type')}: {what} are not served", param=body.name("type"))
    text = body.take("text")
    body.end(OF_PARTS)
    return {"type": PARTS[kind], "text": text}


def _tool(body: Body) -> dict[str, Any]:
    """Return a tool in a chat's form, for its template."""
    kind = body.take("type")
    if kind != "function":
        what = f"tools of type {kind!r:.64}" if isinstance(kind, str) else "tools without a type"
        raise Refused(f"{body.name('type')}: {what} are not served", param=body.name("type"))
    names = ("name", "description", "parameters")
    function = {name: value for name in names if (value := body.take(name)) is not None}
    body.take_as(bool, "strict")
    body.end(OF_TOOLS)
    return {"type": "function", "function": function}


def _text(given: dict[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    body = Body(given, "text")
    form = body.take_as(dict, "format")
    body.take_only("verbosity", "medium")
    body.end()
    if form is None or form.get("type") != "json_schema":
        return {} if form is None else {"response_format": form}
    schema = {name: value for name, value in form.items() if name != "type"}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _reasoning(given: dict[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    body = Body(given, "reasoning")
    effort = body.take_as(str, "effort")
    for name in ("summary", "generate_summary"):
        body.take_only(name, "auto")
    body.end()
    return {} if effort is None else {"reasoning_effort": effort}


def _logprobs(body: Body) -> dict[str, Any]:
    include, top = body.take_as(list, "include") or [], body.take_as(int, "top_logprobs")
    for at, each in enumerate(include):
        if each not in (LOGPROBS, "reasoning.encrypted_content"):  # of reasoning there is none
            raise Refused(f"include[{at}]: is not served", param=f"include[{at}]")
    if LOGPROBS not in include and not top:
        return {}
    return {"logprobs": True} | ({} if top is None else {"top_logprobs": top})


def _renamed(error: Refused, given: object, *, before: int) -> Refused:
    """Return a chat's refusal with the names of here."""
    param = error.param
    if param is None:
        return error
    name = _name(param, given, before)
    said = error.message
    if said.startswith(f"{param}: "):
        said = f"{name}{said.removeprefix(param)}"
    return Refused(said, param=name, code=error.code, limit=error.limit, given=error.given)


def _name(param: str, given: object, before: int) -> str:
    top = param.replace("[", ".").partition(".")[0]
    if top in NAMES:
        return NAMES[top] + param[len(top) :]
    found = _AT.fullmatch(param)
    if found is None:
        return param
    if found[1] is None or (at := int(found[1]) - before) < 0:
        return "input" if found[1] is None else "instructions"
    return f"input[{at}]{found[2]}" if isinstance(given, list) else "input"
