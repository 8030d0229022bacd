"""Kernels: LoRA by segments (`kernels.sgmv`) and paged attention (`kernels.attention`).

No `__version__` here: transformers would take the package for the one of that name on PyPI.
"""
