"""How brokers are reached and who we are to them: settings that workers and clients share.

Read from ``ARIL_*`` variables; a worker takes them from flags and a file as well, see
`aril.worker.settings`. What a protocol or a mechanism would not look at is refused: somebody meant
it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from aril.connecting.certificates import CertificateFiles, FreshContext
from aril.connecting.errors import SecurityError
from aril.connecting.tokens import find_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aril.connecting.bearer import Bearer

ENV_PREFIX: Final = "ARIL_"

_TLS: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password")
_USER: Final = ("sasl_username", "sasl_password")
_FILE: Final = ("sasl_token_file",)
_CLIENT: Final = ("sasl_oidc_url", "sasl_oidc_client_id", "sasl_oidc_client_secret")
_OIDC: Final = (*_CLIENT, "sasl_oidc_scope")
_TOKEN: Final = ("sasl_token_provider", *_FILE, *_OIDC)


class ConnectionSettings(BaseSettings):
    """Where the brokers and the topics are, and how a process shows who it is."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,  # a wait of that long would be no wait, or no end
    )

    bootstrap: str = Field("localhost:9092", description="Kafka brokers, host:port[,host:port].")
    jobs_topic: str = Field(
        "jobs",
        pattern=r"^[A-Za-z0-9._-]*\*?$",
        min_length=1,
        max_length=249,
        description="Topic of jobs, or a pattern that ends in `*` when every tenant has its own.",
    )
    replies_prefix: str = Field(
        "replies.",
        pattern=r"^[A-Za-z0-9._-]+\.$",
        max_length=180,
        description="A tenant's reply topic is this and its name. Ends in a dot.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to."
    )
    ssl_cafile: Path | None = Field(
        None,
        description="Certificate authorities for TLS (PEM). This file and the next two are read"
        " again when they change, for new connections.",
    )
    ssl_certfile: Path | None = Field(None, description="Our own certificate for mTLS (PEM).")
    ssl_keyfile: Path | None = Field(None, description="The key of that certificate (PEM).")
    ssl_key_password: SecretStr | None = Field(None, description="The password of that key.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, where the protocol uses SASL."
    )
    sasl_username: str | None = Field(None, description="SASL user, but with OAUTHBEARER.")
    sasl_password: SecretStr | None = Field(None, description="SASL password of that user.")
    sasl_token_provider: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Who gives tokens, with OAUTHBEARER: `file`, `oidc`, or a name that an"
        " installed package has in the entry point group aril.token_providers.",
    )
    sasl_token_file: Path | None = Field(
        None, description="Where the provider `file` reads the token, each time one is needed."
    )
    sasl_oidc_url: str | None = Field(
        None,
        max_length=2_000,
        description="Where the provider `oidc` asks for tokens: the token endpoint, by https.",
    )
    sasl_oidc_client_id: str | None = Field(None, description="The client id it asks with.")
    sasl_oidc_client_secret: SecretStr | None = Field(None, description="The client's secret.")
    sasl_oidc_scope: str | None = Field(None, description="The scope it asks for, if any.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take given values only: who asks for other sources merges them by itself."""
        return (init_settings,)

    @classmethod
    def from_env(cls) -> Self:
        """Read the environment; other ``ARIL_*`` names are somebody else's. Raises SecurityError.

        The message is one line and names the variable.
        """
        try:
            return cls.model_validate(EnvSettingsSource(cls)())
        except ValidationError as error:
            line = one_line(error, lambda name: f"{ENV_PREFIX}{name.upper()}")
            raise SecurityError(line) from None

    @model_validator(mode="after")
    def _nothing_is_passed_over(self) -> Self:
        protocol = f"security_protocol={self.security_protocol}"
        if not self.security_protocol.endswith("SSL"):
            self._refuse(_TLS, protocol)
        if self.ssl_certfile is None:
            self._refuse(("ssl_keyfile", "ssl_key_password"), "no ssl_certfile")
        if not self.security_protocol.startswith("SASL"):
            self._refuse(("sasl_mechanism", *_USER, *_TOKEN), protocol)
            return self
        mechanism = f"sasl_mechanism={self.sasl_mechanism}"
        if self.sasl_mechanism != "OAUTHBEARER":
            self._refuse(_TOKEN, mechanism)
            self._demand(_USER, mechanism)
            return self
        self._refuse(_USER, mechanism)
        self._demand(("sasl_token_provider",), mechanism)
        provider = f"sasl_token_provider={self.sasl_token_provider}"
        # What each of our providers has to be told, and what it would look at.
        for name, needs, takes in (("file", _FILE, _FILE), ("oidc", _CLIENT, _OIDC)):
            if self.sasl_token_provider == name:
                self._demand(needs, provider)
            else:
                self._refuse(takes, provider)
        return self

    def _refuse(self, names: Iterable[str], beside: str) -> None:
        for name in names:
            if name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(f"{name} is not looked at with {beside}: leave one of them out")

    def _demand(self, names: Iterable[str], by: str) -> None:
        for name in names:
            given = getattr(self, name)
            if not (given.get_secret_value() if isinstance(given, SecretStr) else given):
                raise ValueError(f"{by} needs {name}")

    def jobs_topic_of(self, tenant: str) -> str:
        """Return the topic that a tenant's jobs are sent to."""
        shared = not self.jobs_topic.endswith("*")
        return self.jobs_topic if shared else self.jobs_topic.removesuffix("*") + tenant

    def kafka_security(self) -> dict[str, Any]:
        """Return what every aiokafka client of ours needs to speak to the brokers.

        Raises SecurityError where a file or a provider that is named cannot be used.
        """
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            password = _text(self.ssl_key_password)
            files = CertificateFiles(self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile, password)
            options["ssl_context"] = FreshContext(files)
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == "OAUTHBEARER":
                options["sasl_oauth_token_provider"] = _bearer(self)
            else:
                options["sasl_plain_username"] = self.sasl_username
                options["sasl_plain_password"] = _text(self.sasl_password)
        return options

    def librdkafka_security(self) -> dict[str, Any]:
        """Return what a client of librdkafka needs to speak to the brokers, but for a token.

        It reads the files once, when it is made.
        """
        options: dict[str, Any] = {"security.protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            files = {
                "ssl.ca.location": self.ssl_cafile,
                "ssl.certificate.location": self.ssl_certfile,
                # None: in the certificate's file.
                "ssl.key.location": self.ssl_keyfile or self.ssl_certfile,
            }
            options |= {name: str(path) for name, path in files.items() if path is not None}
            if (password := _text(self.ssl_key_password)) is not None:
                options["ssl.key.password"] = password
        if self.security_protocol.startswith("SASL"):
            options["sasl.mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism != "OAUTHBEARER":
                options["sasl.username"] = self.sasl_username
                options["sasl.password"] = _text(self.sasl_password)
        return options


@functools.lru_cache(maxsize=8)
def _bearer(settings: ConnectionSettings) -> Bearer:
    """Return one for all connections of a process: its provider may keep a token for them."""
    from aril.connecting.bearer import Bearer  # noqa: PLC0415 - aiokafka takes 0.1 s

    return Bearer(find_provider(settings.sasl_token_provider or "", settings))


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def one_line(error: ValidationError, shown: Callable[[str], str]) -> str:
    """Say what is wrong with a value, `shown` how its name is written; never the value itself."""
    first = error.errors(include_input=False, include_url=False)[0]
    message = re.sub(r"^Value error, ", "", first["msg"])
    if not first["loc"]:
        return message
    return f"{shown(str(first['loc'][0]))}: {message[0].lower()}{message[1:]}"
