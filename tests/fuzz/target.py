"""What a surface is fuzzed by: how a case is made, what must hold of it, what it may cost."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from aril.schemas import Epoch, ErrorRecord, JobError, decode_reply, encode_reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

ACCEPTED: Final = "accepted"
BASE_BYTES: Final = 512 << 10
"""What any case may hold beside its multiple: messages, exceptions, tables that grow by chance."""

_SLUG: Final = re.compile(r"[a-z0-9_.]{1,64}")


class BrokenRuleError(AssertionError):
    """Something that must hold of every case does not hold of this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One surface that takes something from strangers.

    `make` draws a case. `check` gives it to our code and looks at what came of it: it returns
    ACCEPTED or the slug of a refusal, and raises for whatever must not be. A case may hold
    `factor` times its `size` at once, in bytes, and `base`.
    """

    name: str
    about: str
    share: int
    """Of ten thousand cases: what is cheap gets more."""
    make: Callable[[Random], Any]
    check: Callable[[Any], str]
    size: Callable[[Any], int] = len
    factor: int = 16
    base: int = BASE_BYTES
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    """What has to be there while cases run: a folder, quiet logs."""

    def case(self, seed: int, number: int) -> Any:
        """Make the case of this number, the same one each time."""
        return self.make(Random(f"{seed}/{self.name}/{number}"))

    def limit_bytes(self, case: Any) -> int:
        """Return what a case may hold at once."""
        return self.base + self.factor * self.size(case)


def holds(truth: object, what: str) -> None:
    """Raise BrokenRuleError unless it is true; `assert` would be gone under -O."""
    if not truth:
        raise BrokenRuleError(what)


def told(error: JobError) -> str:
    """Check that a tenant can be told of an error; return its code."""
    record = ErrorRecord.of(error, job="j", epoch=Epoch(1, 1), worker="w", index=0)
    again = decode_reply(encode_reply(record))
    holds(again == record, "an error record comes back as it was sent")
    holds("\n" not in record.message and record.message.isprintable(), "a message is one line")
    return error.code.value


def slug(text: str) -> str:
    """Check that a reason is a short word, fit for a header; return it."""
    holds(_SLUG.fullmatch(text), "a reason is a slug")
    return text
