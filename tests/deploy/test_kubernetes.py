"""The Kubernetes manifests, built by kustomize, before kubeconform and a real API server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.support.api_server import ApiServer, assets
from tests.support.kubernetes import MANIFESTS, OVERLAYS, ROOT, SCHEMAS, choices, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOOLS: Final = ROOT / "build" / "kubernetes"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tools() -> None:
    """Skip where kustomize and kubeconform were not made, but where they are asked for."""
    if not (TOOLS / "made-from").exists():
        assert "REQUIRE_KUSTOMIZE" not in os.environ, "deploy/kubernetes/tools.sh makes them"
        pytest.skip("no kustomize and kubeconform: make test-kubernetes")


def build(folder: Path, overlay: str, components: tuple[str, ...]) -> str:
    """Return what kustomize makes of an overlay with components, as an operator would have it."""
    tree = folder / "kubernetes"
    shutil.copytree(MANIFESTS, tree, dirs_exist_ok=True)
    path = tree / "overlays" / overlay / "kustomization.yaml"
    kustomization: dict[str, Any] = yaml.safe_load(path.read_text())
    kustomization["components"] = [f"../../components/{name}" for name in components]
    path.write_text(yaml.safe_dump(kustomization))
    built = subprocess.run(
        [TOOLS / "kustomize", "build", path.parent], capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    return built.stdout


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("components", list(choices()), ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_choice_is_valid(overlay: str, components: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever components an overlay has, strict kubeconform takes all of it."""
    text = build(tmp_path, overlay, components)
    location = str(SCHEMAS / "{{.ResourceKind}}{{.KindSuffix}}.json")
    checked = subprocess.run(
        [TOOLS / "kubeconform", "-strict", "-schema-location", location],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    found = list(yaml.safe_load_all(text))
    _is_whole(found, components)
    (config,) = (each["data"] for each in found if each["kind"] == "ConfigMap")
    folders = [f"components/{name}" for name in components]
    assert config == settings("base", *folders, f"overlays/{overlay}")
    for scaled in (each for each in found if each["kind"] == "ScaledObject"):
        assert scaled["spec"]["triggers"][1]["metadata"]["threshold"] == config["ARIL_MAX_ROWS"]


def _is_whole(found: list[dict[str, Any]], components: tuple[str, ...]) -> None:
    """See that names were resolved and patches met: kustomize leaves the rest without a word."""
    (config,) = (each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap")
    secrets = {"sasl-scram": "aril-kafka", "mtls": "aril-kafka-tls"}
    wanted = {secret for name, secret in secrets.items() if name in components}
    for maker in (each for each in found if each["kind"] in {"Deployment", "Job"}):
        pod = maker["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"].startswith("registry.example/aril")
        speaks = "args" in container  # the store only waits
        mounted = {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
        assert mounted == (wanted if speaks else set())
        told = [{"configMapRef": {"name": config}}] if speaks else []
        assert container.get("envFrom", []) == told
    namespaced = [each["metadata"] for each in found if each["kind"] != "Namespace"]
    assert {metadata.get("namespace") for metadata in namespaced} == {"aril"}
    claims = [each for each in found if each["kind"] == "PersistentVolumeClaim"]
    assert len(claims) == (0 if "baked" in components else 2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """Start etcd, an API server and the controllers, if KUBEBUILDER_ASSETS names their folder."""
    if assets() is None:
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd, kube-apiserver and kubectl")
    folder = tmp_path / "server"
    folder.mkdir()
    with ApiServer(folder) as running:
        yield running


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(
    "components", [("topics", "store", "sasl-scram"), ("topics", "mtls", "baked")]
)
def test_server_takes_it(
    server: ApiServer, overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    """An API server stores it without a warning, and lets its pods into a restricted namespace."""
    text = build(tmp_path, overlay, components)
    said = server.kubectl("apply", "--server-side", "-f-", given=text)
    again = server.kubectl("apply", "--server-side", "--dry-run=server", "-f-", given=text)
    kinds = sorted(each["kind"].lower() for each in yaml.safe_load_all(text))
    for lines in (said, again):
        assert "Warning" not in lines
        stored = [line for line in lines.splitlines() if "serverside-applied" in line]
        assert sorted(re.split(r"[./]", line)[0] for line in stored) == kinds
    plain = ("run", "plain", "--namespace=aril", "--image=aril")
    assert "violates PodSecurity" in server.refusal(*plain)
    if server.has_controllers:
        for thing, count in (("deployment/aril-worker", "replicas"), ("job/aril-topics", "active")):
            condition = f"--for=jsonpath={{.status.{count}}}=1"
            server.kubectl("wait", "--namespace=aril", thing, condition, "--timeout=60s")
