"""A chat's messages, out of OpenAI's form into the contract's."""

from __future__ import annotations

from typing import Any, Final

from aril.openai.body import Body
from aril.openai.errors import Refused

ROLES: Final = {"developer": "system"}
"""What OpenAI calls otherwise. Templates know no other word."""
KEPT: Final = ("name", "tool_calls", "tool_call_id")
# Of a message that was an answer and is sent back whole.
OF_ANSWERS: Final = frozenset({"annotations", "reasoning", "reasoning_content"})
OF_PARTS: Final = frozenset({"cache_control", "prompt_cache_breakpoint"})


def messages_of(given: object) -> list[dict[str, Any]]:
    """Return the messages as maps of the contract. Raises `Refused`.

    Roles, lengths and the like are judged by the contract itself.
    """
    if not isinstance(given, list):
        raise Refused("messages: must be an array", param="messages")
    return [_message(Body(each, f"messages[{at}]")) for at, each in enumerate(given)]


def _message(body: Body) -> dict[str, Any]:
    role = body.take("role")
    message: dict[str, Any] = {"role": ROLES.get(role, role) if isinstance(role, str) else role}
    content = body.take("content")
    if isinstance(content, list):
        content = [
            _part(Body(each, body.name(f"content[{at}]"))) for at, each in enumerate(content)
        ]
    if content is not None:
        message["content"] = content
    for name in KEPT:
        if (value := body.take(name)) not in (None, []):
            message[name] = value
    for name in ("audio", "function_call", "refusal"):
        body.take_only(name)
    body.end(OF_ANSWERS)
    return message


def _part(body: Body) -> dict[str, Any]:
    kind = body.take("type")
    if kind != "text":
        what = f"parts of type {kind!r:.64}" if isinstance(kind, str) else "parts without a type"
        raise Refused(f"{body.name('type')}: {what} are not served", param=body.name("type"))
    text = body.take("text")
    body.end(OF_PARTS)
    return {"type": "text", "text": text}
