"""Attention on a CPU: long sequences and prompts, shared beginnings, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from aril.kernels.attention import Sight, make_host_plan
from aril.kernels.attention.native import NativePlan
from tests.support.attention_case import SINKS, AttentionCase, make_case


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_long_sequences_keep_their_bits_on_the_cpu(backend: str) -> None:
    """The CPU's invariant paths, over several of their real splits."""
    case = make_case([(40, 700)], page=16)
    whole = case.run(backend, invariant=True)
    torch.testing.assert_close(whole.double(), case.expected(), rtol=0, atol=2e-6)
    last = AttentionCase(
        case.q[-1:],
        case.k_cache,
        case.v_cache,
        case.block_table,
        torch.tensor([0, 1], dtype=torch.int32),
        case.kv_lens,
    )
    assert torch.equal(last.run(backend, invariant=True)[0], whole[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "extras",
    [{}, {"window": 50}, {"chunk": 70}, {"softcap": 0.7}, {"sinks": SINKS}],
    ids=["plain", "window", "chunk", "softcap", "sinks"],
)
def test_long_prompts_by_tiles(extras: dict[str, Any], dtype: torch.dtype) -> None:
    """Blocks of queries, the last not full, beside decodes and a second chunk."""
    case = make_case([(150, 150), (1, 40), (133, 300), (9, 9), (70, 500)], page=16, dtype=dtype)
    result = case.run("native", **extras)
    bound = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(result.double(), case.expected(**extras), rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extras", [{}, {"window": 50}, {"softcap": 0.7}, {"sinks": SINKS}])
@pytest.mark.parametrize("invariant", [False, True])
def test_beginnings_that_sequences_share(
    extras: dict[str, Any], dtype: torch.dtype, *, invariant: bool
) -> None:
    """Two groups on pages of their own, one with several queries a sequence; and some alone."""
    seqs = [(1, 83), (1, 200), (2, 90), (3, 84), (1, 81), (1, 300), (1, 97), (1, 70), (20, 95)]
    case = make_case([*seqs, (1, 97), (1, 65), (1, 66), (1, 80)], page=16, dtype=dtype)
    table = case.block_table
    table[1:7:2, :5] = table[0, :5]
    table[2:7:2, :5] = table[0, :5]
    table[8:12, :4] = table[7, :4]
    plan = make_host_plan(
        table,
        case.cu_q,
        case.kv_lens,
        block_size=16,
        dtype=dtype,
        sight=Sight(extras.get("window")),
        invariant=invariant,
        backend="native",
    )
    assert isinstance(plan, NativePlan)
    assert [each.length for each in plan.shared] == (
        [] if invariant or "window" in extras else [80, 64]
    )
    result = case.run("native", **extras, invariant=invariant)
    bound = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(result.double(), case.expected(**extras), rtol=0, atol=bound)


@pytest.mark.parametrize("block", [-1, 8])
def test_blocks_that_the_cache_does_not_have_are_refused(block: int) -> None:
    """Machine code asks nobody: the plan knows which blocks a step reads."""
    case = make_case([(1, 9)])
    assert len(case.k_cache) < 8
    case.block_table[0, 1] = block
    with pytest.raises(ValueError, match="blocks range"):
        case.run("native")


def test_a_table_that_is_too_short_is_refused() -> None:
    """A sequence has as many blocks as its tokens need."""
    case = make_case([(1, 9)])
    short = replace(case, block_table=case.block_table[:, :2].contiguous())
    with pytest.raises(ValueError, match="9 tokens in a table of 2"):
        short.run("native")


@pytest.mark.parametrize(("queries", "rows"), [([0, 3], 2), ([0, 1], 2), ([0, 20], 20)])
def test_lengths_that_do_not_fit_are_refused(queries: list[int], rows: int) -> None:
    """A plan of more or fewer rows than there are; more queries than the sequence has tokens."""
    case = make_case([(2, 9)])
    q = case.q.new_zeros(rows, *case.q.shape[1:])
    cu_q = torch.tensor(queries, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"rows under a plan|queries of a sequence"):
        replace(case, q=q, cu_q=cu_q).run("native")
