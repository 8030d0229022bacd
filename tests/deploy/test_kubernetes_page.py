"""docs/kubernetes.md tells of all that there is, and its commands do what it says."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

from aril.worker.adapters.folder import AdapterFolder
from tests.support.kubernetes import COMPONENTS, ROOT, manifests

if TYPE_CHECKING:
    from pathlib import Path

PAGE: Final = (ROOT / "docs" / "kubernetes.md").read_text()


def test_page_tells_of_every_component() -> None:
    """Each component has its line in the table, in the order of an overlay's list."""
    assert re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)[: len(COMPONENTS)] == list(
        COMPONENTS
    )


def test_page_tells_of_every_object() -> None:
    """Each kind of the base has its line, components' kinds are named somewhere."""
    for manifest in manifests():
        assert manifest.kind in PAGE


def test_an_adapter_is_replaced_in_one_step(tmp_path: Path) -> None:
    """The documented command publishes a first version and replaces it, as the store sees it."""
    match = re.search(r"sh -c '(cd /adapters/acme [^']+)'", PAGE)
    assert match
    home = tmp_path / "acme"
    for version in ("terse-2", "terse-3"):
        (home / f".{version}").mkdir(parents=True)
        command = match[1].replace("/adapters", str(tmp_path)).replace("terse-2", version)
        subprocess.run(["sh", "-ec", command], check=True)
        found = AdapterFolder.find(home, "terse")
        assert found is not None
        assert found.path == home / f".{version}"
        assert not (home / ".next").exists()
