"""A job as a line of JSON: what `aril send --jsonl` and `aril batch` read.

Only what a line says and how it goes with what was said for all lines; whether that is a job, the
contract judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ASKED_FIELDS: Final = (
    "prompt",
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "token_ids",
    "adapter",
    "adapters",
    "adapter_scale",
    "sampling",
    "priority",
    "metadata",
)
"""Fields of a job that the arguments of `Client.stream` have under the same name."""
LINE_FIELDS: Final = frozenset({"id", *ASKED_FIELDS, "deadline"})
BATCH_PRIORITY: Final = -10
"""Of a batch's line that says none: behind the jobs of the same tenant that people wait for."""
FORMS: Final = frozenset({"response_format", "regex", "choice", "grammar"})
"""The fields of `Sampling` of which a job may have one."""


def without_adapters(said: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said for all lines, without adapters where the line has its own choice."""
    if not line.keys() & {"adapter", "adapters"}:
        return dict(said)
    return {name: value for name, value in said.items() if not name.startswith("adapter")}


def sampling_over(said: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling of a line over that of all; a form of its own is the only one."""
    kept = said.keys() - (FORMS if line.keys() & FORMS else frozenset())
    return {name: value for name, value in said.items() if name in kept} | dict(line)
