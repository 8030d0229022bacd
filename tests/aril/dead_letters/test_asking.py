"""Before anything is appended or deleted, somebody on a terminal is asked."""

from __future__ import annotations

import argparse
import builtins

import pytest

from aril.commands.dlq_actions import confirmed


@pytest.mark.parametrize(
    ("answer", "goes"), [("y", True), (" YES ", True), ("", False), ("n", False), (None, False)]
)
def test_only_a_yes_is_one(monkeypatch: pytest.MonkeyPatch, answer: str | None, goes: bool) -> None:
    """Nothing, or the end of the input, is a no."""
    asked = []

    def typed(question: str) -> str:
        asked.append(question)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr(builtins, "input", typed)
    assert confirmed(argparse.Namespace(yes=False), "delete 3 letters for good") is goes
    assert asked == ["delete 3 letters for good? [y/N] "]


def test_with_yes_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a script."""
    monkeypatch.delattr(builtins, "input")
    assert confirmed(argparse.Namespace(yes=True), "delete")
