"""A job's messages, and what goes with them, as chat templates know them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from aril.schemas import ErrorCode, Job, JobError

if TYPE_CHECKING:
    from collections.abc import Collection

    from aril.schemas.conversation import Message

EFFORT: Final = "reasoning_effort"
"""A parameter of OpenAI's, and so refused where it would do nothing; other variables are hints."""


def messages_of(job: Job) -> list[dict[str, Any]]:
    """Return the turns of a conversation."""
    return [_for_template(message) for message in job.messages or ()]


def arguments_of(job: Job, reserved: Collection[str], template: str) -> dict[str, Any]:
    """Return what transformers is told beside the messages, the job's own variables among it.

    JobError `invalid_job` for a variable whose name is `reserved`, and for an effort that the
    `template` cannot ask for, since it does not name it.
    """
    if taken := sorted(job.chat_template_kwargs.keys() & set(reserved)):
        raise JobError(
            ErrorCode.INVALID_JOB, f"chat_template_kwargs: {taken[0]} is not for jobs to set"
        )
    if EFFORT in job.chat_template_kwargs and EFFORT not in template:
        raise JobError(
            ErrorCode.INVALID_JOB, f"chat_template_kwargs: the chat template knows no {EFFORT}"
        )
    return {
        "tools": list(job.tools) if job.tools else None,
        "add_generation_prompt": job.add_generation_prompt and not job.continue_final_message,
        "continue_final_message": job.continue_final_message,
        **job.chat_template_kwargs,
    }


def _for_template(message: Message) -> dict[str, Any]:
    """Return a turn as templates know it: content is always there, what else was given is."""
    turn = message.model_dump(exclude_defaults=True) | {"content": message.text}
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call with its arguments as a map, as templates want them; OpenAI has a text."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return call | {"function": function | {"arguments": arguments}}
