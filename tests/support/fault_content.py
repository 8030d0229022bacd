"""What the stand-in engine of fault tests answers: every token told by tenant, job and index.

Any mix-up of tenants, jobs or positions, and any change of a token, shows in the content. So does
the wrong adapter: its digest goes into every token.
"""

from __future__ import annotations

import hashlib

# The engine holds the text of every third token back until the next one, as a detokeniser does
# with half a character: a new owner has to come by that text too.
HELD_BACK = 3
SHARED_ADAPTER = "house-style"  # one content for all
ADAPTERS = ("support", "tone", SHARED_ADAPTER)  # the others are each tenant's own


def digest_of(tenant: str, adapter: str) -> str:
    """Return the digest of what a tenant means by an adapter's name."""
    owner = "shared" if adapter == SHARED_ADAPTER else tenant
    return hashlib.sha256(f"{owner}/{adapter}".encode()).hexdigest()


def prompt_of(tenant: str, job: str) -> tuple[int, ...]:
    """Return a prompt that names its job."""
    return tuple(f"{tenant}/{job}".encode())


def name_of(prompt_ids: tuple[int, ...]) -> tuple[str, str]:
    """Return the tenant and job that a prompt names."""
    tenant, _, job = bytes(prompt_ids).decode().partition("/")
    return tenant, job


def token_of(tenant: str, job: str, index: int, digest: str | None = None) -> int:
    """Return an answer's token at an index, from the backbone or from an adapter."""
    told = f"{tenant}/{job}/{index}/{digest or ''}"
    return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=3).digest())


def tokens_of(
    tenant: str, job: str, start: int, stop: int, digest: str | None = None
) -> tuple[int, ...]:
    """Return a range of an answer's tokens."""
    return tuple(token_of(tenant, job, index, digest) for index in range(start, stop))


def text_of(tenant: str, job: str, start: int, stop: int, digest: str | None = None) -> str:
    """Return the text of a range of an answer's tokens."""
    voice = f"@{digest[:6]}" if digest else ""
    return "".join(f"{tenant}:{job}{voice}:{index} " for index in range(start, stop))


def shown(count: int) -> int:
    """Return of how many tokens the text is out, when `count` are and the answer goes on."""
    return count - (count > 0 and (count - 1) % HELD_BACK == HELD_BACK - 1)
