"""What docs/gateway.md has people copy is taken by those it is for."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from aril.gateway.keys import read_keys
from aril.gateway.settings import GatewaySettings
from tests.support.kubernetes import SCHEMAS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/gateway.md").read_text()
FILES: Final = {"Deployment": "deployment-apps-v1.json", "Service": "service-v1.json"}


def blocks(kind: str) -> list[str]:
    """Return the page's blocks of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def manifests() -> list[dict[str, Any]]:
    """Return the Kubernetes objects of the page."""
    return [
        each
        for block in blocks("yaml")
        for each in yaml.safe_load_all(block.replace("!reset", ""))
        if "kind" in each
    ]


@pytest.mark.parametrize("kind", FILES)
def test_a_server_would_take_it(kind: str) -> None:
    """Each object fits its kind's strict schema."""
    (body,) = [each for each in manifests() if each["kind"] == kind]
    schema = json.loads((SCHEMAS / FILES[kind]).read_text())
    jsonschema.Draft202012Validator(schema).validate(body)


def test_the_pod_and_the_gateway_agree() -> None:
    """Its settings are some, its port is the one that is probed, its end is waited for."""
    deployment, service = manifests()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    told = {each["name"].removeprefix("ARIL_").lower(): each["value"] for each in container["env"]}
    settings = GatewaySettings.model_validate(told)
    (port,) = container["ports"]
    assert settings.address[1] == port["containerPort"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleeps + settings.gateway_drain_seconds + 5
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels


def test_the_file_of_keys(tmp_path: Path) -> None:
    """The example is one, but for the hash that is cut."""
    (block,) = blocks("toml")
    tomllib.loads(block)
    path = tmp_path / "keys.toml"
    path.write_text(block.replace("351d…", "ab" * 32), encoding="utf-8")
    (caller,) = read_keys(path).values()
    assert (caller.requests_per_second, caller.streams) == (20, 200)
