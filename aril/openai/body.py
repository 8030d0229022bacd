"""A request's body, field by field: each is taken, known to be harmless, or refused by name.

What would change the answer and is not served is an error, never passed over: an answer that looks
right and is not is worse than none. What only says how an answer is billed, cached or found again
is passed over, since clients send it by themselves. A field that is null is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from aril.openai.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = TypeVar("Kind")

HARMLESS: Final = frozenset(
    {
        # OpenAI's: accounts, caches, speed.
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        # vLLM's: the same, and which library it should use.
        "cache_salt",
        "guided_decoding_backend",
        "request_id",
        "return_tokens_as_token_ids",
    }
)
"""Whatever these say, the answer is the same."""

ONLY: Final[Mapping[str, tuple[object, ...]]] = {
    # OpenAI's.
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"], []),
    "moderation": (),
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM's.
    "allowed_token_ids": (),
    "bad_words": ([],),
    "chat_template": (),
    "documents": ([],),
    "guided_whitespace_pattern": (),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": (),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "mm_processor_kwargs": ({},),
    "prompt_embeds": (),
    "repetition_detection": (),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "structural_tag": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
}
"""Not served: what they may say all the same, as it asks for nothing."""

WORDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    dict: "an object",
    int: "an integer",
    list: "an array",
    str: "a text",
}


class Body:
    """The fields of a JSON object that have not been taken yet."""

    def __init__(self, fields: object, within: str = "") -> None:
        """Take over what was parsed; `within` is the field that it is. Raises `Refused`."""
        if not isinstance(fields, dict):
            raise Refused(f"{within or 'the body'}: must be an object", param=within or None)
        self._fields: dict[str, Any] = {
            name: value for name, value in fields.items() if value is not None
        }
        self._within = within

    def name(self, field: str) -> str:
        """Return what a field is called from outside."""
        return f"{self._within}.{field}" if self._within else field

    def take(self, field: str) -> Any:
        """Return a field, whatever it is; None if it is not there."""
        return self._fields.pop(field, None)

    def take_as(self, kind: type[Kind], field: str) -> Kind | None:
        """Return a field of one type, None if it is not there. Raises `Refused`."""
        value = self._fields.pop(field, None)
        # True is an int to Python, and to nobody else.
        if value is None or (isinstance(value, kind) and (kind is bool) == isinstance(value, bool)):
            return value
        raise Refused(f"{self.name(field)}: must be {WORDS[kind]}", param=self.name(field))

    def take_only(self, field: str, *allowed: object) -> None:
        """Pass over a field that says one of `allowed`. Raises `Refused`, with the field's name."""
        value = self._fields.pop(field, None)
        if value is None or any(value == each and type(value) is type(each) for each in allowed):
            return
        raise Refused(f"{self.name(field)}: is not served", param=self.name(field))

    def end(self, harmless: frozenset[str] = frozenset()) -> None:
        """Judge what is left. Raises `Refused` for the first that is no harmless one."""
        for field in [*self._fields]:
            if field in harmless:
                del self._fields[field]
            elif field in ONLY and not self._within:
                self.take_only(field, *ONLY[field])
            else:
                raise Refused(f"{self.name(field)}: is no field of this", param=self.name(field))
