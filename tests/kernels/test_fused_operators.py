"""The registered operators of a layer: what torch.compile and CUDA graphs rely on."""

from __future__ import annotations

import pytest
import torch

from aril.kernels.fused.launch import add_norm_op, gate_op, place_op, rms_norm_op, rotate_op
from tests.support.device import DEVICE


def rows(*shape: int) -> torch.Tensor:
    """Make an operand of twos."""
    return torch.full(shape, 2.0, device=DEVICE)


PLACES = torch.tensor([1, 0], device=DEVICE)
CALLS = {
    "add_norm": (add_norm_op, (rows(2, 8), rows(2, 8), rows(2, 8), rows(2, 8), rows(8), 1e-5, 0.0)),
    "rms_norm": (rms_norm_op, (rows(2, 8), rows(2, 8), rows(8), 1e-5, 1.0)),
    "gate": (gate_op, (rows(2, 8), rows(2, 16), rows(2, 16), 8, True)),
    "rotate": (rotate_op, (rows(2, 3, 4), rows(2, 3, 4), rows(2, 4), rows(2, 4))),
    "place_heads": (
        place_op,
        (
            *(rows(2, 2, 4), rows(2, 16), rows(1, 2, 1, 4), rows(1, 2, 1, 4), PLACES),
            *(rows(2, 4), rows(2, 4), rows(4), None, 1e-5, 0.0, 0.0, 0.0),
        ),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_registered_operators_pass_opcheck(name: str) -> None:
    """Schemas, mutations and fake kernels; each is one operator of ours by its name."""
    operator, operands = CALLS[name]
    assert operator.name() == f"aril::{name}"
    torch.library.opcheck(operator, operands)
