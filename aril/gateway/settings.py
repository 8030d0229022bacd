"""What a gateway can be told, beside where the brokers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import Field, field_validator, model_validator

from aril.connecting.loading import LoadedSettings, load
from aril.connecting.settings import ConnectionSettings
from aril.schemas import is_tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "gateway_"
HIGHEST_PORT: Final = 65_535
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class GatewaySettings(ConnectionSettings):
    """Field names are flag names and, in capitals, ``ARIL_`` names."""

    gateway_http: str = Field(
        "127.0.0.1:8000", pattern=r"^.+:\d{1,5}$", description="Address to serve HTTP on."
    )
    gateway_keys: Path | None = Field(
        None,
        description="TOML file of hashed API keys and whose they are; read again when it changes."
        " `aril keys http TENANT` makes a key.",
    )
    gateway_tenant: str | None = Field(
        None,
        description="Whoever asks is this tenant, without a key. Only on a loopback address, or"
        " behind something that knows who asks.",
    )
    gateway_signers: Path | None = Field(
        None,
        description="Folder of tenants' private keys, `<tenant>.pem`, where jobs are signed.",
    )
    gateway_model: str = Field(
        "aril",
        min_length=1,
        max_length=200,
        description="What the backbone is called in /v1/models, beside `aril`.",
    )
    gateway_adapters: Path | None = Field(
        None,
        description="The workers' adapter store, for /v1/models.",
    )
    gateway_body_bytes: int = Field(
        2_000_000, ge=1_000, le=100_000_000, description="Longest body of a request."
    )
    gateway_batches: Path | None = Field(
        None,
        description="Folder for /v1/files and /v1/batches, which gateways on a shared file system"
        " may share; without it these are not served.",
    )
    gateway_file_bytes: int = Field(
        200_000_000, ge=1_000, le=100_000_000_000, description="Longest file that is uploaded."
    )
    gateway_files: int = Field(
        1_000, ge=1, le=1_000_000, description="Files of a tenant, its results included."
    )
    gateway_stored_bytes: int = Field(
        20_000_000_000,
        ge=1_000,
        le=1_000_000_000_000_000,
        description="What the files of a tenant may hold together, its results included.",
    )
    gateway_file_days: float = Field(
        30.0,
        ge=1,
        le=3_650,
        description="How long a file, and a batch that is over, is kept; who uploads may say less.",
    )
    gateway_open_batches: int = Field(
        100, ge=1, le=10_000, description="Batches of a tenant that are not over."
    )
    gateway_running_batches: int = Field(
        4,
        ge=1,
        le=1_000,
        description="Batches of a tenant that are worked on at the same time, by all gateways that"
        " share the folder.",
    )
    gateway_batch_jobs: int = Field(
        64, ge=1, le=100_000, description="Jobs of one batch in the queue at the same time."
    )
    gateway_streams: int = Field(
        10_000, ge=1, le=1_000_000, description="Answers that may be read at the same time."
    )
    gateway_wait_seconds: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="How long a whole answer, or the next event of a stream, is waited for.",
    )
    gateway_keepalive_seconds: float = Field(
        15.0, gt=0, le=600, description="A comment is sent on a stream that was silent for so long."
    )
    gateway_drain_seconds: float = Field(
        20.0, ge=0, le=3_600, description="How long open answers may go on after SIGTERM."
    )
    gateway_access_log: bool = Field(
        default=False, description="A line in the log for each request, without its text."
    )
    gateway_hosts: str = Field(
        "",
        max_length=2_000,
        description="Names, by commas, that a gateway without keys answers to beside addresses and"
        " names without a dot: others may be a foreign page's (DNS rebinding).",
    )
    gateway_cors: str = Field(
        "", max_length=2_000, description="Origins that browsers may ask from, by commas; `*`: any."
    )

    @field_validator("gateway_http")
    @classmethod
    def _a_port_that_there_is(cls, value: str) -> str:
        if int(value.rpartition(":")[2]) > HIGHEST_PORT:
            raise ValueError(f"must be host:port, with a port up to {HIGHEST_PORT}")
        return value

    @model_validator(mode="after")
    def _somebody_says_who_asks(self) -> Self:
        if (self.gateway_keys is None) == (self.gateway_tenant is None):
            raise ValueError("one of gateway_keys and gateway_tenant must be set: who is asking?")
        if self.gateway_tenant is not None and not is_tenant(self.gateway_tenant):
            raise ValueError("gateway_tenant is not a tenant's name (lower case, digits, -)")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to serve on."""
        host, _, port = self.gateway_http.rpartition(":")
        return host.strip("[]"), int(port)


def load_gateway_settings(
    *, flags: Mapping[str, Any] | None = None, config: Path | None = None
) -> LoadedSettings[GatewaySettings]:
    """Return a gateway's settings; see `aril.connecting.loading.load`. Raises ``SettingsError``.

    Names without its prefix may be a worker's, whose environment and file it may share.
    """

    def foreign(name: str, _: str | None) -> bool:
        return not name.startswith(PREFIX)

    return load(GatewaySettings, foreign=foreign, flags=flags, config=config)
