"""Aril beside other ways to serve adapters on the same CPU, each in an environment of its own.

`make bench-peers` sets them up and measures; see `__main__` for what, and `setup.sh` for versions.
"""
