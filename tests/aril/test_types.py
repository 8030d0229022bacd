"""All that a tenant's program can touch has a type, by pyright's count.

pip install "pyright[nodejs]"         # anywhere on the PATH
pytest -m slow tests/aril/test_types.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any, Final

import pytest
from setuptools import find_packages

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = ROOT / "clients/python"
# What `aril.__all__` names, what that leads to, and what tests of a tenant's program use.
PUBLIC: Final = {
    "blocking",
    "client",
    "connection",
    "errors",
    "link",
    "memory",
    "router",
    "schemas",
    "signer",
    "stream",
    "texts",
    "transport",
}
# Annotations wait for what others are doing in these files.
BEING_REWRITTEN: Final = {"client", "connection", "link", "memory", "router"}


def installed(home: Path) -> Path:
    """Make a virtual environment that has the client as if it was installed; return its `bin`.

    Not as an editable one: pyright follows no hooks of the import system.
    """
    source, packages = home / "source", home / "packages"
    shutil.copytree(CLIENT, source)
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())
    for package in find_packages(str(source), **project["tool"]["setuptools"]["packages"]["find"]):
        folder = Path(*package.split("."))
        (packages / folder).mkdir(parents=True)
        for file in (source / folder).iterdir():
            if file.suffix == ".py" or file.name == "py.typed":
                shutil.copy(file, packages / folder)
    venv.create(home / "venv", with_pip=False)
    (site,) = (home / "venv").glob("lib/python3*/site-packages")
    (site / "here.pth").write_text(f"{packages}\n{sysconfig.get_path('purelib')}\n")
    return home / "venv/bin"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="no pyright on the PATH")
def test_everything_public_has_a_type(tmp_path: Path) -> None:
    """Each name, parameter and attribute has a type that checkers cannot see in two ways."""
    # It asks the first `python` on the PATH where packages are, and not `--pythonpath`.
    path = f"{installed(tmp_path)}{os.pathsep}{os.environ['PATH']}"
    shown = subprocess.run(
        ["pyright", "--verifytypes", "aril", "--ignoreexternal", "--outputjson"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": ""},
    )
    report: dict[str, Any] = json.loads(shown.stdout)["typeCompleteness"]
    assert report["pyTypedPath"].startswith(str(tmp_path))
    symbols = {symbol["name"]: symbol for symbol in report["symbols"]}
    assert {"aril.client.Client.stream", "aril.blocking.client.Client.text"} <= symbols.keys()
    causes = {
        name: messages
        for name, symbol in symbols.items()
        if name.split(".")[1] in PUBLIC - BEING_REWRITTEN
        and (messages := [found["message"] for found in symbol["diagnostics"] if _is_cause(found)])
    }
    assert not causes, json.dumps(causes, indent=1)


def _is_cause(found: dict[str, Any]) -> bool:
    """Whether it is not only what another symbol's missing type leads to."""
    return not found["message"].startswith(("Return type is partially", "Type of parameter"))
