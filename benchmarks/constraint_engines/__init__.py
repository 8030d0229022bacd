"""Engines for constrained answers, side by side: `python -m benchmarks.constraint_engines`."""
