"""DoRA's gain: what each output of an adapted linear is multiplied by (arXiv 2402.09353).

DoRA learns the length m of each row of a weight apart from its direction, so an output of the
adapted linear is m / ‖w + s · (B A) row‖ times that of plain LoRA, without the bias. The norm needs
the backbone's weight, not the batch: it is taken once, when an adapter comes (decision 022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.adapters import LoraModule

# Rows of the changed weight that exist at a time: about 1 MB of fp32 for most linears.
_ROWS = 512


class NoDirectionError(ValueError):
    """A row of the changed weight is zero or not finite, so nothing can be scaled to a length."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} of the changed weight has no length that DoRA could scale")
        self.row = row


@torch.no_grad()
def gain_of(weight: Tensor, module: LoraModule) -> Tensor:
    """Return m / ‖W + scaling · B A‖, float32 [out], on the weight's device.

    `weight` is the backbone's W [out, in]. The norm of each row is taken in fp32 from W as it is
    served and A and B as the file has them; PEFT takes it in the type of W. Raises
    NoDirectionError where PEFT would divide by zero and give NaN.
    """
    if module.magnitude is None:
        raise ValueError("the module has no magnitude: it is plain LoRA")
    if module.magnitude.shape != weight.shape[:1]:
        raise ValueError(
            f"a magnitude of {list(module.magnitude.shape)} does not fit {len(weight)} outputs"
        )
    device = weight.device
    a = module.a.to(device, torch.float32)
    b = module.b.to(device, torch.float32)
    norms = torch.empty(len(weight), device=device, dtype=torch.float32)
    for start in range(0, len(weight), _ROWS):
        rows = slice(start, start + _ROWS)
        changed = torch.addmm(weight[rows].float(), b[rows], a, alpha=module.scaling)
        torch.linalg.vector_norm(changed, dim=1, out=norms[rows])
    gain = module.magnitude.to(device, torch.float32) / norms
    # A norm past fp32 would make a gain of zero, which is as wrong as an infinite one.
    lost = ~(gain.isfinite() & norms.isfinite())
    if lost.any():
        raise NoDirectionError(int(lost.nonzero()[0]))
    return gain
