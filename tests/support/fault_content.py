"""What the stand-in engine of fault tests answers: every token told by tenant, job and index.

Any mix-up of tenants, jobs or positions, and any change of a token, shows in the content. So does
the wrong adapter, strength or place in the prompt: an answer's voice goes into every token.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# The engine holds the text of every third token back until the next one, as a detokeniser does
# with half a character: a new owner has to come by that text too.
HELD_BACK = 3
SHARED_ADAPTER = "house-style"  # one content for all
ADAPTERS = ("support", "tone", SHARED_ADAPTER)  # the others are each tenant's own
# Tone works from the last 7 in a job's name on: about every third job of some hundred has one.
INVOCATIONS = {"tone": tuple(b"7")}
MIXABLE = tuple(name for name in ADAPTERS if name not in INVOCATIONS)


def digest_of(tenant: str, adapter: str) -> str:
    """Return the digest of what a tenant means by an adapter's name."""
    owner = "shared" if adapter == SHARED_ADAPTER else tenant
    return hashlib.sha256(f"{owner}/{adapter}".encode()).hexdigest()


def voice_of(digests: Sequence[str], scales: Sequence[float], start: int = 0) -> str | None:
    """Return what tells answers of other adapters, strengths and places apart; None: no adapter."""
    if not digests:
        return None
    scaled = zip(digests, scales, strict=True)
    parts = [digest if scale == 1 else f"{digest}*{scale:.6g}" for digest, scale in scaled]
    return "+".join(parts) + (f"@{start}" if start else "")


def prompt_of(tenant: str, job: str) -> tuple[int, ...]:
    """Return a prompt that names its job."""
    return tuple(f"{tenant}/{job}".encode())


def name_of(prompt_ids: tuple[int, ...]) -> tuple[str, str]:
    """Return the tenant and job that a prompt names."""
    tenant, _, job = bytes(prompt_ids).decode().partition("/")
    return tenant, job


def token_of(tenant: str, job: str, index: int, voice: str | None = None) -> int:
    """Return an answer's token at an index, from the backbone or from an adapter."""
    told = f"{tenant}/{job}/{index}/{voice or ''}"
    return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=3).digest())


def tokens_of(
    tenant: str, job: str, start: int, stop: int, voice: str | None = None
) -> tuple[int, ...]:
    """Return a range of an answer's tokens."""
    return tuple(token_of(tenant, job, index, voice) for index in range(start, stop))


def text_of(tenant: str, job: str, start: int, stop: int, voice: str | None = None) -> str:
    """Return the text of a range of an answer's tokens."""
    said = f"@{voice[:6]}" if voice else ""
    return "".join(f"{tenant}:{job}{said}:{index} " for index in range(start, stop))


def shown(count: int) -> int:
    """Return of how many tokens the text is out, when `count` are and the answer goes on."""
    return count - (count > 0 and (count - 1) % HELD_BACK == HELD_BACK - 1)
