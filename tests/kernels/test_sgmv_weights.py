"""Adapter weights in slots: both stores load, replace and clear alike."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest
import torch

from aril.kernels.sgmv import (
    GroupShape,
    LoraPair,
    PackedWeights,
    SlotWeights,
    StackedWeights,
    make_plan,
    make_slot_weights,
)
from aril.kernels.sgmv.native_weights import NativeWeights
from tests.support.device import DEVICE, device_of

SHAPE = GroupShape(in_features=12, widths=(7, 5), max_rank=6)
ROWS = torch.tensor([0, 1, 0, -1], dtype=torch.int32)


def pair(rank: int, width: int, seed: int, scale: float = 0.5) -> LoraPair:
    """Draw one linear's LoRA."""
    generator = torch.Generator().manual_seed(seed)
    return LoraPair(
        torch.randn(rank, SHAPE.in_features, generator=generator),
        torch.randn(width, rank, generator=generator),
        scale,
    )


def dora(lora: LoraPair, seed: int) -> LoraPair:
    """Give a linear's LoRA gains of either sign."""
    generator = torch.Generator().manual_seed(seed)
    return replace(lora, gain=torch.randn(len(lora.b), generator=generator))


BIAS = torch.linspace(-2, 2, sum(SHAPE.widths))


def store(backend: str) -> SlotWeights:
    """Make an empty store of two slots, beside a backbone with a bias."""
    device = device_of(backend)
    return make_slot_weights(SHAPE, 2, device=device, backend=backend, bias=BIAS.to(device))


def added(weights: SlotWeights, y: torch.Tensor | None = None) -> torch.Tensor:
    """Return what the store makes of y, by default of zero."""
    device = DEVICE if isinstance(weights, StackedWeights) else torch.device("cpu")
    x = torch.randn(4, SHAPE.in_features, generator=torch.Generator().manual_seed(9)).to(device)
    y = torch.zeros(4, sum(SHAPE.widths)) if y is None else y.clone()
    y = y.to(device)
    weights.add_(y, x, make_plan(ROWS, slots=2, device=device))
    return y.cpu()


def expected(
    slots: dict[int, list[LoraPair | None]], y: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the same by the definition, row by row."""
    x = torch.randn(4, SHAPE.in_features, generator=torch.Generator().manual_seed(9))
    y = torch.zeros(4, sum(SHAPE.widths)) if y is None else y.clone()
    for row, slot in enumerate(ROWS.tolist()):
        starts = accumulate(SHAPE.widths, initial=0)
        for start, width, lora in zip(
            starts, SHAPE.widths, slots.get(slot, [None, None]), strict=False
        ):
            if lora is not None:
                own, bias = (whole[start : start + width] for whole in (y[row], BIAS))
                gain = torch.ones(width) if lora.gain is None else lora.gain
                delta = lora.scale * (x[row] @ lora.a.T) @ lora.b.T
                own.copy_(gain * (own - bias + delta) + bias)
    return y


BACKENDS = pytest.mark.parametrize("backend", ["native", "torch", "triton"])


@BACKENDS
def test_two_adapters(backend: str) -> None:
    """Each row gets its own slot's product, on every linear that its adapter has."""
    weights = store(backend)
    slots: dict[int, list[LoraPair | None]] = {
        0: [pair(3, 7, 1), pair(6, 5, 2)],
        1: [None, pair(1, 5, 3, scale=2.0)],
    }
    for slot, pairs in slots.items():
        weights.load(slot, pairs)
    torch.testing.assert_close(added(weights), expected(slots), rtol=1e-5, atol=1e-5)


@BACKENDS
def test_a_smaller_adapter_after_a_larger_one(backend: str) -> None:
    """A reused slot keeps nothing of what was there: neither ranks nor linears."""
    weights = store(backend)
    weights.load(0, [pair(6, 7, 1), pair(6, 5, 2)])
    small: list[LoraPair | None] = [pair(2, 7, 3), None]
    weights.load(0, small)
    torch.testing.assert_close(added(weights), expected({0: small}), rtol=1e-5, atol=1e-5)


@BACKENDS
def test_dora_beside_lora(backend: str) -> None:
    """One slot scales both linears, the other one of two and adds to the other."""
    weights = store(backend)
    slots: dict[int, list[LoraPair | None]] = {
        0: [dora(pair(3, 7, 1), 5), dora(pair(6, 5, 2), 6)],
        1: [pair(2, 7, 4), dora(pair(1, 5, 3, scale=2.0), 7)],
    }
    for slot, pairs in slots.items():
        weights.load(slot, pairs)
    y = torch.randn(4, sum(SHAPE.widths), generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(added(weights, y), expected(slots, y), rtol=1e-5, atol=1e-5)


@BACKENDS
@pytest.mark.parametrize("fresh", ["lora", "smaller dora", "nothing"])
def test_a_slot_forgets_its_gains(backend: str, fresh: str) -> None:
    """After DoRA on all linears: LoRA, DoRA on one, or nothing has the bits of a fresh slot."""
    adapters: dict[str, list[LoraPair | None]] = {
        "lora": [pair(2, 7, 3), pair(3, 5, 4)],
        "smaller dora": [None, dora(pair(1, 5, 4), 8)],
        "nothing": [None, None],
    }
    pairs = adapters[fresh]
    used, new = store(backend), store(backend)
    used.load(0, [dora(pair(6, 7, 1), 5), dora(pair(6, 5, 2), 6)])
    for weights in (used, new):
        weights.load(0, pairs)
    y = torch.randn(4, sum(SHAPE.widths), generator=torch.Generator().manual_seed(8))
    assert torch.equal(added(used, y), added(new, y))
    if isinstance(used, StackedWeights) and isinstance(new, StackedWeights):
        assert torch.equal(used.gains.values, new.gains.values)
        assert torch.equal(used.gains.present, new.gains.present)


@BACKENDS
def test_a_cleared_slot_does_nothing(backend: str) -> None:
    """Rows that still name a cleared slot keep the backbone's y; loading no pair clears too."""
    weights = store(backend)
    weights.load(0, [pair(6, 7, 1), pair(6, 5, 2)])
    weights.clear(0)
    weights.load(1, [pair(6, 7, 1), None])
    weights.load(1, [None, None])
    assert not added(weights).any()


@BACKENDS
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([None], "2 linears, got 1"),
        ([pair(7, 7, 1), None], r"rank 7 is not in 1\.\.6"),
        ([pair(2, 5, 1), None], r"linear 0: A \(2, 12\) and B \(5, 2\)"),
        ([None, LoraPair(torch.zeros(2, 11), torch.zeros(5, 2), 1.0)], r"A \(2, 11\)"),
        ([None, LoraPair(torch.zeros(2, 12), torch.zeros(5, 3), 1.0)], r"B \(5, 3\)"),
        ([None, replace(pair(2, 5, 1), gain=torch.ones(7))], r"linear 1: gain \(7,\)"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(
    backend: str, pairs: list[LoraPair | None], message: str
) -> None:
    """Wrong shapes raise and leave the slot as it was."""
    weights = store(backend)
    good: list[LoraPair | None] = [pair(3, 7, 1), None]
    weights.load(0, good)
    with pytest.raises(ValueError, match=message):
        weights.load(0, pairs)
    torch.testing.assert_close(added(weights), expected({0: good}), rtol=1e-5, atol=1e-5)


def test_loading_keeps_addresses() -> None:
    """The stacked store writes in place: a captured graph sees the new adapter."""
    weights = StackedWeights(SHAPE, 2, device=DEVICE, dtype=torch.float32, bias=BIAS.to(DEVICE))

    def places() -> list[tuple[int, torch.Size]]:
        parts = (weights.a, *weights.b, weights.ranks, weights.scales, *weights.gains)
        return [(part.data_ptr(), part.shape) for part in parts if part is not None]

    before = places()
    assert len(before) == 8
    adapters: list[list[LoraPair | None]] = [[None, dora(pair(6, 5, 2), 3)], [pair(3, 7, 1), None]]
    for slot, pairs in enumerate(adapters):
        weights.load(slot, pairs)
        assert places() == before
    weights.clear(0)
    assert places() == before


def test_the_store_suits_the_backend() -> None:
    """On a CPU the default is machine code's; torch's is packed; an unknown one is refused."""
    assert isinstance(make_slot_weights(SHAPE, 1), NativeWeights)
    assert isinstance(make_slot_weights(SHAPE, 1, dtype=torch.float64), PackedWeights)
    assert isinstance(make_slot_weights(SHAPE, 1, backend="torch"), PackedWeights)
    assert isinstance(make_slot_weights(SHAPE, 1, backend="triton"), StackedWeights)
    with pytest.raises(ValueError, match="backend"):
        make_slot_weights(SHAPE, 1, backend="numpy")


@pytest.mark.parametrize("other", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_operands_of_another_type_are_refused(backend: str, other: torch.dtype) -> None:
    """How a product is added was chosen for the weights' type: a wrong one raises and is named."""
    weights = make_slot_weights(SHAPE, 2, backend=backend)
    weights.load(0, [pair(3, 7, 1), None])
    x, y = torch.zeros(4, SHAPE.in_features), torch.zeros(4, sum(SHAPE.widths))
    plan = make_plan(ROWS, slots=2)
    for operands in ((y.to(other), x), (y, x.to(other))):
        with pytest.raises(ValueError, match=f"float32: .*{other}"):
            weights.add_(*operands, plan)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_large_segments_take_the_large_path(backend: str) -> None:
    """A prefill of many rows and a decode row agree with the reference in one call."""
    shape = GroupShape(in_features=64, widths=(96, 32), max_rank=32)
    weights = make_slot_weights(shape, 2, backend=backend)
    generator = torch.Generator().manual_seed(3)
    loras = [
        LoraPair(
            torch.randn(32, 64, generator=generator),
            torch.randn(width, 32, generator=generator),
            0.25,
        )
        for width in shape.widths
    ]
    weights.load(0, loras)
    weights.load(1, [loras[0], None])
    x = torch.randn(402, 64, generator=generator)
    ids = torch.tensor([0] * 400 + [1, -1], dtype=torch.int32)
    scattered = torch.tensor([0, -1] + [0, 1] * 200, dtype=torch.int32)
    for row_slots in (ids, scattered):
        y = torch.zeros(402, 128)
        weights.add_(y, x, make_plan(row_slots, slots=2))
        delta = torch.cat([0.25 * (x @ lora.a.T) @ lora.b.T for lora in loras], 1)
        delta[row_slots == -1] = 0
        delta[row_slots == 1, 96:] = 0
        torch.testing.assert_close(y, delta, rtol=1e-4, atol=1e-3)


def test_operands_that_track_gradients() -> None:
    """A caller outside inference mode is served by torch, which numpy would refuse."""
    weights = store("torch")
    weights.load(0, [pair(3, 7, 1), pair(6, 5, 2)])
    x = torch.randn(4, SHAPE.in_features, generator=torch.Generator().manual_seed(9))
    y = torch.zeros(4, sum(SHAPE.widths))
    weights.add_(y, x.requires_grad_(), make_plan(ROWS, slots=2))
    assert y.requires_grad
    torch.testing.assert_close(y.detach(), added(weights), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["fast", "invariant"])
@pytest.mark.parametrize("gains", [False, True])
def test_half_types_are_widened_and_rounded_once(
    half: torch.dtype, mode: str, backend: str, *, gains: bool
) -> None:
    """On a CPU sums are float32 whatever x and y are: y has the bits of float32's sum, rounded.

    Torch keeps the weights in float32 too; machine code rounds them to the type of x and y, which
    changes nothing here.
    """
    pairs: list[LoraPair | None] = [
        replace(each, a=each.a.to(half).float(), b=each.b.to(half).float())
        for each in (pair(3, 7, 1), pair(6, 5, 2, scale=0.25))
    ]
    if gains:
        pairs = [dora(each, 9) for each in pairs if each is not None]
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(4, SHAPE.in_features, generator=generator).to(half)
    y = torch.randn(4, sum(SHAPE.widths), generator=generator).to(half)
    plan = make_plan(ROWS, slots=2, mode=mode)
    bias = BIAS.to(half)
    narrow = make_slot_weights(SHAPE, 2, dtype=half, bias=bias, backend=backend)
    wide = make_slot_weights(SHAPE, 2, bias=bias.float(), backend=backend)
    for weights in (narrow, wide):
        weights.load(0, pairs)
    found, expected_wide = y.clone(), y.float()
    narrow.add_(found, x, plan)
    wide.add_(expected_wide, x.float(), plan)
    assert torch.equal(found, expected_wide.to(half))
    assert not torch.equal(found, y)
    assert torch.equal(found[ROWS == -1], y[ROWS == -1])
