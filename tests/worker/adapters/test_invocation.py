"""Where an adapter with an invocation begins to work, and which such PEFT does not have."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.lora.variants import calculate_alora_offsets

from aril.worker.adapters.config import parse_config
from aril.worker.adapters.faults import AdapterFault
from aril.worker.adapters.invocation import MAX_TOKENS, find_last
from tests.support.adapter_folders import fields

GOOD = {"alora_invocation_tokens": [7, 8], "task_type": "CAUSAL_LM"}


@pytest.mark.parametrize(
    ("prompt", "invocation", "start"),
    [
        ((1, 7, 8, 2), (7, 8), 1),
        ((7, 8, 1, 7, 8, 2, 7), (7, 8), 3),  # the last of several
        ((1, 2, 7, 8), (7, 8), 2),  # it ends the prompt
        ((7, 8), (7, 8), 0),  # it is the prompt
        ((1, 1, 1, 1), (1, 1), 2),  # they overlap
        ((1, 7, 2, 8), (7, 8), None),
        ((8,), (7, 8), None),  # longer than the prompt
    ],
)
def test_the_last_occurrence_counts(
    prompt: tuple[int, ...], invocation: tuple[int, ...], start: int | None
) -> None:
    """Wherever it stands, and as the index of its first token."""
    assert find_last(prompt, invocation) == start


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=20),
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
)
def test_the_place_is_pefts(prompt: list[int], invocation: list[int]) -> None:
    """PEFT counts from the prompt's end, and finds the same."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", alora_invocation_tokens=invocation)
    (offset,) = calculate_alora_offsets({"a": config}, "a", torch.tensor([prompt]))
    start = find_last(prompt, invocation)
    assert (None if start is None else len(prompt) - start) == offset


def test_it_is_read_from_the_configuration() -> None:
    """An empty one is none, as in PEFT."""
    assert parse_config(fields(**GOOD)).invocation == (7, 8)
    assert parse_config(fields(**GOOD | {"alora_invocation_tokens": []})).invocation == ()
    assert parse_config(fields()).invocation == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alora_invocation_tokens": "go"}, "not tokens"),
        ({"alora_invocation_tokens": [1, True]}, "not tokens"),
        ({"alora_invocation_tokens": [-1]}, "not tokens"),
        ({"alora_invocation_tokens": [1] * (MAX_TOKENS + 1)}, "too many tokens"),
        ({"use_dora": True}, "use_dora"),
        ({"task_type": None}, "CAUSAL_LM"),
    ],
)
def test_what_peft_would_not_serve_is_refused(changes: dict[str, Any], words: str) -> None:
    """By name, before a tenant meets it."""
    with pytest.raises(AdapterFault, match=words) as caught:
        parse_config(fields(**GOOD | changes))
    assert "alora_invocation_tokens" in str(caught.value)
