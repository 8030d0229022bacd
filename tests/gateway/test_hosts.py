"""Names that a gateway without keys answers to."""

from __future__ import annotations

import pytest

from aril.gateway.hosts import is_ours


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST:8000", "gateway", "127.0.0.1:8000"),
        *("[::1]:8000", "[::1]", "10.1.2.3"),
        *("ai.example.org", "ai.example.org:443", "AI.example.org."),
    ],
)
def test_harmless_and_listed_names(host: str) -> None:
    """Addresses, names without a dot, and what is listed."""
    assert is_ours(host, {"ai.example.org"})


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "x.ai.example.org"]
)
def test_foreign_names(host: str) -> None:
    """Whoever owns such a name may make it lead here."""
    assert not is_ours(host, {"ai.example.org"})
