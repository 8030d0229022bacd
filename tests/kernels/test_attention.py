"""Paged attention against the definition in fp64, on both backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aril.kernels.attention import make_host_plan, paged_attention, scores
from tests.support.attention_case import MIXED, SCALE, SINKS, AttentionCase, make_case
from tests.support.device import device_of, sized
from tests.support.launches import LaunchCounter

if TYPE_CHECKING:
    from torch import Tensor

MODES = [("native", False), ("native", True), ("torch", False), ("torch", True), ("triton", False)]
BACKENDS = pytest.mark.parametrize("backend", ["native", "torch", "triton"])


@BACKENDS
@pytest.mark.parametrize("window", [None, 1, 11])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 3e-3), (torch.bfloat16, 3e-2)]
)
def test_prefill_and_decode_in_one_call(
    backend: str, window: int | None, dtype: torch.dtype, tolerance: float
) -> None:
    """Decodes, fresh and chunked prefills share a call, with and without a sliding window."""
    case = make_case(MIXED, dtype=dtype)
    result = case.run(backend, window=window).double()
    torch.testing.assert_close(result, case.expected(window), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("backend", "invariant"), MODES)
@pytest.mark.parametrize("chunk", [7, 16, 64])
def test_a_query_sees_its_own_chunk_only(backend: str, invariant: bool, chunk: int) -> None:
    """Chunks shorter and longer than splits, and ones that end where a sequence does."""
    case = make_case(MIXED)
    result = case.run(backend, chunk=chunk, invariant=invariant).double()
    torch.testing.assert_close(result, case.expected(chunk=chunk), rtol=0, atol=2e-6)


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 3, 6])
def test_a_sight_may_begin_anywhere_and_reach_far(kv_heads: int, *, invariant: bool) -> None:
    """Machine code's spans of 64 keys, seen from each place within four of them to their end."""
    case = make_case([(5, 107), (1, 130), (2, 64), (1, 200)], kv_heads=kv_heads)
    for window in (65, 66, 67, 68, 90, 129):
        result = case.run("native", window=window, invariant=invariant).double()
        torch.testing.assert_close(result, case.expected(window), rtol=0, atol=2e-6)
    result = case.run("native", chunk=35, invariant=invariant).double()
    torch.testing.assert_close(result, case.expected(chunk=35), rtol=0, atol=2e-6)


@BACKENDS
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(1, 1, 16), (3, 3, 5), (4, 1, 8), (17, 1, 8)]
)
def test_head_layouts(backend: str, heads: int, kv_heads: int, dim: int) -> None:
    """One head, one query head a kv head, many; groups and sizes that are no power of two."""
    case = make_case([(1, 18), (3, 7)], heads=heads, kv_heads=kv_heads, dim=dim)
    torch.testing.assert_close(case.run(backend).double(), case.expected(), rtol=0, atol=2e-6)


@BACKENDS
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30)), min_size=1, max_size=4),
    window=st.none() | st.integers(1, 20),
)
def test_random_batches(backend: str, shapes: list[tuple[int, int]], window: int | None) -> None:
    """Any mix of query counts and cached lengths is right."""
    case = make_case([(queries, queries + cached) for queries, cached in shapes])
    result = case.run(backend, window=window).double()
    torch.testing.assert_close(result, case.expected(window), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("backend", "invariant"), MODES)
@pytest.mark.parametrize(
    ("window", "softcap", "sinks"),
    [(None, 0.7, None), (11, 0.7, None), (None, None, SINKS), (11, 0.7, SINKS)],
)
def test_capped_scores_and_sinks(
    backend: str,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    *,
    invariant: bool,
) -> None:
    """Scores are capped before the mask; a sink takes its share of every row, and has no value."""
    case = make_case(MIXED)
    result = case.run(backend, window=window, softcap=softcap, sinks=sinks, invariant=invariant)
    expected = case.expected(window, softcap=softcap, sinks=sinks)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_capped_scores_and_sinks_of_half_types(backend: str, dtype: torch.dtype) -> None:
    """The sums are those of fp32, whatever type the sinks have."""
    case, sinks = make_case(MIXED, dtype=dtype), SINKS.to(dtype)
    result = case.run(backend, softcap=0.7, sinks=sinks).double()
    expected = case.expected(softcap=0.7, sinks=sinks)
    torch.testing.assert_close(result, expected, rtol=0, atol=3e-2)


@pytest.mark.parametrize(("backend", "invariant"), MODES)
@pytest.mark.parametrize("sink", [-1e4, 1e4])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_sink_beyond_all_keys(backend: str, sink: float, *, invariant: bool) -> None:
    """Far below them it changes nothing, far above nothing is left: never a NaN."""
    case, sinks = make_case(MIXED), torch.full((6,), sink)
    result = case.run(backend, sinks=sinks, invariant=invariant)
    expected = case.expected() if sink < 0 else torch.zeros(result.shape, dtype=torch.float64)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)


def test_long_prompts_are_attended_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where scores would take too much memory, a few queries are taken at a time."""
    case = make_case([(30, 41), (1, 7)])
    whole = case.run("torch", window=11, softcap=0.7, sinks=SINKS)
    monkeypatch.setattr(scores, "SCORES", 1000)  # 4 queries of 6 heads and 41 keys
    pieces = case.run("torch", window=11, softcap=0.7, sinks=SINKS)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=2e-6)


@BACKENDS
@pytest.mark.parametrize(
    ("window", "softcap", "sinks"), [(None, None, None), (11, None, None), (11, 0.7, SINKS)]
)
@pytest.mark.usefixtures("rows_keep_their_bits")
def test_a_row_has_the_same_bits_decoded_or_prefilled(
    backend: str, window: int | None, softcap: float | None, sinks: Tensor | None
) -> None:
    """Invariant: a token's row is the same alone, among others, and inside a later prefill."""
    extras: dict[str, Any] = {"window": window, "softcap": softcap, "sinks": sinks}
    mixed = make_case(MIXED)
    together = mixed.run(backend, **extras, invariant=True)
    for seq in (0, 1, 6):
        first, stop = int(mixed.cu_q[seq]), int(mixed.cu_q[seq + 1])
        alone = mixed.sequence(seq).run(backend, **extras, invariant=True)
        assert torch.equal(alone, together[first:stop])
    prefill = make_case([(36, 36)])
    whole = prefill.run(backend, **extras, invariant=True)
    for length in (1, 17, 20, 36):
        step = AttentionCase(
            prefill.q[length - 1 : length],
            prefill.k_cache,
            prefill.v_cache,
            prefill.block_table,
            torch.tensor([0, 1], dtype=torch.int32),
            torch.tensor([length], dtype=torch.int32),
        )
        decoded = step.run(backend, **extras, invariant=True)
        assert torch.equal(decoded[0], whole[length - 1]), f"position {length - 1}"


def test_launches() -> None:
    """One launch for all rows, a second only where a decode may span several splits."""
    case = make_case([(1, 5), (4, 9)]).to(device_of("triton"))
    with LaunchCounter() as counter:
        paged_attention(
            case.q,
            case.k_cache,
            case.v_cache,
            case.block_table,
            case.cu_q,
            case.kv_lens,
            scale=SCALE,
            backend="triton",
        )
    assert counter.ours == {"paged_attention": 1}
    with LaunchCounter() as counter:
        make_case(MIXED).run("triton")
    assert counter.ours == {"paged_attention": 1, "merge_splits": 1}


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_plan_serves_every_layer(backend: str) -> None:
    """With a plan a path on the host reads no lengths: it is right for other caches too."""
    case = make_case(MIXED)
    plan = make_host_plan(
        case.block_table,
        case.cu_q,
        case.kv_lens,
        block_size=4,
        dtype=torch.float32,
        backend=backend,
    )
    twice = AttentionCase(
        case.q, case.k_cache * 2, case.v_cache * 3, case.block_table, case.cu_q, case.kv_lens
    )
    for layer in (case, twice):
        result = paged_attention(
            layer.q,
            layer.k_cache,
            layer.v_cache,
            layer.block_table,
            layer.cu_q,
            layer.kv_lens,
            scale=SCALE,
            backend=backend,
            plan=plan,
        )
        torch.testing.assert_close(result.double(), layer.expected(), rtol=0, atol=1e-5)


@BACKENDS
def test_no_rows(backend: str) -> None:
    """An empty step gives an empty answer."""
    assert make_case([(0, 3)]).run(backend).shape == (0, 6, 12)


@BACKENDS
def test_strided_queries(backend: str) -> None:
    """The queries may be a view of a fused projection."""
    case = make_case([(1, 9), (3, 5)])
    fused = torch.full((4, 10, 12), float("nan"))
    fused[:, :6] = case.q
    view = AttentionCase(
        fused[:, :6], case.k_cache, case.v_cache, case.block_table, case.cu_q, case.kv_lens
    )
    torch.testing.assert_close(view.run(backend).double(), case.expected(), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(17, 5, 12)}, r"q \[17, 5, 12\]"),
        ({"q": torch.zeros(17, 6, 8)}, r"q \[17, 6, 8\]"),
        ({"cu_q": torch.zeros(7, dtype=torch.int32)}, r"cu_q \[7\]"),
        ({"kv_lens": torch.zeros(7)}, "int32"),
        ({"window": 0}, "one of window and chunk, positive: got 0 and None"),
        ({"chunk": -1}, "one of window and chunk, positive: got None and -1"),
        ({"window": 4, "chunk": 4}, "one of window and chunk, positive: got 4 and 4"),
        ({"softcap": 0.0}, "softcap must be positive, got 0.0"),
        ({"sinks": torch.zeros(2)}, r"sinks must be \[6\] on cpu, got \[2\] on cpu"),
        ({"backend": "flash"}, "got 'flash'"),
    ],
)
def test_operands_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    """Wrong shapes, types and settings raise before any work, and say what was given."""
    case = make_case(MIXED)
    operands = {**vars(case), "scale": SCALE, **change}
    with pytest.raises(ValueError, match=message):
        paged_attention(**operands)


def test_registered_operators_pass_opcheck() -> None:
    """Schemas, mutations and fake kernels are what torch.compile and CUDA graphs rely on."""
    from aril.kernels.attention.launch import attend_op, merge_op, store_op  # noqa: PLC0415

    device = device_of("triton")
    case = make_case([(1, 9)]).to(device)
    out = torch.zeros_like(case.q)
    partial = torch.zeros(1, 6, 2, 12, device=device)
    stats = torch.zeros(1, 6, 2, 2, device=device)
    tables = (case.block_table, case.cu_q, case.kv_lens)
    torch.library.opcheck(
        attend_op,
        (
            out,
            partial,
            stats,
            case.q,
            case.k_cache,
            case.v_cache,
            *tables,
            torch.zeros(6, device=device),
            SCALE,
            0.0,
            0,
            False,
            16,
            sized(8, 16),
            sized(8, 16),
            4,
            2,
        ),
    )
    torch.library.opcheck(
        merge_op, (out, partial, stats.fill_(1.0), *tables[1:], None, 0, False, sized(8, 16))
    )
    k, v = torch.zeros(2, 1, 2, 12, device=device)
    place = torch.zeros(1, dtype=torch.int64, device=device)
    torch.library.opcheck(store_op, (k, v, case.k_cache, case.v_cache, place))
