"""The Kubernetes manifests are what an API server takes, and agree with the worker they start."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from aril.worker.observe.health import Health, start_http
from aril.worker.observe.metrics import Metrics
from aril.worker.settings import FOREIGN_ENV, WorkerSettings, load_settings
from tests.support.kubernetes import (
    COMPONENTS,
    MANIFESTS,
    OVERLAYS,
    ROOT,
    SCHEMAS,
    Manifest,
    kustomizations,
    manifests,
    objects,
    pods,
    settings,
    the,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FLEETS = [("base", *chosen) for chosen in [(), *((f"components/{name}",) for name in COMPONENTS)]]


def _without_required(schema: Any) -> Any:
    """Return what a part of an object must be like."""
    if isinstance(schema, list):
        return [_without_required(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_required(value)
        for key, value in schema.items()
        if not (key == "required" and isinstance(value, list))
    }


def _without_deletions(body: Any) -> Any:
    """Leave out what a patch says to kustomize alone."""
    if isinstance(body, list):
        return [_without_deletions(each) for each in body if "$patch" not in each]
    if not isinstance(body, dict):
        return body
    return {key: _without_deletions(value) for key, value in body.items() if key != "$patch"}


@cache
def _schema(api: str, kind: str) -> Any:
    group, _, version = api.rpartition("/")
    parts = (kind, group.partition(".")[0], version)
    schema = json.loads((SCHEMAS / ("-".join(filter(None, parts)).lower() + ".json")).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def _schema_of(body: Mapping[str, Any]) -> Any:
    return _schema(body["apiVersion"], body["kind"])


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: each.name)
def test_server_would_take_it(manifest: Manifest) -> None:
    """Each object, and each patch as a part of one, fits its kind's strict schema."""
    schema, body = _schema_of(manifest.body), manifest.body
    if manifest.patch:
        schema, body = _without_required(schema), _without_deletions(body)
    jsonschema.Draft202012Validator(schema).validate(body)


@pytest.mark.parametrize("wrong", [{"replica": 1}, {"replicas": "1"}, {"replicas": None}])
def test_schemas_are_strict(wrong: dict[str, Any]) -> None:
    """A field with another name, of another type or without a value is found."""
    right = the("Deployment", "aril-worker")
    body = right | {"spec": right["spec"] | wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(_schema_of(body)).validate(body)


def test_every_file_is_used() -> None:
    """No file lies beside a kustomization that does not name it, and all that are named exist."""
    for folder, kustomization in kustomizations():
        named = {*kustomization.get("resources", ()), *kustomization.get("components", ())}
        named |= {patch["path"] for patch in kustomization.get("patches", ()) if "path" in patch}
        for generator in kustomization.get("configMapGenerator", ()):
            named |= set(generator["envs"])
        assert all((folder / name).exists() for name in named)
        there = {path.name for path in folder.iterdir() if path.is_file()}
        assert there == {name for name in named if (folder / name).is_file()} | {
            "kustomization.yaml"
        }


def test_overlays_offer_every_component() -> None:
    """The list that is copied into an overlay names all components, in an order that works."""
    text = (MANIFESTS / "overlays/cpu/kustomization.yaml").read_text()
    assert re.findall(r"^#   - \.\./\.\./components/(\S+)", text, re.MULTILINE) == list(COMPONENTS)
    assert {path.name for path in (MANIFESTS / "components").iterdir()} == set(COMPONENTS)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("fleet", FLEETS, ids="+".join)
def test_worker_takes_its_settings(
    overlay: str, fleet: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every variable is a setting with a value that a worker starts with."""
    given = settings(*fleet, f"overlays/{overlay}")
    if "ARIL_CONFIG" in given:  # in the Secret
        given["ARIL_CONFIG"] = str(tmp_path / "worker.toml")
        (tmp_path / "worker.toml").write_text('sasl_username = "aril"\nsasl_password = "x"\n')
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    used = load_settings().settings
    assert used.http_address == (
        "0.0.0.0",  # noqa: S104 - the kubelet asks from outside
        pods()["worker"]["spec"]["containers"][0]["ports"][0]["containerPort"],
    )


def test_every_variable_is_a_setting() -> None:
    """Comments and patches, too, name only variables that there are."""
    for path in filter(lambda path: path.is_file(), MANIFESTS.rglob("*")):
        for name in re.findall(r"\bARIL_[A-Z_]*[A-Z]\b", path.read_text()):
            known = name.removeprefix("ARIL_").lower() in WorkerSettings.model_fields
            assert known or name in FOREIGN_ENV or name == "ARIL_SERVICE_HOST", (path, name)


async def test_probes_ask_what_is_answered() -> None:
    """Probes and the ServiceMonitor name paths that the worker serves, on its port."""
    runner = await start_http(("127.0.0.1", 0), Health(), Metrics())
    try:
        paths = {resource.canonical for resource in runner.app.router.resources()}
    finally:
        await runner.cleanup()
    (worker,) = pods()["worker"]["spec"]["containers"]
    (port,) = worker["ports"]
    asked = {
        name: worker[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {name: get["path"] for name, get in asked.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {get["port"] for get in asked.values()} == {port["name"]}
    (endpoint,) = the("ServiceMonitor")["spec"]["endpoints"]
    (served,) = the("Service")["spec"]["ports"]
    assert endpoint["port"] == served["name"]
    assert served["targetPort"] == port["name"]
    assert {get["path"] for get in asked.values()} | {endpoint["path"]} <= paths


def test_drain_has_its_time() -> None:
    """A pod is not killed before its drain, its last commit and its leave are over."""
    drain = float(settings("base")["ARIL_DRAIN_SECONDS"])
    assert pods()["worker"]["spec"]["terminationGracePeriodSeconds"] >= drain + 10
    assert not any("ARIL_DRAIN_SECONDS" in settings(f"overlays/{name}") for name in OVERLAYS)


@pytest.mark.parametrize("name", list(pods()))
def test_pods_have_no_privileges(name: str) -> None:
    """They run as the image's user, write where they must, and cannot become more than they are."""
    match = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert match
    user, group = int(match[1]), int(match[2])
    pod = pods()[name]
    assert not pod["spec"]["automountServiceAccountToken"]
    assert not pod["spec"]["enableServiceLinks"]
    security = pod["spec"]["securityContext"]
    assert security["runAsNonRoot"]
    assert (security["runAsUser"], security["runAsGroup"]) == (user, group)
    assert security["fsGroup"] == group
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]
    filled = ["/models", "/adapters"] if name == "store" else []
    assert writable == ["/tmp", *filled]  # noqa: S108 - the image's home


def test_mounts_have_volumes() -> None:
    """Each mount is of a volume of its pod, and each claim is made."""
    claims = {claim["metadata"]["name"] for claim in objects("PersistentVolumeClaim")}
    for pod in pods().values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        named = [volume.get("persistentVolumeClaim") for volume in volumes.values()]
        assert {claim["claimName"] for claim in named if claim} <= claims


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("fleet", FLEETS, ids="+".join)
def test_files_of_settings_are_mounted(overlay: str, fleet: tuple[str, ...]) -> None:
    """A path that a worker's setting names lies in a volume of the base or of what set it."""
    mounts = [
        mount["mountPath"]
        for manifest in manifests()
        if manifest.kind == "Deployment" and str(manifest.path.parent).endswith(fleet)
        if manifest.body["metadata"]["name"] != "aril-store"
        for container in manifest.body["spec"]["template"]["spec"]["containers"]
        for mount in container["volumeMounts"]
    ]
    files = [
        value for value in settings(*fleet, f"overlays/{overlay}").values() if value.startswith("/")
    ]
    assert files
    assert [file for file in files if not file.startswith(tuple(mounts))] == []


def test_selectors_find_workers_and_nothing_else() -> None:
    """Whatever chooses pods chooses the workers; the network policy is for all pods."""
    labels = {name: pod["metadata"]["labels"] for name, pod in pods().items()}
    worker = labels.pop("worker")
    deployment = the("Deployment", "aril-worker")["spec"]
    selectors = [
        deployment["selector"]["matchLabels"],
        the("Service")["spec"]["selector"],
        the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in deployment["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert [selector.items() <= worker.items() for selector in selectors] == [True] * 5
    for selector in selectors:
        assert not any(selector.items() <= other.items() for other in labels.values())
    policy = the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert all(policy.items() <= each.items() for each in (worker, *labels.values()))
    scraped = the("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert scraped.items() <= the("Service")["metadata"]["labels"].items()
    account = the("ServiceAccount")["metadata"]["name"]
    assert {pod["spec"]["serviceAccountName"] for pod in pods().values()} == {account}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_name_this_version(overlay: str) -> None:
    """Images have the tag of this version, and replace the name that the base gives."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    kustomization = dict(kustomizations())[MANIFESTS / "overlays" / overlay]
    (image,) = kustomization["images"]
    assert image["newTag"] == project["version"]
    assert {pod["spec"]["containers"][0]["image"] for pod in pods().values()} == {image["name"]}
    assert kustomization["namespace"] == the("Namespace")["metadata"]["name"]


def test_scaling_knows_the_fleet() -> None:
    """Workers are not more than partitions, and the rows that keep one are those that it has."""
    scaled, deployment = the("ScaledObject"), the("Deployment", "aril-worker")
    assert "replicas" not in deployment["spec"]  # each apply would set it back
    assert scaled["spec"]["scaleTargetRef"] == {
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    arguments = pods()["topics"]["spec"]["containers"][0]["args"]
    partitions = int(arguments[arguments.index("--partitions") + 1])
    assert 1 <= scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"] <= partitions
    triggers = [trigger["metadata"] for trigger in scaled["spec"]["triggers"]]
    namespace = the("Namespace")["metadata"]["name"]
    assert all(f'{{namespace="{namespace}"}}' in trigger["query"] for trigger in triggers)
    assert triggers[1]["threshold"] == (rows := settings("base")["ARIL_MAX_ROWS"])
    assert f", {rows})" in triggers[1]["query"]
    known = {each.name for each in chain(*Metrics().families.sections().values())}
    assert {*re.findall(r"aril_\w+", " ".join(each["query"] for each in triggers))} <= known
    patch = yaml.safe_load((MANIFESTS / "overlays/gpu/triggers.yaml").read_text())
    values = {each["path"]: each["value"] for each in patch}
    rows = settings("base", "overlays/gpu")["ARIL_MAX_ROWS"]
    assert values["/spec/triggers/1/metadata/threshold"] == rows
    assert f", {rows})" in values["/spec/triggers/1/metadata/query"]
    assert "ARIL_MAX_ROWS" not in settings("overlays/cpu")
