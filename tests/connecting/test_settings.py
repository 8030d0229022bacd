"""How brokers are reached: half of what is needed, and what nobody would look at, is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril import BadSetting, Client
from aril.connecting.bearer import Bearer
from aril.connecting.errors import SecurityError
from aril.connecting.settings import ConnectionSettings
from aril.environment import options_from_env
from aril.worker.settings import SettingsError, load_settings
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

SASL = {"security_protocol": "SASL_SSL"}
USER = {"sasl_username": "worker", "sasl_password": "hunter2"}
BEARER = SASL | {"sasl_mechanism": "OAUTHBEARER"}
FILE = {"sasl_token_provider": "file", "sasl_token_file": "/token"}
OIDC = {
    "sasl_token_provider": "oidc",
    "sasl_oidc_url": "https://id.example/token",
    "sasl_oidc_client_id": "worker",
    "sasl_oidc_client_secret": "hunter2",
}

GOOD: list[dict[str, str]] = [
    {},
    {"security_protocol": "SSL"},
    {"security_protocol": "SSL", "ssl_cafile": "/ca", "ssl_certfile": "/c", "ssl_keyfile": "/k"},
    {"security_protocol": "SSL", "ssl_certfile": "/both", "ssl_key_password": "p"},
    SASL | USER,
    SASL | USER | {"sasl_mechanism": "PLAIN", "ssl_certfile": "/both"},
    BEARER | FILE,
    BEARER | {"sasl_token_provider": "vault"},
    BEARER | OIDC,
    BEARER | OIDC | {"sasl_oidc_scope": "kafka"},
]
BAD: list[tuple[dict[str, str], str]] = [
    (SASL, "sasl_mechanism=SCRAM-SHA-512 needs sasl_username"),
    (SASL | {"sasl_username": "worker"}, "sasl_mechanism=SCRAM-SHA-512 needs sasl_password"),
    (SASL | USER | {"sasl_password": ""}, "needs sasl_password"),
    (SASL | USER | {"sasl_mechanism": "PLAIN", "sasl_username": ""}, "PLAIN needs sasl_username"),
    (USER, "sasl_username is not looked at with security_protocol=PLAINTEXT"),
    ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism is not looked at with security_protocol=PLAIN"),
    (
        {"security_protocol": "SSL", "sasl_mechanism": "PLAIN"},
        "sasl_mechanism is not looked at with security_protocol=SSL",
    ),
    (FILE, "sasl_token_provider is not looked at with security_protocol=PLAINTEXT"),
    ({"ssl_cafile": "/ca"}, "ssl_cafile is not looked at with security_protocol=PLAINTEXT"),
    (
        USER | {"security_protocol": "SASL_PLAINTEXT", "ssl_certfile": "/c"},
        "ssl_certfile is not looked at with security_protocol=SASL_PLAINTEXT",
    ),
    (
        {"security_protocol": "SSL", "ssl_keyfile": "/k"},
        "ssl_keyfile is not looked at with no ssl_certfile",
    ),
    (
        {"security_protocol": "SSL", "ssl_key_password": "hunter2"},
        "ssl_key_password is not looked at with no ssl_certfile",
    ),
    (BEARER, "sasl_mechanism=OAUTHBEARER needs sasl_token_provider"),
    (BEARER | {"sasl_token_provider": "file"}, "sasl_token_provider=file needs sasl_token_file"),
    (
        BEARER | FILE | {"sasl_token_provider": "vault"},
        "sasl_token_file is not looked at with sasl_token_provider=vault",
    ),
    (
        BEARER | FILE | USER,
        "sasl_username is not looked at with sasl_mechanism=OAUTHBEARER",
    ),
    (
        SASL | USER | {"sasl_token_file": "/token"},
        "sasl_token_file is not looked at with sasl_mechanism=SCRAM-SHA-512",
    ),
    (BEARER | OIDC | {"sasl_oidc_client_secret": ""}, "oidc needs sasl_oidc_client_secret"),
    (
        BEARER | OIDC | {"sasl_token_file": "/token"},
        "sasl_token_file is not looked at with sasl_token_provider=oidc",
    ),
    (
        BEARER | FILE | {"sasl_oidc_scope": "kafka"},
        "sasl_oidc_scope is not looked at with sasl_token_provider=file",
    ),
    (SASL | USER | {"sasl_mechanism": "GSSAPI"}, "sasl_mechanism: input should be 'PLAIN'"),
]


def in_env(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put settings into the environment."""
    for name, value in given.items():
        monkeypatch.setenv(f"ARIL_{name.upper()}", value)


@pytest.mark.parametrize("given", GOOD)
def test_what_belongs_together_is_taken(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By worker and client alike."""
    in_env(given, monkeypatch)
    shared = ConnectionSettings.from_env()
    assert ConnectionSettings.model_fields.keys() <= load_settings().origins.keys()
    for name in ConnectionSettings.model_fields:
        assert getattr(load_settings().settings, name) == getattr(shared, name)


@pytest.mark.parametrize(("given", "line"), BAD)
def test_what_does_not_is_refused_in_one_line(
    given: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By worker and client alike; a secret is not in it."""
    in_env(given | {"tenant": "acme"}, monkeypatch)
    with pytest.raises(SettingsError) as by_worker:
        load_settings()
    with pytest.raises(BadSetting) as by_client:
        Client.from_env()
    for told in (str(by_worker.value), str(by_client.value)):
        assert line.lower() in told.lower().removeprefix("aril_")
        assert "\n" not in told
        assert "hunter2" not in told


def test_a_client_is_made_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Brokers, topics, tenant and security by the names that workers read; the rest is not its."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority().pem)
    given = SASL | USER | {"bootstrap": "kafka:9093", "jobs_topic": "in.*", "ssl_cafile": str(ca)}
    in_env(given | {"tenant": "acme", "max_rows": "3", "xyzzy": "1"}, monkeypatch)
    options = options_from_env()
    assert (options["bootstrap"], options["tenant"], options["jobs_topic"]) == (
        "kafka:9093",
        "acme",
        "in.acme",
    )
    assert options["security"].items() >= {("sasl_plain_password", "hunter2")}
    assert options["signer"] is None
    assert options_from_env("zeta")["jobs_topic"] == "in.zeta"
    assert Client.from_env().tenant == "acme"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "ARIL_TENANT is not set"),
        ({"tenant": "Not_One"}, "'Not_One' is not a tenant's name"),
        (
            {"tenant": "acme", "security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"},
            "ssl_cafile: /nowhere/ca.pem: No such file or directory",
        ),
        (
            {"tenant": "acme"} | BEARER | {"sasl_token_provider": "xyzzy"},
            "sasl_token_provider=xyzzy: there is none of that name, only file, oidc",
        ),
    ],
)
def test_a_client_that_cannot_be_made_says_why(
    given: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks, and what is named and not there."""
    in_env(given, monkeypatch)
    with pytest.raises(BadSetting, match=line):
        Client.from_env()


def test_secrets_stay_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a setting's text nor what `aril config` shows has the key's password."""
    in_env(
        {"security_protocol": "SSL", "ssl_certfile": "/c", "ssl_key_password": "hunter2"},
        monkeypatch,
    )
    loaded = load_settings()
    assert ("ssl_key_password", "***", "env") in loaded.rows()
    assert "hunter2" not in repr(loaded) + repr(ConnectionSettings.from_env())


def test_connections_of_a_process_share_a_provider() -> None:
    """It may keep a token for all of them; with other settings it is another one."""
    first, second, other = (
        ConnectionSettings.model_validate(BEARER | FILE | more).kafka_security()[
            "sasl_oauth_token_provider"
        ]
        for more in ({}, {}, {"sasl_token_file": "/other"})
    )
    assert isinstance(first, Bearer)
    assert first is second
    assert first is not other


def test_a_file_that_is_missing_is_a_security_error() -> None:
    """A worker ends with its line and exit code 2."""
    settings = ConnectionSettings.model_validate(
        {"security_protocol": "SSL", "ssl_certfile": "/nowhere/own.pem"}
    )
    with pytest.raises(SecurityError, match=r"ssl_certfile: /nowhere/own\.pem: No such file"):
        settings.kafka_security()
