"""Make tests/deploy/schemas: what a Kubernetes API server takes of the kinds that we write.

``python -m tests.support.kubernetes_schemas DEFINITIONS CRDS``; tests/deploy/schemas/README.md says
where the two come from. Each schema stands alone, under the name that kubeconform looks for.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "schemas"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

CORE_KINDS: Final = (
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
)
CUSTOM_KINDS: Final = ("ScaledObject", "ServiceMonitor")
METADATA: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

# Told by the server, never written by a person.
SERVERS_OWN: Final = frozenset({"status", "managedFields"})
WORDS: Final = frozenset({"description", "example", "default"})

Definitions = dict[str, Any]


def main() -> None:
    """Write one file a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("definitions", type=Path, help="_definitions.json, strict")
    parser.add_argument("crds", type=Path, help="folder of CustomResourceDefinitions as YAML")
    given = parser.parse_args()
    definitions: Definitions = json.loads(given.definitions.read_text())["$defs"]
    for name in CORE_KINDS:
        _write(_core(definitions, name), definitions)
    for path in sorted(given.crds.glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        if crd["spec"]["names"]["kind"] in CUSTOM_KINDS:
            _write(_custom(crd), definitions)


def _core(definitions: Definitions, name: str) -> dict[str, Any]:
    """Return a kind of Kubernetes' own, which has to say what it is."""
    return definitions[name] | {"required": ["apiVersion", "kind", "metadata"]}


def _custom(crd: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a custom resource's stored version, as strict as Kubernetes' own."""
    spec = crd["spec"]
    version = next(each for each in spec["versions"] if each["storage"])
    schema = _closed(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {
        "apiVersion": {"enum": [f"{spec['group']}/{version['name']}"]},
        "kind": {"enum": [spec["names"]["kind"]]},
        "metadata": {"$ref": f"#/$defs/{METADATA}"},
    }
    return schema | {"required": ["apiVersion", "kind", "metadata", "spec"]}


def _closed(node: Any) -> Any:
    """Refuse fields that a custom resource does not name; write number-or-text as types."""
    if isinstance(node, list):
        return [_closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {key: _closed(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed


def _slim(node: Any, *, names: bool = False) -> Any:
    """Leave out prose, what only servers write, and null: an empty value is a mistake in a file.

    `names` says that the keys of `node` are fields of a resource, not words of JSON Schema.
    """
    if isinstance(node, list):
        return [_slim(each) for each in node]
    if not isinstance(node, dict):
        return node
    left_out = SERVERS_OWN if names else WORDS
    slim = {
        key: _slim(value, names=key == "properties" and not names)
        for key, value in node.items()
        if key not in left_out and (names or not key.startswith("x-kubernetes-"))
    }
    if not names and isinstance(slim.get("type"), list):
        types = [each for each in slim["type"] if each != "null"]
        slim["type"] = types[0] if len(types) == 1 else types
    return slim


def _write(schema: dict[str, Any], definitions: Definitions) -> None:
    slim = _slim(schema)
    kind, api = (slim["properties"][name]["enum"][0] for name in ("kind", "apiVersion"))
    used: dict[str, Any] = {}
    waiting = _references(slim)
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = _slim(definitions[name])
            waiting |= _references(used[name])
    whole = {"$schema": DIALECT, **slim, "$defs": dict(sorted(used.items()))}
    group, _, version = api.rpartition("/")
    parts = (kind, group.partition(".")[0], version)
    path = FOLDER / ("-".join(filter(None, parts)).lower() + ".json")
    path.write_text(json.dumps(whole, separators=(",", ":")) + "\n")


def _references(node: Any) -> set[str]:
    return set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(node)))


if __name__ == "__main__":
    main()
