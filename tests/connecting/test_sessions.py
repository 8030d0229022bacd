"""Connections are renewed in time, with nothing lost of what was asked on them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.protocol.group import HeartbeatRequest

from aril.connecting import bearer, sessions
from aril.connecting.bearer import Bearer
from aril.connecting.errors import TokenError
from aril.connecting.sessions import renew_sessions
from aril.connecting.tokens import Token
from tests.support.sasl_broker import NODE, SaslBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FOREVER_MS = 3_600_000


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SaslBroker]:
    """Run a broker whose sessions last long; nothing waits a second before it is tried again."""
    monkeypatch.setattr(sessions, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(bearer, "AGAIN_SECONDS", 0.0)
    async with SaslBroker(session_ms=FOREVER_MS) as running:
        yield running


def beat(client: AIOKafkaClient, **group: Any) -> asyncio.Task[Any]:
    """Send a heartbeat."""
    return asyncio.create_task(client.send(NODE, HeartbeatRequest("g", 1, "m"), **group))


def renewing(client: AIOKafkaClient) -> AIOKafkaClient:
    """Return the client, which renews its connections from now on."""
    renew_sessions(client)
    return client


async def test_a_session_is_renewed_again_and_again(broker: SaslBroker) -> None:
    """Whoever is told of a short session authenticates anew before it ends, and only one stays."""
    broker.session_ms = 40
    client = renewing(broker.client())
    await beat(client)
    await broker.until(lambda: len(broker.shown) >= 4)
    broker.session_ms = FOREVER_MS
    await broker.until(lambda: broker.open == 1)
    await beat(client)
    assert broker.beats[0] == 0
    assert broker.beats[1] >= 3
    await client.close()


async def test_what_was_asked_is_answered_on_the_old_connection(broker: SaslBroker) -> None:
    """While an answer is due the old connection stays; what is asked meanwhile goes by the new."""
    broker.session_ms = 40
    broker.answers.clear()
    client = renewing(broker.client())
    first = beat(client)
    await broker.until(lambda: len(broker.beats) == 1)
    broker.session_ms = FOREVER_MS
    await broker.until(lambda: len(broker.shown) == 2)
    while client._conns[NODE, ConnectionGroup.DEFAULT].seconds != FOREVER_MS / 1_000:  # noqa: ASYNC110 - aiokafka tells nobody
        await asyncio.sleep(0)
    second = beat(client)
    await broker.until(lambda: len(broker.beats) == 2)
    assert broker.beats == [0, 1]
    assert (broker.open, first.done(), second.done()) == (2, False, False)
    broker.answers.set()
    assert [(await each).error_code for each in (first, second)] == [0, 0]
    await broker.until(lambda: broker.open == 1)
    await client.close()


async def test_a_session_that_cannot_be_renewed_is_kept(broker: SaslBroker) -> None:
    """Refused, the client goes on with what it has, and tries again."""
    broker.session_ms = 40
    client = renewing(broker.client())
    await beat(client)
    broker.refuses = True
    await broker.until(lambda: len(broker.shown) >= 3)
    await beat(client)
    assert broker.beats == [0, 0]
    broker.refuses, broker.session_ms = False, FOREVER_MS
    tried = len(broker.shown)
    await broker.until(lambda: len(broker.shown) > tried and broker.open == 1)
    await beat(client)
    assert broker.beats[-1] > 0
    await client.close()


async def test_each_place_is_renewed(broker: SaslBroker) -> None:
    """A group's coordinator has a connection of its own; it keeps it apart."""
    broker.session_ms = 40
    client = renewing(broker.client())
    await beat(client)
    await beat(client, group=ConnectionGroup.COORDINATION)
    await broker.until(lambda: len(broker.shown) >= 5)
    broker.session_ms = FOREVER_MS
    await broker.until(lambda: broker.open == 2)
    assert len({id(each) for each in client._conns.values()}) == 2
    await client.close()


async def test_closing_ends_what_is_being_renewed(broker: SaslBroker) -> None:
    """A client that is closed in the middle leaves no connection, task or timer behind."""
    broker.session_ms = 40
    broker.answers.clear()
    client = renewing(broker.client())
    asked = beat(client)
    await broker.until(lambda: len(broker.shown) == 3)  # one is old, one is older
    await client.close()
    broker.answers.set()  # to nobody
    await broker.until(lambda: broker.open == 0)
    with pytest.raises(errors.KafkaConnectionError):
        await asked
    assert not [each for each in asyncio.all_tasks() if each.get_name() == "aril-renew-session"]


async def test_without_a_limit_nothing_is_renewed(broker: SaslBroker) -> None:
    """A broker that ends no session, and a password, which does not expire."""
    broker.session_ms = 0
    client = renewing(broker.client())
    await beat(client)
    (session,) = client._conns.values()
    assert session.seconds is None
    assert not client.close.__self__._timers
    await client.close()


class Tokens:
    """Gives the tokens that a test puts in."""

    def __init__(self, *tokens: Token | Exception) -> None:
        self._tokens = list(tokens)

    async def token(self) -> Token:
        """Return the next one, the last one for ever."""
        found = self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]
        if isinstance(found, Exception):
            raise found
        return found


def by(tokens: Tokens) -> dict[str, Any]:
    """Return the security of a client that shows tokens."""
    return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": Bearer(tokens)}


async def test_a_token_that_expires_is_replaced_where_the_broker_sets_no_limit(
    broker: SaslBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some brokers end a connection with its token and do not say so: its expiry counts as well."""
    broker.session_ms = 0
    monkeypatch.setattr("aril.connecting.bearer.time.time", lambda: 1_000.0)
    client = renewing(broker.client(**by(Tokens(Token("one", 1_000.04), Token("two", None)))))
    await beat(client)
    await broker.until(lambda: len(broker.shown) == 2 and broker.open == 1)
    assert [b"Bearer one" in broker.shown[0], b"Bearer two" in broker.shown[1]] == [True, True]
    await client.close()


@pytest.mark.parametrize("failure", [TokenError("none there"), OSError("gone"), TimeoutError()])
async def test_without_a_token_there_is_no_connection(
    broker: SaslBroker, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """It is as if the broker could not be reached, and the log says why; later it works."""
    client = renewing(broker.client(**by(Tokens(failure, Token("secret", None)))))
    with pytest.raises(errors.NodeNotReadyError):
        await beat(client)
    assert "no token for the brokers" in caplog.text
    await beat(client)
    assert "secret" not in caplog.text
    await client.close()


async def test_a_provider_that_fails_is_asked_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However often somebody connects; the reason stays the same, and is logged as often."""
    now = 1_000.0
    monkeypatch.setattr("aril.connecting.bearer.time.monotonic", lambda: now)
    shown = Bearer(Tokens(TokenError("away"), TokenError("still away"), Token("one", None)))
    told = []
    for moment in (1_000.0, 1_000.5, 1_000.9, 1_001.0, 1_001.9):
        now = moment
        with pytest.raises(errors.KafkaConnectionError) as caught:
            await shown.token()
        told.append(caught.value.args[0].rpartition(": ")[2])
    assert told == ["away"] * 3 + ["still away"] * 2
    assert len(caplog.records) == 2
    now = 1_002.0
    assert await shown.token() == "one"


async def test_clients_without_sasl_are_left_alone() -> None:
    """Who authenticates by a certificate or not at all has no session that ends."""
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    renew_sessions(client)
    assert "_get_conn" not in vars(client)
    await client.close()
