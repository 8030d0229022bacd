"""The manifests in deploy/kubernetes, read without kustomize."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
MANIFESTS: Final = ROOT / "deploy" / "kubernetes"
SCHEMAS: Final = ROOT / "tests" / "deploy" / "schemas"
OVERLAYS: Final = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
COMPONENTS: Final = ("topics", "store", "service-monitor", "keda", "sasl-scram", "mtls", "baked")
"""In the order of an overlay's list: `topics` before those that change its Job."""

ALTERNATIVES: Final = ({"sasl-scram", "mtls"}, {"store", "baked"})


class Manifest(NamedTuple):
    """A document of a file: a whole object, or a patch of one."""

    path: Path
    body: dict[str, Any]
    patch: bool

    @property
    def kind(self) -> str:
        """The kind of object that it is, or changes."""
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        """Say which it is, for a test's name."""
        return f"{self.path.relative_to(MANIFESTS)}:{self.kind}"


def kustomizations() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each folder with its kustomization."""
    for path in sorted(MANIFESTS.rglob("kustomization.yaml")):
        yield path.parent, yaml.safe_load(path.read_text())


@cache
def manifests() -> tuple[Manifest, ...]:
    """Return all objects and the patches that are made as parts of one."""
    return tuple(_manifests())


def _manifests() -> Iterator[Manifest]:
    for folder, kustomization in kustomizations():
        for name in kustomization.get("resources", ()):
            if (folder / name).is_file():
                for body in yaml.safe_load_all((folder / name).read_text()):
                    yield Manifest(folder / name, body, patch=False)
        for patch in kustomization.get("patches", ()):
            path = folder / patch.get("path", "kustomization.yaml")
            body = yaml.safe_load(patch.get("patch") or path.read_text())
            if isinstance(body, dict):
                yield Manifest(path, body, patch=True)


def objects(kind: str) -> list[dict[str, Any]]:
    """Return all whole objects of a kind."""
    return [each.body for each in manifests() if each.kind == kind and not each.patch]


def the(kind: str, name: str | None = None) -> dict[str, Any]:
    """Return the only object of its kind, or the one of that name."""
    (found,) = (each for each in objects(kind) if name in {None, each["metadata"]["name"]})
    return found


def pods() -> dict[str, dict[str, Any]]:
    """Return the pod templates by the names of what makes them, without `aril-`."""
    makers = objects("Deployment") + objects("Job")
    return {
        each["metadata"]["name"].removeprefix("aril-"): each["spec"]["template"] for each in makers
    }


def settings(*folders: str) -> dict[str, str]:
    """Return what the ConfigMap holds, each folder's lines over those of the ones before."""
    values: dict[str, str] = {}
    for folder in folders:
        path = MANIFESTS / folder / "settings.env"
        lines = path.read_text().splitlines() if path.exists() else ()
        values |= dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    return values


def choices() -> Iterator[tuple[str, ...]]:
    """Yield each set of components that can be had together."""
    for size in range(len(COMPONENTS) + 1):
        for chosen in combinations(COMPONENTS, size):
            if not any(set(chosen) >= both for both in ALTERNATIVES):
                yield chosen
