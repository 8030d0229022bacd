"""An adapter's own chat template, as tokenizers save it beside the weights.

It is a tenant's code. Here it is only read; worker/batching/template_child.py runs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aril.worker.adapters.faults import AdapterFault, quoted

TEMPLATE_FILE: Final = "chat_template.jinja"
TOOLS_FILE: Final = "additional_chat_templates/tool_use.jinja"
CONFIG: Final = "tokenizer_config.json"
MAX_TEMPLATE_BYTES: Final = 1 << 18
"""The longest of well-known models has some 20 KB."""

_DEFAULT, _TOOLS = "default", "tool_use"  # transformers' names
SPECIAL: Final = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
)
_MAX_SPECIAL_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The text of a template, and what it may put in."""

    default: str | None
    tool_use: str | None = None
    """What transformers takes instead where a job has tools."""
    special: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by the name of their variable."""

    def text(self, *, tools: bool) -> str | None:
        """Return the template of a job; None where there is none for it."""
        return self.tool_use if tools and self.tool_use is not None else self.default

    def renders_as(self, other: "ChatTemplate") -> bool:
        """Whether both give the same for every job."""
        if (self.default, self.tool_use) != (other.default, other.tool_use):
            return False
        texts = [text for text in (self.default, self.tool_use) if text is not None]
        used = [name for name in SPECIAL if any(name in text for text in texts)]
        return all(self.special.get(name) == other.special.get(name) for name in used)

    @property
    def nbytes(self) -> int:
        """Bytes of the texts, about."""
        return sum(len(text) for text in (self.default, self.tool_use) if text is not None)


def backbones_template(tokenizer: Any) -> ChatTemplate:
    """Return what transformers would render a job by."""
    given = getattr(tokenizer, "chat_template", None)
    named = given if isinstance(given, dict) else {_DEFAULT: given}
    special = {
        name: str(value)
        for name, value in getattr(tokenizer, "special_tokens_map", {}).items()
        if isinstance(value, str)
    }
    return ChatTemplate(named.get(_DEFAULT), named.get(_TOOLS), special)


def read_template(
    files: Mapping[str, bytes], config: Mapping[str, Any], special: Mapping[str, str]
) -> ChatTemplate | None:
    """Return the template of a folder's files; None where it has none.

    A file of its own goes before the configuration's, as in transformers. Special tokens that the
    folder does not name are the backbone's, `special`. AdapterFault for what is no template.
    """
    named = _in_config(config.get("chat_template"))
    for name, file in ((_DEFAULT, TEMPLATE_FILE), (_TOOLS, TOOLS_FILE)):
        if file in files:
            try:
                named[name] = files[file].decode("utf-8")
            except ValueError:
                raise AdapterFault(f"{file} is not UTF-8") from None
    default, tool_use = named.get(_DEFAULT), named.get(_TOOLS)
    if default is None and tool_use is None:
        return None
    own = {name: token for name in SPECIAL if (token := special_token(config, name)) is not None}
    return ChatTemplate(default, tool_use, {**special, **own})


def special_token(config: Mapping[str, Any], name: str) -> str | None:
    """Return a special token of a tokenizer's configuration; None where it has none."""
    value = config.get(name)
    text = value.get("content") if isinstance(value, dict) else value
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > _MAX_SPECIAL_CHARS:
        raise AdapterFault(f"{CONFIG}: {name} is {quoted(value)}, not a token")
    return text


def _in_config(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    pairs = value if isinstance(value, list) else [{"name": _DEFAULT, "template": value}]
    named = {}
    for pair in pairs:
        name, text = (
            (pair.get("name"), pair.get("template")) if isinstance(pair, dict) else (None, None)
        )
        if not isinstance(name, str) or not isinstance(text, str):
            raise AdapterFault(f"{CONFIG}: chat_template is {quoted(value)}, not a template")
        if len(text) > MAX_TEMPLATE_BYTES:
            raise AdapterFault(
                f"{CONFIG}: chat_template is too long", limit=MAX_TEMPLATE_BYTES, given=len(text)
            )
        named[name] = text
    return named
