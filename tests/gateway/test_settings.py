"""Settings that cannot be are told at the start, by name, with exit code 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aril.connecting.loading import SettingsError
from aril.gateway.keys import hash_of
from aril.gateway.serve import EXIT_SETTING, run_gateway
from aril.gateway.settings import GatewaySettings, load_gateway_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "[::1]:99999", "nowhere", ":80"])
def test_addresses_that_cannot_be(address: str) -> None:
    """A port beyond the last, or none."""
    with pytest.raises(SettingsError, match="--gateway-http: "):
        load_gateway_settings(flags={"gateway_tenant": "acme", "gateway_http": address})


def test_the_last_port() -> None:
    """It is one."""
    told: dict[str, Any] = {"gateway_tenant": "acme", "gateway_http": "[::1]:65535"}
    settings = GatewaySettings(**told)
    assert settings.address == ("::1", 65_535)


@pytest.mark.parametrize("by_keys", [False, True])
def test_a_tenant_that_cannot_sign(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    by_keys: bool,
) -> None:
    """Its key is looked at before anybody asks: what is wrong is told, and nothing of the key."""
    monkeypatch.setattr("aril.gateway.serve.configure_logs", lambda: None)
    (tmp_path / "acme.pem").write_text("secret")
    (tmp_path / "acme.pem").chmod(0o600)
    file = tmp_path / "keys.toml"
    file.write_text(f'[[keys]]\nname = "a"\ntenant = "acme"\nsha256 = "{hash_of("a")}"\n')
    who: dict[str, Any] = {"gateway_keys": file} if by_keys else {"gateway_tenant": "acme"}
    assert run_gateway(GatewaySettings(**who, gateway_signers=tmp_path)) == EXIT_SETTING
    (record,) = caplog.records
    assert record.message == "gateway_failed"
    assert "acme.pem: not a private key" in record.error  # type: ignore[attr-defined]
    assert "secret" not in caplog.text
