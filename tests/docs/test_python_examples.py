"""The READMEs' Python runs and prints whole answers; the client's page leaves nothing out."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Final

import pytest

import aril
from aril import ArilError
from aril.client import JobOptions
from tests.support.served_memory import ServedTransport

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ("README.md", "clients/python/README.md")
PROGRAMS: Final = [
    (page, number, program)
    for page in PAGES
    for number, program in enumerate(
        re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    )
]
# The worker answers with the prompt. By page and place: what each program prints.
PRINTED: Final = {
    ("README.md", 0): "My parcel is late. What now?",
    ("clients/python/README.md", 0): "Say it in verse.",
    ("clients/python/README.md", 1): "Say it in verse.And in prose?\n",
    ("clients/python/README.md", 2): "A long story, please.\n",
    ("clients/python/README.md", 3): "Good morning!\n",
}


def test_every_program_is_known() -> None:
    """A program that is added to a page is added here."""
    assert {(page, number) for page, number, _ in PROGRAMS} == PRINTED.keys()


@pytest.mark.parametrize(
    ("page", "number", "program"), PROGRAMS, ids=[f"{page}-{place}" for page, place, _ in PROGRAMS]
)
def test_a_program_prints_the_whole_answer(
    page: str,
    number: int,
    program: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is run as it stands, on a broker in memory; the last word comes with the end."""
    for name in ("Client", "BlockingClient"):
        kind = getattr(aril, name)
        connected = partial(kind, transport=ServedTransport())
        monkeypatch.setattr(
            aril, name, kind if "aril.memory" in program else connected, raising=False
        )
    exec(compile(program, page, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own pages
    assert capsys.readouterr().out == PRINTED[page, number]


def test_the_page_names_every_option_and_error() -> None:
    """What a job may say, and what may be raised, is in the client's tables."""
    named = set(re.findall(r"`(\w+)`", (ROOT / PAGES[1]).read_text()))
    errors = {
        name
        for name in aril.__all__
        if isinstance(kind := getattr(aril, name), type) and issubclass(kind, ArilError)
    }
    assert len(errors) > 10
    assert JobOptions.__annotations__.keys() | errors <= named
