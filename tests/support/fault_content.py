"""What the stand-in engine of fault tests answers: every token told by tenant, job and index.

Any mix-up of tenants, jobs or positions, and any change of a token, shows in the content.
"""

from __future__ import annotations

import hashlib

# The engine holds the text of every third token back until the next one, as a detokeniser does
# with half a character: a new owner has to come by that text too.
HELD_BACK = 3


def prompt_of(tenant: str, job: str) -> tuple[int, ...]:
    """Return a prompt that names its job."""
    return tuple(f"{tenant}/{job}".encode())


def name_of(prompt_ids: tuple[int, ...]) -> tuple[str, str]:
    """Return the tenant and job that a prompt names."""
    tenant, _, job = bytes(prompt_ids).decode().partition("/")
    return tenant, job


def token_of(tenant: str, job: str, index: int) -> int:
    """Return an answer's token at an index."""
    digest = hashlib.blake2b(f"{tenant}/{job}/{index}".encode(), digest_size=3).digest()
    return int.from_bytes(digest)


def tokens_of(tenant: str, job: str, count: int) -> tuple[int, ...]:
    """Return an answer's first tokens."""
    return tuple(token_of(tenant, job, index) for index in range(count))


def text_of(tenant: str, job: str, start: int, stop: int) -> str:
    """Return the text of a range of an answer's tokens."""
    return "".join(f"{tenant}:{job}:{index} " for index in range(start, stop))


def shown(count: int) -> int:
    """Return of how many tokens the text is out, when `count` are and the answer goes on."""
    return count - (count > 0 and (count - 1) % HELD_BACK == HELD_BACK - 1)
