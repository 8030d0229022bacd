"""Connections that are renewed before the broker ends them. Leans on private parts of aiokafka.

With `connections.max.reauth.ms`, and with tokens that expire, a broker tells each client how long
its session lasts (KIP-368), and closes a connection on which a request comes later than that:
whether the request took effect is not told. aiokafka does not authenticate again, so here the
connection is replaced in time: another one is made, takes its place, and the old one is closed once
all that was asked on it is answered. aiokafka sends what must stay in order one after the other, so
nothing overtakes; a member of a group is known by its id and generation, not by its connection.
What is private is pinned by tests/connecting/test_sessions.py.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from aiokafka import errors
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import SaslAuthenticateRequest

from aril.connecting.bearer import Bearer

if TYPE_CHECKING:
    from collections.abc import Awaitable

log: Final = logging.getLogger(__name__)

# Of a session's time, when it is renewed; as Kafka's own client, whose clocks and networks differ.
RENEWED_AT: Final = 0.85
SPREAD: Final = 0.10
RETRY_SECONDS: Final = 1.0

Place = tuple[Any, ConnectionGroup]  # a node, and what the connection is for

_UNREACHABLE: Final = (errors.KafkaError, OSError, TimeoutError)


def renew_sessions(client: Any) -> None:
    """Have a client of aiokafka renew its connections, where it authenticates by SASL.

    `client` is a producer's `client`, a consumer's or an admin client's `_client`; it was not
    started yet.
    """
    if client._security_protocol.startswith("SASL"):  # noqa: SLF001 - see above
        Sessions(client)


class Session(AIOKafkaConnection):  # type: ignore[misc] # aiokafka is untyped
    """A connection that remembers how long the broker lets it live."""

    seconds: float | None = None  # from its authentication on

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Send a request; see aiokafka."""
        answer: Awaitable[Any] = super().send(request, expect_response)
        return self._noted(answer) if isinstance(request, SaslAuthenticateRequest) else answer

    async def _noted(self, answer: Awaitable[Any]) -> Any:
        response = await answer
        if milliseconds := getattr(response, "session_lifetime_ms", 0):  # of the last exchange
            self.seconds = milliseconds / 1_000
        return response

    async def answered(self) -> None:
        """Wait until nothing that was sent waits for its answer."""
        while waiting := [future for *_, future in self._requests if not future.done()]:
            await asyncio.wait(waiting)


class Sessions:
    """The connections of one client, in place of its own way to make them."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._places: dict[Place, AIOKafkaConnection] = client._conns  # noqa: SLF001 - see above
        self._timers: dict[Place, asyncio.TimerHandle] = {}
        self._renewing: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._closed = False
        self._close_client = client.close
        client._get_conn = self.connection  # noqa: SLF001 - see above
        client.close = self.close

    async def connection(
        self,
        node: Any,
        *,
        group: ConnectionGroup = ConnectionGroup.DEFAULT,
        no_hint: bool = False,  # noqa: ARG002 - aiokafka's signature
    ) -> AIOKafkaConnection | None:
        """Return the connection to a node, a new one if need be; None where there is none."""
        place = (node, group)
        if (there := self._standing(place)) is not None:
            return there
        async with self._client._get_conn_lock:  # noqa: SLF001 - see above
            if (there := self._standing(place)) is not None:
                return there
            self._places.pop(place, None)
            try:
                session = await self._open(node)
            except _UNREACHABLE as error:
                log.debug("no connection to broker %s: %s", node, type(error).__name__)
            else:
                self._take(place, session)
                return session
        # aiokafka asks again at once, for the metadata above all: each time would be a handshake.
        await asyncio.sleep(self._client._retry_backoff)  # noqa: SLF001 - see above
        self._client.force_metadata_update()
        return None

    async def close(self) -> None:
        """Close the client, and what is being renewed."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        renewing = [*self._renewing]
        for task in renewing:
            task.cancel()
        await asyncio.gather(*renewing, return_exceptions=True)
        await self._close_client()

    def _standing(self, place: Place) -> AIOKafkaConnection | None:
        there = self._places.get(place)
        return there if there is not None and there.connected() else None

    async def _open(self, node: Any) -> Session:
        client = self._client
        broker = client.cluster.broker_metadata(node)
        if broker is None:
            raise errors.StaleMetadata(f"broker {node} is not known any more")
        theirs = {name: getattr(client, f"_{name}") for name in _TAKEN_OVER}
        session = Session(
            broker.host,
            broker.port,
            max_idle_ms=client._connections_max_idle_ms,  # noqa: SLF001 - see above
            on_close=client._on_connection_closed,  # noqa: SLF001 - see above
            **theirs,
        )
        await session.connect()
        return session

    def _take(self, place: Place, session: Session) -> None:
        self._places[place] = session
        seconds = self._seconds_left(session)
        if seconds is not None and not self._closed:
            share = RENEWED_AT + SPREAD * random.random()
            self._renew_in(max(RETRY_SECONDS, share * seconds), place, session)

    def _seconds_left(self, session: Session) -> float | None:
        """Say how long a session that has just begun lasts; some brokers hold to a token alone."""
        bearer = self._client._sasl_oauth_token_provider  # noqa: SLF001 - see above
        token = bearer.seconds_left if isinstance(bearer, Bearer) else None
        return min((each for each in (session.seconds, token) if each is not None), default=None)

    def _renew_in(self, seconds: float, place: Place, session: Session) -> None:
        def begin() -> None:
            task = asyncio.create_task(self._renew(place, session), name="aril-renew-session")
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)

        if (timer := self._timers.pop(place, None)) is not None:
            timer.cancel()
        self._timers[place] = asyncio.get_running_loop().call_later(seconds, begin)

    async def _renew(self, place: Place, old: Session) -> None:
        async with self._turn:  # one by one, so that most of them stand at any time
            if self._standing(place) is not old:
                return  # it broke, and whoever needs it makes another
            try:
                session = await self._open(place[0])
            except _UNREACHABLE as error:
                log.warning("a session was not renewed: %s", error or type(error).__name__)
                self._renew_in(RETRY_SECONDS, place, old)
                return
            if self._places.get(place) is not old:
                session.close()  # it broke meanwhile, and another is there
                return
            self._take(place, session)
            log.debug("a session was renewed, broker %s, good for %s s", place[0], session.seconds)
        try:
            # What times out is aiokafka's to notice; no longer than that is anything waited for.
            async with asyncio.timeout(old._request_timeout):  # noqa: SLF001 - see above
                await old.answered()
        except TimeoutError:
            log.warning("a session was closed with requests that nobody answered")
        finally:
            old.close()


# What a connection is made with, and a client has as private attributes of the same names.
_TAKEN_OVER: Final = (
    "client_id",
    "request_timeout_ms",
    "ssl_context",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_kerberos_service_name",
    "sasl_kerberos_domain_name",
    "sasl_oauth_token_provider",
)
