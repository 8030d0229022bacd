"""Every file that a document names is there, and so is every heading that one links to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "build", ".git", ".pytest_cache", "node_modules"}
    & set(path.relative_to(ROOT).parts)
)
ROOMS: Final = (
    "aril|benchmarks|connecting|deploy|docs|fetching|findings|kernels|schemas|tests|worker"
)
# A path in backticks, perhaps with what is found in it behind `::` or a pattern for its name.
NAMED: Final = re.compile(rf"`((?:{ROOMS})/[\w./*-]*)(?:::\w+)?`")
LINK: Final = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")


def headings(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as code hosts make them."""
    found = set()
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.lstrip("# ")).lower()
            found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_exists(doc: Path) -> None:
    """A name in backticks that begins with a room of the house is a file or a folder."""
    missing = [
        named
        for named in NAMED.findall(doc.read_text())
        if not (any(ROOT.glob(named)) if "*" in named else (ROOT / named).exists())
    ]
    assert missing == []


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(doc: Path) -> None:
    """A relative link is a file; behind a # stands a heading of it."""
    broken = []
    for target, anchor in LINK.findall(doc.read_text()):
        path = (doc.parent / target) if target else doc
        if not path.exists():
            broken.append(target)
        elif anchor and path.suffix == ".md" and anchor[1:] not in headings(path):
            broken.append(target + anchor)
    assert broken == []


def known(module: str) -> bool:
    """Whether a dotted name is a module of ours, or something that stands in one."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        at = ROOT.joinpath(*parts[:end])
        file = at / "__init__.py" if at.is_dir() else at.with_suffix(".py")
        if at.is_dir() and end == len(parts):
            return True
        if file.exists():
            return end == len(parts) or parts[end] in file.read_text()
    return False


def test_docstrings_name_files_that_exist() -> None:
    """The same for Python files: a path or a module of ours that a docstring or comment names."""
    rooms = ("aril", "benchmarks", "connecting", "kernels", "schemas", "worker")
    files = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    modules = re.compile(rf"`((?:{ROOMS})(?:\.\w+)+)`")
    paths = re.compile(rf"(?<![\w/`])((?:{ROOMS})/[\w./-]+\.(?:py|md|csv|sh|yaml))\b")
    missing = []
    for file in files:
        name, text = str(file.relative_to(ROOT)), file.read_text()
        missing += [(name, path) for path in paths.findall(text) if not (ROOT / path).exists()]
        missing += [(name, module) for module in modules.findall(text) if not known(module)]
    assert missing == []
