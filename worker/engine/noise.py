"""Random numbers that are a function of (seed, token index) and of nothing else.

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
is a keyed bijection of a 128-bit counter. There is no state to carry along, so an answer that is
taken over by another worker goes on with the very numbers that the first one would have drawn.
"""

from typing import Final

Words = tuple[int, int, int, int]

_MASK: Final = 0xFFFFFFFF
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1: the key's increments
_ROUNDS: Final = 10


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Encrypt four 32-bit words under two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (right >> 32) ^ c1 ^ k0,
            right & _MASK,
            (left >> 32) ^ c3 ^ k1,
            left & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, index: int) -> float:
    """Draw the uniform number in [0, 1), of 53 random bits, for the token at `index`.

    `seed` and `index` count modulo 2**64.
    """
    counter = (index & _MASK, index >> 32 & _MASK, 0, 0)
    high, low, _, _ = philox4x32(counter, (seed & _MASK, seed >> 32 & _MASK))
    return ((high >> 5) * 67108864 + (low >> 6)) / 9007199254740992  # (27 bits, 26 bits) / 2**53
