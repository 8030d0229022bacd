"""`rank_pattern` and `alpha_pattern`: a tenant's regular expressions over module paths.

They are run as PEFT runs them, so one that could keep a worker busy for long is refused.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from aril.worker.adapters.faults import AdapterFault, quoted

_MAX_PATTERNS: Final = 10_000  # each is tried on each module: 2 s of a core for 560 modules
_MAX_REGEX_PATTERNS: Final = 8
_MAX_REGEX_CHARS: Final = 256
_MAX_REGEX_STEPS: Final = 1 << 20  # about 20 ms for one module
_TYPICAL_PATH_CHARS: Final = 64
_REPEAT: Final = re.compile(r"(?<!\()[*+?{]")
_GROUP: Final = re.compile(r"\((?:\?:)?([^()?][^()]*)\)")
_NO_PRODUCT: Final = re.compile(r"\)[*+?{]|\\[1-9]")
# Sets that a later Python may read otherwise: nested ones, differences, unions.
_AMBIGUOUS_SET: Final = re.compile(r"\[\[|\[\^?\]?[^\]]*(?:--|&&|~~|\|\|)")
_PLAIN_PATTERN: Final = re.compile(r"[A-Za-z0-9_.]+")

Value = TypeVar("Value", int, float)


@dataclass(frozen=True, slots=True, eq=False)
class Pattern(Generic[Value]):
    """A key of `rank_pattern` or `alpha_pattern` and what it sets."""

    regex: re.Pattern[str]
    value: Value


def read_patterns(
    field: str, fields: Mapping[str, Any], value_of: Callable[[str, object], Value]
) -> tuple[Pattern[Value], ...]:
    """Read a field's patterns in their order; AdapterFault names the first that cannot be had.

    `value_of` is given what to call a value in a message, and the value.
    """
    patterns = fields.get(field) or {}
    if not isinstance(patterns, dict):
        raise AdapterFault(f"{field} is not an object")
    if len(patterns) > _MAX_PATTERNS:
        raise AdapterFault(
            f"{field} has too many patterns", limit=_MAX_PATTERNS, given=len(patterns)
        )
    regexes = [key for key in patterns if not _PLAIN_PATTERN.fullmatch(key)]
    if len(regexes) > _MAX_REGEX_PATTERNS:
        raise AdapterFault(
            f"{field} has too many regular expressions",
            limit=_MAX_REGEX_PATTERNS,
            given=len(regexes),
        )
    for key in regexes:
        _refuse_slow(field, key)
    compiled = [_compile(field, key) for key in patterns]
    return tuple(
        Pattern(regex, value_of(f"{field} {quoted(key)}", value))
        for regex, (key, value) in zip(compiled, patterns.items(), strict=True)
    )


def first_match(patterns: tuple[Pattern[Value], ...], module: str, default: Value) -> Value:
    """Return what the first pattern that matches the module's path sets."""
    for pattern in patterns:
        if pattern.regex.match(module):
            return pattern.value
    return default


def _refuse_slow(field: str, key: str) -> None:
    """Raise AdapterFault for a regular expression that could keep a worker busy for long.

    Backtracking tries every place of every repeat with every alternative: that product is bounded,
    and what would make it more than a product (nesting, repeated groups, references) is refused.
    """
    if _AMBIGUOUS_SET.search(key):
        raise AdapterFault(
            f"{field} {quoted(key)} may come to mean something else: escape what is doubled, or a"
            " bracket, in its sets"
        )
    repeats = len(_REPEAT.findall(key))
    groups = _GROUP.findall(key)
    rest = _GROUP.sub("", key)
    alternatives = math.prod(1 + part.count("|") for part in (*groups, rest))
    if (
        len(key) > _MAX_REGEX_CHARS
        or _NO_PRODUCT.search(key)
        or re.search(r"[()]", rest)
        or _TYPICAL_PATH_CHARS ** (repeats + 1) * alternatives > _MAX_REGEX_STEPS
    ):
        raise AdapterFault(f"{field} {quoted(key)} is too complex a regular expression")


def _compile(field: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"(.*\.)?({key})$")  # PEFT's own rule: any tail of the module's path
    except (re.error, OverflowError, RecursionError):
        raise AdapterFault(f"{field} {quoted(key)} is not a regular expression") from None
