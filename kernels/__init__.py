"""Kernels: LoRA by segments (`sgmv`), paged attention (`attention`), and the rest.

What a layer has between its products is `fused`; machine code for CPUs is
`native`.

No `__version__` here: transformers would take the package for the one of that name on PyPI.
"""
