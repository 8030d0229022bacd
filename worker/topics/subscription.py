"""Which topics a worker reads jobs from."""

from __future__ import annotations

import re
from typing import Final

# Names of tenants, and their letters; the last of these does not begin one.
_FIRST: Final = "[a-z0-9]"
_NEXT: Final = "[a-z0-9-]"
_MOST: Final = 63
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789-"
_TENANT: Final = re.compile(f"{_FIRST}{_NEXT}{{0,{_MOST - 1}}}")


def topic_pattern(jobs_topic: str, dlq_topic: str) -> re.Pattern[str] | None:
    """Return the subscription pattern when every tenant has a jobs topic, else None.

    The dead letters often live under the same prefix; the worker must not read them as jobs.
    """
    if not jobs_topic.endswith("*"):
        return None
    prefix = re.escape(jobs_topic.removesuffix("*"))
    return re.compile(f"^(?!{re.escape(dlq_topic)}$){prefix}[a-z0-9][a-z0-9-]{{0,62}}$")


def broker_pattern(jobs_topic: str, dlq_topic: str) -> str | None:
    """Return the same for brokers, which in KIP-848 match themselves, by RE2: it cannot look ahead.

    What is left out is spelled out: names that are shorter, longer, or differ at some letter.
    """
    if not jobs_topic.endswith("*"):
        return None
    stem = jobs_topic.removesuffix("*")
    without = dlq_topic.removeprefix(stem) if dlq_topic.startswith(stem) else ""
    if _TENANT.fullmatch(without) is None:
        return f"^{re.escape(stem)}{_FIRST}{_NEXT}{{0,{_MOST - 1}}}$"
    ways = []
    for at, letter in enumerate(without):
        same = re.escape(without[:at])
        if at:
            ways.append(same)
        others = "".join(each for each in (_LETTERS if at else _LETTERS[:-1]) if each != letter)
        ways.append(f"{same}[{others}]{_NEXT}{{0,{_MOST - at - 1}}}")
    if left := _MOST - len(without):
        ways.append(f"{re.escape(without)}{_NEXT}{{1,{left}}}")
    return f"^{re.escape(stem)}(?:{'|'.join(ways)})$"
