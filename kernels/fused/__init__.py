"""A decoder layer's operations between its products, by Triton or by machine code."""

from aril.kernels.fused.ops import FusedKernels, fused_kernels

__all__ = ["FusedKernels", "fused_kernels"]
