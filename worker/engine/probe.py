"""Shows at start that packed rows give what the model itself gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.fused import fused_kernels
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.int8_weight import refuse_where_no_int8
from aril.worker.engine.invariance import (
    probe_invariance,
    refuse_other_linears,
    refuse_where_not_invariant,
)
from aril.worker.engine.layer_kernels import lead_layers, let_go
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.packed_logits import packed_logits, probe_sequences
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.engine.config import Backend, EngineConfig
    from aril.worker.engine.model import Backbone

log = get_logger(__name__)

_LENGTHS = (1, 9, 2, 23)

# Largest difference of a logit, as a share of the largest logit. Both sides round differently (SDPA
# sums in another order); seen with SmolLM2-135M: 4e-6 in fp32. A wrong mask, position or head
# moves logits by more than a tenth. Routers of a tiny Mixtral that round to another expert moved
# bfloat16's by 5.1e-2.
LOGIT_BOUND = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}

# The same of weights in eight bits, by the root of the mean square around the mean. Seen in either
# type: SmolLM2-135M 0.13, tiny random models 0.01 to 0.16. A product of two layers that gives
# nothing moves them by 0.5 and more, of thirty layers the first by 0.9 and the last by 1.3; rows
# without their factors by 0.9.
INT8_BOUND = 0.4


def install_adapters(backbone: Backbone, config: EngineConfig) -> AdapterLayers:
    """Put the adapter layers into the backbone and prove that nothing else has changed.

    Where the model cannot work with fused linears (it may want an output of its own memory), each
    linear gets a group of its own. Raises UnsupportedModelError when that is not enough.
    """
    if config.invariant:
        refuse_where_not_invariant(config)
    if config.weights == "int8":
        refuse_where_no_int8(config)
    expected = plain_logits(backbone)
    layers = AdapterLayers(backbone, config)
    reason = _why_not_fused(backbone, expected, config.backend)
    if reason is not None:
        log.warning("linears_not_fused", model=backbone.model.config.model_type, reason=reason)
        layers = AdapterLayers(
            backbone, config, [(name,) for group in layers.groups for name in group.names]
        )
        probe_packed_rows(backbone, expected, config.backend)
    if config.weights == "int8":  # which moves logits by more than a proof allows: it comes last
        _lead_layers(backbone, expected, config.backend)
        layers.pack()
        probe_int8_rows(backbone, expected, config.backend)
    else:
        layers.pack()
        _lead_layers(backbone, expected, config.backend)
    if config.invariant:
        refuse_other_linears(backbone, [name for group in layers.groups for name in group.names])
        layers.find_row_counts()
        probe_invariance(backbone, config)
    return layers


def _lead_layers(backbone: Backbone, expected: list[Tensor], backend: Backend) -> None:
    """Lead decoder layers to a function of ours, and prove the whole, with them or without."""
    led = []
    if fused_kernels(backend, backbone.device, backbone.dtype) is not None:
        led = lead_layers(backbone.model, backend)
    try:
        probe_packed_rows(backbone, expected, backend)
    except UnsupportedModelError as error:
        if not led:
            raise
        kind = backbone.model.config.model_type
        log.warning("layers_not_led", model=kind, reason=str(error))
        let_go(led)
        probe_packed_rows(backbone, expected, backend)


def _why_not_fused(backbone: Backbone, expected: list[Tensor], backend: Backend) -> str | None:
    """Run the probe on fused linears; return in one line what it found, None if all is well.

    What says nothing about the fusion is passed on, memory that ran out above all.
    """
    try:
        probe_packed_rows(backbone, expected, backend)
    except UnsupportedModelError as error:
        return str(error)
    except RuntimeError as error:
        if "stride" not in str(error):  # in each of torch's refusals to view a slice
            raise
        return str(error).splitlines()[0]
    return None


def probe_packed_rows(backbone: Backbone, expected: list[Tensor], backend: Backend) -> float:
    """Run the probe's rows mixed, in two chunks each, and compare with `plain_logits`.

    Returns the largest difference as a share of the largest logit. Raises UnsupportedModelError
    when it exceeds LOGIT_BOUND for the backbone's dtype.
    """
    found = _mixed_logits(backbone, backend)
    shares = [(a - b).abs().max() / b.abs().max() for a, b in zip(found, expected, strict=True)]
    worst = float(torch.stack(shares).max())  # unlike Python's, NaN if any of them is
    bound = LOGIT_BOUND[backbone.dtype]
    if not worst <= bound:
        raise UnsupportedModelError(
            f"{backbone.model.config.model_type}: logits of packed rows differ from the model's "
            f"own by {worst:.1e} of the largest, allowed is {bound:.0e}"
        )
    return worst


def probe_int8_rows(backbone: Backbone, stored: list[Tensor], backend: Backend) -> float:
    """Hold the probe's rows, computed with weights in eight bits, to logits of the stored ones.

    That packed rows are the model's own is shown before weights are packed; this shows that the
    products are right on this processor. Returns the mean square of the differences' root as a
    share of the logits', both around their mean. Raises UnsupportedModelError when it exceeds
    INT8_BOUND.
    """
    found, expected = (
        each - each.mean(-1, keepdim=True)
        for each in (torch.cat(_mixed_logits(backbone, backend)), torch.cat(stored))
    )
    share = float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    if not share <= INT8_BOUND:
        raise UnsupportedModelError(
            f"{backbone.model.config.model_type}: with weights in eight bits logits differ by "
            f"{share:.1e} of the stored ones', allowed is {INT8_BOUND:.0e}: ARIL_WEIGHTS"
        )
    return share


def _mixed_logits(backbone: Backbone, backend: Backend) -> list[Tensor]:
    """Logits [length, vocab] of each of the probe's rows, packed, in two chunks each."""
    rows = probe_sequences(_LENGTHS, backbone.vocab_size)
    halves = [ids[: len(ids) // 2] for ids in rows]
    return [logits.float() for logits in packed_logits(backbone, [halves, rows], backend)]


def plain_logits(backbone: Backbone) -> list[Tensor]:
    """Logits [length, vocab] of each of the probe's rows by the model's plain forward."""
    return [
        backbone.plain_forward(torch.tensor(ids, device=backbone.device)).float()
        for ids in probe_sequences(_LENGTHS, backbone.vocab_size)
    ]
