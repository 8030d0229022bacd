"""What several files of the deployment say about one thing is the same thing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aril.gateway.settings import GatewaySettings
from aril.worker.settings import WorkerSettings

ROOT: Final = Path(__file__).parents[2]
SHELL_SCRIPTS: Final = sorted(ROOT.glob("deploy/**/*.sh"))


def _text(path: str) -> str:
    return (ROOT / path).read_text()


def _found(pattern: str, path: str) -> str:
    match = re.search(pattern, _text(path))
    assert match, f"{pattern} is not in {path}"
    return match[1]


def test_compose_uses_real_settings() -> None:
    """Each ARIL_ variable that compose gives to a container is one that it knows."""
    given = set(re.findall(r"^\s+ARIL_(\w+):", _text("compose.yaml"), re.MULTILINE))
    assert given
    known = {*WorkerSettings.model_fields, *GatewaySettings.model_fields}
    assert {name.lower() for name in given} <= known


def test_compose_waits_for_the_drain() -> None:
    """A worker container is not killed before its drain has had its time and some to leave."""
    drain = float(_found(r"ARIL_DRAIN_SECONDS: (\d+)", "compose.yaml"))
    grace = float(
        _found(r"commit and leaving the group.\n  stop_grace_period: (\d+)s", "compose.yaml")
    )
    assert grace >= drain + 10


def test_compose_starts_a_gateway() -> None:
    """With the settings that compose gives it, on its port; its drain has its time."""
    service = yaml.safe_load(_text("compose.yaml"))["services"]["gateway"]
    plain = {
        name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value))
        for name, value in service["environment"].items()
    }
    told = {name.removeprefix("ARIL_").lower(): value for name, value in plain.items()}
    settings = GatewaySettings.model_validate(told)
    assert f":{settings.address[1]}" in service["ports"][0]
    assert service["ports"][0].startswith("127.0.0.1:")  # nobody is asked for a key
    assert settings.gateway_http.endswith(service["healthcheck"]["test"][4].partition(":")[2])
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace >= settings.gateway_drain_seconds + 5
    assert f"FROM ${{PYTHON}} AS {service['build']['target']}\n" in _text("Dockerfile")
    assert service["read_only"] is True


def test_one_kafka_version() -> None:
    """Tests, people, compose and the stand-in image run the same Kafka."""
    version = _found(r"<kafka.version>([\d.]+)<", "deploy/kafka/pom.xml")
    assert _found(r"image: apache/kafka:([\d.]+)", "compose.yaml") == version
    assert _found(r"kafka=apache/kafka:([\d.]+)", "deploy/standins/images.sh") == version


def test_one_base_image() -> None:
    """The stand-in is made for the base image that the Dockerfile asks for."""
    assert _found(r"ARG PYTHON=(\S+)", "Dockerfile") == _found(
        r"python=(\S+)", "deploy/standins/images.sh"
    )


PROJECTS: Final = ("pyproject.toml", "clients/python/pyproject.toml")


def _projects() -> list[dict[str, Any]]:
    return [tomllib.loads(_text(file))["project"] for file in PROJECTS]


def test_image_has_every_package() -> None:
    """Each room that `aril` links to, and the client's project, reach the image's build context."""
    rooms = {path.name for path in (ROOT / "aril").iterdir() if path.is_symlink()}
    let_through = re.findall(r"^!(\S+)$", _text(".dockerignore"), re.MULTILINE)
    assert rooms == {"schemas", "connecting", "fetching", "kernels", "worker"}
    assert rooms | {"aril", "clients/python"} <= set(let_through)


def test_the_service_needs_its_own_client() -> None:
    """Both are of one version, and the client has no floor that the service does not meet."""
    service, client = _projects()
    assert f"aril-client=={client['version']}" in service["dependencies"]
    assert service["version"] == client["version"]
    assert set(client["dependencies"]) < set(service["dependencies"])


def test_one_list_of_pythons() -> None:
    """Both projects, the set-up and the README name the same ones, from the lowest allowed on."""
    named, *others = (project["classifiers"] for project in _projects())
    pythons = [name.removeprefix("Programming Language :: Python :: ") for name in named]
    assert others == [named]
    assert {project["requires-python"] for project in _projects()} == {f">={pythons[0]}"}
    tried = _found(r"\$\{PYTHON:-python3 (.*?)\}", "deploy/venv.sh").split()
    assert tried == [f"python{name}" for name in reversed(pythons)]
    assert f"Python {', '.join(pythons[:-1])} or {pythons[-1]}" in _text("README.md")


def test_every_dependency_is_pinned() -> None:
    """constraints.txt pins each dependency once, at a version that pyproject.toml allows."""
    lines = [line for line in _text("constraints.txt").splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    assert lines == sorted(lines, key=str.lower)
    by_name = {canonicalize_name(name): version for name, version in pins.items()}
    wanted = [
        line
        for project in _projects()
        for lines in (project["dependencies"], *project["optional-dependencies"].values())
        for line in lines
        if not line.startswith("aril-client")
    ]
    for requirement in map(Requirement, wanted):
        assert by_name[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize(
    "target",
    [
        "setup",
        "demo",
        "test",
        "test-all",
        "test-compose",
        "test-kubernetes",
        "test-observe",
        "dashboards",
        "check",
        "bench",
        "plots",
        "kafka",
        "clean",
    ],
)
def test_make_explains_its_targets(target: str) -> None:
    """`make help` has a line for every target that the documents name."""
    assert re.search(rf"^{target}:.*## \w", _text("Makefile"), re.MULTILINE)


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_scripts_stop_at_the_first_error(script: Path) -> None:
    """Every shell script is strict and can be run as it is."""
    assert "set -euo pipefail" in script.read_text()
    assert script.stat().st_mode & 0o100
