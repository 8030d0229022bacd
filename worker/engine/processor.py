"""What the processor at hand multiplies fast, and by which library."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

# Instructions with which oneDNN multiplies bfloat16 without widening it first; by cpuinfo's names.
BFLOAT16: Final = ("avx512_bf16", "amx_bf16")


def cpu_dtype(found: Mapping[str, Any] | None = None) -> torch.dtype:
    """Return the type that a CPU serves in when nobody chose one: bfloat16 where it is the faster.

    `found` are the processor's capabilities by name, by default those of the one at hand. ARM's
    bfloat16 is left out: nobody has measured it here.
    """
    capabilities = torch.cpu.get_capabilities() if found is None else found
    fast = torch.backends.mkldnn.is_available() and any(map(capabilities.get, BFLOAT16))
    return torch.bfloat16 if fast else torch.float32


@cache
def has_onednn() -> bool:
    """Whether this build of torch has oneDNN's linear, which its own compiler emits on CPUs.

    torch multiplies float32 by Intel's MKL, which does not take AVX-512 on an AMD processor that
    has it; oneDNN, in the same wheel, does.
    """
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
