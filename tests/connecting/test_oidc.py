"""Tokens from an OpenID provider: asked for once, kept for most of their time, never shown."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from aril.connecting.errors import SecurityError, TokenError
from aril.connecting.oidc import OidcTokens
from aril.connecting.settings import ConnectionSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def provider_at(url: str) -> OidcTokens:
    """Return the provider that asks there."""
    return OidcTokens(
        ConnectionSettings.model_validate(
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_token_provider": "oidc",
                "sasl_oidc_url": url,
                "sasl_oidc_client_id": "worker",
                "sasl_oidc_client_secret": "hunter2",
                "sasl_oidc_scope": "kafka",
            }
        )
    )


class Endpoint:
    """A token endpoint that answers as it is told, and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, dict[str, Any]]] = []
        self.answer: Any = None  # None: a new token that is good for 100 s
        self.status = 200

    async def serve(self, request: web.Request) -> web.Response:
        """Answer a request for a token."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.headers.get("Authorization"), form))
        if isinstance(self.answer, bytes):
            return web.Response(body=self.answer, status=self.status)
        told = self.answer or {"access_token": f"token-{len(self.asked)}", "expires_in": 100}
        return web.json_response(told, status=self.status, headers={"Location": "/elsewhere"})


@asynccontextmanager
async def running(endpoint: Endpoint) -> AsyncIterator[str]:
    """Run it; give its address."""
    app = web.Application()
    app.router.add_post("/token", endpoint.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    finally:
        await runner.cleanup()


async def test_a_token_is_asked_for_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many connections at once share it; near its end another one is there for the next."""
    endpoint, now = Endpoint(), 1_000.0
    monkeypatch.setattr("aril.connecting.oidc.time.time", lambda: now)
    async with running(endpoint) as url:
        provider = provider_at(url)
        found = await asyncio.gather(*(provider.token() for _ in range(5)))
        assert {token.value for token in found} == {"token-1"}
        assert found[0].expires_at == 1_100.0
        now = 1_070.0
        assert (await provider.token()).value == "token-1"
        now = 1_080.0
        assert (await provider.token()).value == "token-2"
    form = {"grant_type": "client_credentials", "scope": "kafka"}
    assert endpoint.asked == [("Basic d29ya2VyOmh1bnRlcjI=", form)] * 2


async def test_while_the_provider_is_down_the_last_token_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as it is good, and no longer."""
    endpoint, now = Endpoint(), 1_000.0
    monkeypatch.setattr("aril.connecting.oidc.time.time", lambda: now)
    async with running(endpoint) as url:
        provider = provider_at(url)
        await provider.token()
        endpoint.status, now = 503, 1_099.0
        assert (await provider.token()).value == "token-1"
        now = 1_100.0
        with pytest.raises(TokenError, match=r"127\.0\.0\.1 answers 503"):
            await provider.token()
    with pytest.raises(TokenError, match=r"127\.0\.0\.1: ClientConnectorError"):
        await provider.token()


@pytest.mark.parametrize(
    ("status", "answer", "line"),
    [
        (401, {"error": "hunter2"}, "answers 401"),
        (302, {}, "answers 302"),
        (200, b"", "no bearer token"),
        (200, b"[" * 100_000, "no bearer token"),
        (200, ["hunter2"], "no bearer token"),
        (200, {"token": "hunter2"}, "no bearer token"),
        (200, {"access_token": 3}, "no bearer token"),
        (200, {"access_token": "hunter2 \u0001"}, "no bearer token"),
        (200, b'{"access_token": "' + b"a" * 300_000 + b'"}', "at too great length"),
    ],
)
async def test_an_answer_without_a_token_is_one_line(status: int, answer: Any, line: str) -> None:
    """It says who answered and how, and holds nothing of what came."""
    endpoint = Endpoint()
    endpoint.status, endpoint.answer = status, answer
    async with running(endpoint) as url:
        with pytest.raises(TokenError, match=line) as caught:
            await provider_at(url).token()
    assert "hunter2" not in str(caught.value)
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "expires_in", [None, 0, -1, "soon", 1e300, 10**400], ids=lambda each: str(each)[:9]
)
async def test_a_token_that_does_not_say_how_long_it_lasts_is_used_once(expires_in: Any) -> None:
    """It is asked for anew each time: nobody knows better."""
    endpoint = Endpoint()
    endpoint.answer = {"access_token": "opaque", "expires_in": expires_in}
    async with running(endpoint) as url:
        provider = provider_at(url)
        assert [(await provider.token()).value for _ in range(2)] == ["opaque"] * 2
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    "url", ["http://id.example/token", "ftp://id.example", "id.example", "https://", "https://[x"]
)
def test_a_secret_is_not_sent_in_the_clear(url: str) -> None:
    """By https, but for a helper on the same machine."""
    with pytest.raises(SecurityError, match="sasl_oidc_url: must be https"):
        provider_at(url)
