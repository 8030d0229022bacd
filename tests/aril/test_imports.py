"""What `from aril import Client` brings along: counted by name, since times are the machine's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
# The client, the contract's libraries, and what they import themselves: 0.2 s of a processor.
CONTRACT: Final = {
    "annotated_types",
    "aril",
    "cython_runtime",
    "msgpack",
    "packaging",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
# aiokafka imports cramjam where it is installed.
KAFKA: Final = {"aiokafka", "async_timeout", "cramjam"}


def brought_by(code: str) -> set[str]:
    """Return the packages, the standard library's left out, that a program has imported."""
    listed = f"import sys; before = {{*sys.modules}}; {code}; print(*({{*sys.modules}} - before))"
    shown = subprocess.run(
        [sys.executable, "-c", listed], check=True, capture_output=True, text=True, cwd=ROOT
    )
    names = {name.partition(".")[0] for name in shown.stdout.split()}
    return {name for name in names if not name.startswith("_")} - sys.stdlib_module_names


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import aril", {"aril"}),
        ("from aril import Client, BlockingClient, TokensEvent, JobFailed", CONTRACT),
        ("from aril import Client; import aril.kafka", CONTRACT | KAFKA),
        ("import aril.memory, aril.schemas", CONTRACT),
    ],
)
def test_what_is_imported(code: str, allowed: set[str]) -> None:
    """No torch, transformers, numpy, cryptography, aiohttp, rich or yaml, nor anything new."""
    brought = brought_by(code)
    assert "aril" in brought
    assert brought <= allowed
