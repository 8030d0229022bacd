"""The body of a request to `/v1/chat/completions` or `/v1/completions` → the jobs it asks for.

    asked = request_of("/v1/chat/completions", body, bases={"SmolLM2-135M-Instruct"})
    streams = [client.stream(**fields) for fields in asked.jobs]

Names and meanings are OpenAI's and, beyond those, vLLM's; beside them the contract's own
`adapter`, `adapters`, `adapter_scale`, `deadline_ms`, `regex`, `choice` and `grammar`.
docs/batches.md lists what is taken, what is passed over and what is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aril.openai.body import HARMLESS, Body
from aril.openai.common import MAX_JOBS, Common
from aril.openai.errors import Refused
from aril.openai.jobs import judged
from aril.openai.messages import messages_of
from aril.schemas import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aril.openai.common import Asked

CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"
DEFAULT_MAX_TOKENS: Final = 16
"""Of `/v1/completions`, where the body does not say: OpenAI's, and vLLM's."""

TEMPLATE: Final = ("add_generation_prompt", "continue_final_message")
EFFORT: Final = "reasoning_effort"


def request_of(
    url: str,
    body: object,
    *,
    bases: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Asked:
    """Return what a request asks for. Raises `Refused`.

    `bases` are the backbone's names; `defaults` are fields of the contract's job for what the body
    does not say.
    """
    if url == CHAT:
        return chat_request(body, bases=bases, defaults=defaults)
    if url == TEXT:
        return text_request(body, bases=bases, defaults=defaults)
    raise Refused(f"url: must be {CHAT} or {TEXT}", param="url")


def chat_request(
    body: object, *, bases: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Asked:
    """Return what a body of `/v1/chat/completions` asks for; as `request_of`."""
    fields = Body(body)
    names = {"logprobs": "top_logprobs"}
    asked = Common(fields, names, bases, defaults or {})
    sampling = asked.sampling
    if (longest := fields.take("max_tokens")) is not None:
        sampling["max_tokens"] = longest
    if (longest := fields.take("max_completion_tokens")) is not None:
        sampling["max_tokens"] = longest
        names["max_tokens"] = "max_completion_tokens"
    if (top := _chat_logprobs(fields)) is not None:
        sampling["logprobs"] = top
    job = asked.fields | _template(fields, names)
    fields.take_only("add_special_tokens", False)  # noqa: FBT003 - the template writes them
    fields.take_only("echo", False)  # noqa: FBT003 - what the field says
    fields.end(HARMLESS)
    one = judged(job | {"sampling": sampling}, names)
    return asked.made("chat.completion", [one])


def text_request(
    body: object, *, bases: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Asked:
    """Return what a body of `/v1/completions` asks for; as `request_of`."""
    fields = Body(body)
    names = {"token_ids": "prompt"}
    asked = Common(fields, names, bases, defaults or {})
    sampling = asked.sampling
    said_nothing = "max_tokens" not in sampling and not _says(body, "max_tokens")
    if (longest := fields.take("max_tokens")) is not None:
        sampling["max_tokens"] = longest
    elif said_nothing:
        sampling["max_tokens"] = max(DEFAULT_MAX_TOKENS, _number(sampling.get("min_tokens")))
    if (top := fields.take("logprobs")) is not None:
        sampling["logprobs"] = top
    echo = bool(fields.take_as(bool, "echo"))
    best_of = fields.take("best_of")
    if best_of not in (None, asked.n):
        raise Refused("best_of: is served only where it is n", param="best_of")
    prompts = _prompts(fields.take("prompt"))
    if echo and ("logprobs" in sampling or any("prompt" not in prompt for prompt in prompts)):
        raise Refused(
            "echo: is served for a prompt of text, and without logprobs (prompt_logprobs has them)",
            param="echo",
        )
    fields.take_only("add_special_tokens", True)  # noqa: FBT003 - what the field says
    fields.end(HARMLESS)
    jobs = [judged(asked.fields | prompt | {"sampling": sampling}, names) for prompt in prompts]
    echoed = [job.prompt or "" for job in jobs for _ in range(asked.n)] if echo else []
    return asked.made("text_completion", jobs, echoed=tuple(echoed))


def _chat_logprobs(body: Body) -> int | None:
    wanted, top = body.take_as(bool, "logprobs"), body.take_as(int, "top_logprobs")
    if not wanted and top:
        raise Refused("top_logprobs: goes with logprobs: true", param="top_logprobs")
    return (top or 0) if wanted else None


def _template(body: Body, names: dict[str, str]) -> dict[str, Any]:
    """Return messages, and what their template is told."""
    fields: dict[str, Any] = {"messages": messages_of(body.take("messages"))}
    fields |= {name: value for name in TEMPLATE if (value := body.take(name)) is not None}
    tools, choice = body.take("tools"), body.take("tool_choice")
    if choice not in (None, "auto", "none"):
        raise Refused("tool_choice: only auto and none are served", param="tool_choice")
    if tools and choice != "none":  # who is told of no tool calls none
        fields["tools"] = tools
    variables = body.take_as(dict, "chat_template_kwargs") or {}
    if (effort := body.take_as(str, EFFORT)) is not None:
        variables = {EFFORT: effort} | variables
        names["chat_template_kwargs"] = "chat_template_kwargs"
    if variables:
        fields["chat_template_kwargs"] = variables
    return fields


def _prompts(given: object) -> list[dict[str, Any]]:
    """Return each prompt as a field of a job: a text, or token ids."""
    if isinstance(given, str):
        return [{"prompt": given}]
    if not isinstance(given, list) or not given:
        raise Refused(
            "prompt: must be a text, an array of token ids, or an array of such", param="prompt"
        )
    if not isinstance(given[0], str | list):
        return [{"token_ids": given}]
    if len(given) > MAX_JOBS:
        raise Refused(
            f"prompt: at most {MAX_JOBS} prompts, not {len(given)}",
            param="prompt",
            code=ErrorCode.LIMIT_EXCEEDED,
            limit=MAX_JOBS,
            given=len(given),
        )
    return [
        {"prompt": each} if isinstance(given[0], str) else {"token_ids": each} for each in given
    ]


def _says(body: object, field: str) -> bool:
    return isinstance(body, dict) and field in body


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
