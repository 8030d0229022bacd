"""Every field of the installed PEFT: folders that it saved, served with its answers or refused."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING

import pytest
import torch

from aril.worker.adapters.config import HONOURED, TRAINING_ONLY
from tests.support.conformance import BEGIN, DOC, END, TOKENS, Outcome, conform, section
from tests.support.conformance_cases import CASES, FIELDS
from tests.support.marked import between
from tests.support.peft_reference import Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator

HALF_NOISE = 0.013  # see test_answers_in_bfloat16_are_pefts

# Of fields that are honoured or concern training, values that must be refused all the same.
REFUSED = {
    ("peft_type", "`'IA3'`"),
    ("r", "`64`"),
    ("target_modules", "`['q_proj', 'embed_tokens']`"),
    *(("init_lora_weights", f"`'{name}'`") for name in ("pissa", "pissa_niter_4", "olora")),
    *(("init_lora_weights", f"`'{name}'`") for name in ("lora_ga", "corda", "loftq")),
    ("bias", "`'all'`"),
    ("modules_to_save", "`['norm']`, trained"),
    ("alora_invocation_tokens", "`[33, 60]`, with tokens that were trained"),
    ("alora_invocation_tokens", "`[33, 60]`, with `use_dora`"),
    ("target_parameters", "`['embed_tokens.weight']`"),
    ("lora_dropout", "`0.1`, beside `target_parameters`"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Outcome, ...]]:
    """Run all cases once: a batch for each model."""
    with pytest.MonkeyPatch.context() as patch:
        yield conform(tmp_path_factory.mktemp("conformance"), patch)


def test_every_field_of_the_installed_peft_is_in_the_table() -> None:
    """A release of PEFT with a new field fails here, before a tenant finds out."""
    assert {case.field for case in CASES} == FIELDS


def test_what_is_honoured_is_served_and_all_else_refused(outcomes: tuple[Outcome, ...]) -> None:
    """No case has changed sides, and every refusal names its field or a tensor."""
    for outcome in outcomes:
        case = outcome.case
        known = case.field in HONOURED | TRAINING_ONLY
        served = known and (case.field, case.value) not in REFUSED
        assert (outcome.refusal is None) is served, (case, outcome.refusal)
        if not served:
            assert re.search(rf"{case.field}|tensor '|module model\.", str(outcome.refusal)), case


def test_answers_are_pefts(outcomes: tuple[Outcome, ...]) -> None:
    """Tokens and logits of each adapter in the mixed batch are what PEFT gives for it alone."""
    comparison = Comparison()
    served = 0
    for outcome in outcomes:
        if outcome.found is None or outcome.expected is None or outcome.plain is None:
            continue
        served += 1
        label = f"{outcome.case.field} {outcome.case.value}"
        comparison.check(label, outcome.found, outcome.expected)
        # An adapter that did nothing would pass as well.
        change = (outcome.found.logits - outcome.plain.logits).abs().max()
        assert float(change) > 0.1, label
    assert served > len(CASES) // 2
    assert comparison.steps >= 0.9 * served * TOKENS, comparison.near_ties


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Outcome, ...]]:
    """Run all cases on a backbone in bfloat16, whose adapters stay in float32."""
    with pytest.MonkeyPatch.context() as patch:
        yield conform(tmp_path_factory.mktemp("halves"), patch, torch.bfloat16)


def test_answers_in_bfloat16_are_pefts(halves: tuple[Outcome, ...]) -> None:
    """The first token's logits are PEFT's up to rounding, which is less than what adapters change.

    bfloat16 rounds to 8 bits, by 0.17 % in the root mean square. Weights, and some thirty outputs
    on a token's way, are rounded: √60 times that is 1.3 %, more where an adapter makes it so.
    """
    off, changed = [], []
    for outcome in halves:
        if outcome.found is None or outcome.expected is None or outcome.plain is None:
            continue
        ours, theirs, plain = (
            run.logits[0] for run in (outcome.found, outcome.expected, outcome.plain)
        )
        off.append(float((ours - theirs).norm() / theirs.norm()))
        changed.append(float((plain - theirs).norm() / theirs.norm()))
    assert len(off) > len(CASES) // 2
    assert statistics.median(off) < 1.5 * HALF_NOISE
    assert max(off) < 6 * HALF_NOISE
    assert min(changed) > 12 * HALF_NOISE


def test_the_table_in_the_docs_is_of_this_run(outcomes: tuple[Outcome, ...]) -> None:
    """Else: python -m tests.support.conformance."""
    text = DOC.read_text()
    assert between(text, BEGIN, section(outcomes), END) == text
