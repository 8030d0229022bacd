"""`alora_invocation_tokens`: an adapter that works from a place in the prompt on (aLoRA).

Activated LoRA (arXiv 2504.12397): tokens before the last occurrence of the invocation are the bare
backbone's, so that their keys and values are of use to every tenant.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aril.worker.adapters.faults import AdapterFault, quoted

FIELD: Final = "alora_invocation_tokens"

MAX_TOKENS: Final = 256
"""A turn's header is under 10, a sentence under 50; bounds the search in a prompt."""


def read_invocation(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the invocation's tokens, () for none; AdapterFault where PEFT has no such adapter."""
    given = fields.get(FIELD)
    if given is None or given == []:
        return ()
    if not isinstance(given, list) or not all(
        isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in given
    ):
        raise AdapterFault(f"{FIELD} is {quoted(given)}, not tokens")
    if len(given) > MAX_TOKENS:
        raise AdapterFault(f"{FIELD} has too many tokens", limit=MAX_TOKENS, given=len(given))
    if fields.get("use_dora"):
        raise AdapterFault(f"{FIELD} with use_dora is not supported, by PEFT neither")
    if fields.get("task_type") != "CAUSAL_LM":
        raise AdapterFault(
            f"{FIELD} with task_type {quoted(fields.get('task_type'))}: PEFT looks for them in a"
            " prompt only with 'CAUSAL_LM'"
        )
    return tuple(given)


def find_last(prompt_ids: Sequence[int], invocation: Sequence[int]) -> int | None:
    """Return where in the prompt the last occurrence of the invocation begins; None for nowhere."""
    first, wanted, count = invocation[0], tuple(invocation), len(invocation)
    for start in range(len(prompt_ids) - count, -1, -1):
        if prompt_ids[start] == first and tuple(prompt_ids[start : start + count]) == wanted:
            return start
    return None
