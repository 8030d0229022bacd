"""`ARIL_*` variables by the vectors that clients in every language run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from aril.connecting.settings import ConnectionSettings
from aril.environment import options_from_env
from aril.errors import BadSetting

FILE: Final = Path(__file__).parents[2] / "schemas/vectors/environments.json"
VECTORS: Final = json.loads(FILE.read_text(encoding="utf-8"))["vectors"]


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in VECTORS])
def test_environments(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is made with what the vector says, or the variable is named that is wrong."""
    for name in list(ConnectionSettings.model_fields):
        monkeypatch.delenv(f"ARIL_{name.upper()}", raising=False)
    for name, value in vector["environ"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ConnectionSettings, "kafka_security", lambda _: {})  # no file is there
    tenant, expect = vector.get("tenant"), vector["expect"]
    if "error" in expect:
        with pytest.raises(BadSetting, match=f"(?i){expect['error']}"):
            options_from_env(tenant)
        return
    options, settings = options_from_env(tenant), ConnectionSettings.from_env()
    found = {name: options[name] for name in ("tenant", "bootstrap", "jobs_topic")}
    told = {name: told_of(getattr(settings, name)) for name in expect if name not in found}
    assert found | told == expect


def told_of(value: object) -> object:
    """Return a value as the vectors write it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value
