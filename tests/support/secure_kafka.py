"""Apache Kafka as an operator would secure it: TLS, SCRAM users, tokens, and an authorizer.

Three doors: `scram` (SASL_SSL, users with passwords), `oauth` (SASL_SSL, signed tokens, and a
client certificate as well), both with sessions of a few seconds, and a plain one for the broker
itself and the test's own hand, which may do everything. Nobody else may do anything but by a rule.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from aril.broker import LOOPBACK, free_port
from tests.support.brokers import ApacheKafka
from tests.support.certificates import Authority
from tests.support.jwts import AUDIENCE, Issuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from pathlib import Path

SESSION_SECONDS: Final = 4.0


class Kind(IntEnum):
    """What a rule is about, as Kafka numbers it."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4


class Operation(IntEnum):
    """What a rule allows, as Kafka numbers it."""

    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    DESCRIBE = 8
    DESCRIBECONFIGS = 10


class Rule(NamedTuple):
    """Somebody may do something with something."""

    user: str
    kind: Kind
    name: str
    operation: Operation
    prefixed: bool = False


class SecureKafka(ApacheKafka):
    """One broker; a context manager."""

    def __init__(self, data: Path, users: Mapping[str, str]) -> None:
        """Prepare; `users` are names with passwords."""
        super().__init__(data)
        self.authority, self.issuer = Authority(), Issuer()
        self.folder = data
        self.ca = data / "ca.pem"
        self._users = users
        self._ports = {"scram": free_port(), "oauth": free_port()}

    def door(self, name: str) -> str:
        """Return the address of a door."""
        return f"{LOOPBACK}:{self._ports[name]}"

    def _environment(self, port: int) -> Mapping[str, str]:
        environment = {**super()._environment(port)}
        properties, keys = self.folder / "secure.properties", self.folder / "keys.json"
        self.ca.write_bytes(self.authority.pem)
        keys.write_text(self.issuer.key_set())
        pair = self.authority.issue("broker", server=True)
        (self.folder / "broker.pem").write_bytes(pair.key + pair.certificate)
        controller = environment["KAFKA_CONTROLLER_PORT"]
        properties.write_text(
            "\n".join(f"{name}={value}" for name, value in self._properties(port, controller))
        )
        passwords = " ".join(
            f"--add-scram SCRAM-SHA-512=[name={user},password={password}]"
            for user, password in self._users.items()
        )
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys.as_uri()}"
        return environment | {
            "KAFKA_PROPERTIES": str(properties),
            "KAFKA_FORMAT_OPTS": passwords,
            "KAFKA_HEAP_OPTS": f"-Xms256m -Xmx512m {allowed}",
        }

    def _properties(self, port: int, controller: str) -> Iterable[tuple[str, object]]:
        doors = [
            f"PLAINTEXT://{LOOPBACK}:{port}",
            *(f"{name.upper()}://{self.door(name)}" for name in self._ports),
        ]
        security = "org.apache.kafka.common.security"
        yield "listeners", ",".join([*doors, f"CONTROLLER://{LOOPBACK}:{controller}"])
        yield "advertised.listeners", ",".join(doors)
        yield (
            "listener.security.protocol.map",
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SCRAM:SASL_SSL,OAUTH:SASL_SSL",
        )
        yield "authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        yield "super.users", "User:ANONYMOUS"  # by the plain door
        yield "ssl.keystore.type", "PEM"
        yield "ssl.keystore.location", self.folder / "broker.pem"
        yield "ssl.truststore.type", "PEM"
        yield "ssl.truststore.location", self.ca
        yield "listener.name.scram.sasl.enabled.mechanisms", "SCRAM-SHA-512"
        yield (
            "listener.name.scram.scram-sha-512.sasl.jaas.config",
            f"{security}.scram.ScramLoginModule required;",
        )
        limit = int(SESSION_SECONDS * 1_000)
        yield "listener.name.scram.scram-sha-512.connections.max.reauth.ms", limit
        oauth = "listener.name.oauth"
        yield f"{oauth}.sasl.enabled.mechanisms", "OAUTHBEARER"
        yield f"{oauth}.ssl.client.auth", "required"
        yield (
            f"{oauth}.oauthbearer.sasl.jaas.config",
            f"{security}.oauthbearer.OAuthBearerLoginModule required;",
        )
        yield (
            f"{oauth}.oauthbearer.sasl.server.callback.handler.class",
            f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler",
        )
        yield f"{oauth}.oauthbearer.connections.max.reauth.ms", limit
        yield "sasl.oauthbearer.jwks.endpoint.url", (self.folder / "keys.json").as_uri()
        yield "sasl.oauthbearer.expected.audience", AUDIENCE
        yield "sasl.oauthbearer.clock.skew.seconds", 0

    @asynccontextmanager
    async def hand(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Connect by the plain door."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def allow(self, rules: Sequence[Rule]) -> None:
        """Add rules; they hold once this returns."""
        literal, prefixed, allow = 3, 4, 3
        async with self.hand() as admin:
            for rule in rules:
                request = CreateAclsRequest(
                    rule.kind,
                    rule.name,
                    prefixed if rule.prefixed else literal,
                    f"User:{rule.user}",
                    "*",
                    rule.operation,
                    allow,
                )
                answer = await admin._client.send(admin._client.get_random_node(), request)
                for code, _ in answer.creation_responses:
                    assert errors.for_code(code) is errors.NoError, (rule, code)

    def by_password(self, user: str) -> dict[str, Any]:
        """Return the settings of somebody who comes by the door `scram`."""
        return {
            "bootstrap": self.door("scram"),
            "security_protocol": "SASL_SSL",
            "ssl_cafile": self.ca,
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": user,
            "sasl_password": self._users[user],
        }

    def by_token(self, user: str, folder: Path) -> dict[str, Any]:
        """Return the settings of somebody who comes by the door `oauth`; files lie in `folder`."""
        certificate, key = folder / f"{user}.pem", folder / f"{user}.key"
        return {
            "bootstrap": self.door("oauth"),
            "security_protocol": "SASL_SSL",
            "ssl_cafile": self.ca,
            "ssl_certfile": certificate,
            "ssl_keyfile": key,
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_token_provider": "file",
            "sasl_token_file": folder / f"{user}.token",
        }
