"""Benchmarks on a GPU: correctness first, then every table. `python -m benchmarks.gpu --help`.

No module of this package decides at import where it runs, so that `--rehearse` can take the whole
way through Triton's interpreter on a CPU.
"""
