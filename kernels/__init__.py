"""Kernels: LoRA by segments (`kernels.sgmv`), paged attention (`kernels.attention`), and the rest.

What a layer has between its products is `kernels.fused`; machine code for CPUs is `kernels.native`.

No `__version__` here: transformers would take the package for the one of that name on PyPI.
"""
