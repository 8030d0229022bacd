"""The two packages that the tree is made into: which file is in which, what the client weighs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Final

import pytest
from setuptools import find_packages

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = ROOT / "clients/python"
ROOMS: Final = ("connecting", "fetching", "kernels", "schemas", "worker")
MOST_BYTES: Final = 15_000_000
LEFT_OUT: Final = "aril.schemas.make_vectors"  # what it makes is in the repository


def packages_of(folder: Path) -> set[str]:
    """Return the packages that a distribution has."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    return set(find_packages(str(folder), **project["tool"]["setuptools"]["packages"]["find"]))


def test_every_package_is_in_one_of_the_two() -> None:
    """None is in both, and none in neither."""
    service, client = packages_of(ROOT), packages_of(CLIENT)
    assert not service & client
    assert {*find_packages(str(ROOT), include=["aril*"])} - service - client == {LEFT_OUT}


def test_nothing_is_imported_by_a_rooms_bare_name() -> None:
    """It would be another module than the one that is installed, and not be there at all."""
    bare = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(ROOMS)})\b", re.MULTILINE)
    files = [
        file
        for room in (*ROOMS, "aril", "benchmarks", "tests")
        for file in (ROOT / room).rglob("*.py")
    ]
    assert len(files) > 900
    assert [str(file) for file in files if bare.search(file.read_text())] == []


def test_what_aril_has_comes_out_of_its_own_package() -> None:
    """A name that is imported when it is first used may not come from a room's bare name either."""
    code = "import aril, sys; [getattr(aril, name) for name in aril.__all__]; print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert "aril.schemas" in shown.stdout.split()
    assert not {*ROOMS} & {*shown.stdout.split()}


def test_no_version_is_asked_of_a_package_that_a_clone_has_not() -> None:
    """In a clone the client alone is installed; the service has its version."""
    asked = re.compile(r"""\bversion\("(aril[a-z-]*)"\)""")
    files = [*ROOT.glob("worker/**/*.py"), *ROOT.glob("aril/**/*.py")]
    assert {name for file in files for name in asked.findall(file.read_text())} == {"aril-client"}


@pytest.mark.slow
def test_a_client_weighs_little(tmp_path: Path) -> None:
    """Installed alone it is under 15 MB with all that it needs, byte code aside, and works."""
    home, source = tmp_path / "venv", tmp_path / "source"
    venv.create(home, with_pip=True)
    python = home / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    pip += ["--python", str(python)]
    subprocess.run(["cp", "-rL", CLIENT, source], check=True)
    pinned = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "install", "--no-compile", *pinned, str(source)], check=True)
    subprocess.run([*pip, "uninstall", "-y", "pip", "setuptools"], check=True)
    (site,) = home.glob("lib/python3*/site-packages")
    files = [file for file in site.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    size = sum(file.stat().st_size for file in files)
    print(f"{size / 1e6:.1f} MB")
    assert size < MOST_BYTES
    assert (site / "aril/gateway/page/index.html").exists()
    beside = {path.name for path in site.iterdir() if path.is_dir()}
    assert not beside & {*ROOMS, "torch", "cramjam"}
    code = "import sys, aril, aril.kafka\n"
    code += "[getattr(aril, name) for name in aril.__all__ if name != 'Signer']\n"  # of an extra
    code += "print('torch' in sys.modules)"
    shown = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert shown.stdout == "False\n"
    told = subprocess.run(
        [python, "-m", "aril", "worker"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "install aril, not aril-client alone" in told.stderr
