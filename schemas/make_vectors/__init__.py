"""Test vectors of the wire contract: bytes, what they mean, and what a reader makes of them.

`python -m aril.schemas.make_vectors` rewrites schemas/vectors/*.json. What is expected of each
vector is written down here by hand, never computed with the code under test.
"""
