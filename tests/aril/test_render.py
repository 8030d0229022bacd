"""Answers as lines: whole, of one stream each, and unable to drive the terminal."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from aril.render import Weaver, printable


def woven(pieces: list[tuple[str, str]], *, width: int = 40) -> list[str]:
    """Return the lines that these pieces of streams a and b make."""
    out = io.StringIO()
    weaver = Weaver({"a": "a", "b": "b"}, width=width, out=out)
    for stream, text in pieces:
        weaver.add(stream, text)
    weaver.end("a", "[end]")
    weaver.end("b")
    return out.getvalue().splitlines()


def test_streams_do_not_mix_in_a_line() -> None:
    """Pieces that alternate come out as whole lines of one stream each."""
    pieces = [("a", "one "), ("b", "uno "), ("a", "two\n"), ("b", "due"), ("a", "three")]
    assert woven(pieces) == ["a │ one two", "a │ three [end]", "b │ uno due"]


def test_long_lines_break_at_words() -> None:
    """A line as wide as the terminal is broken at a space, a longer word where it must be."""
    assert woven([("a", "some words and more of them in a row")], width=24) == [
        "a │ some words and more",
        "a │ of them in a row",
        "a │ [end]",
    ]
    assert woven([("b", "x" * 25)], width=24) == [
        "b │ " + "x" * 20,
        "a │ [end]",
        "b │ xxxxx",
    ]


@given(st.lists(st.text(alphabet="ab \n", max_size=9), max_size=20))
def test_no_letter_is_lost(pieces: list[str]) -> None:
    """However the text is cut into pieces, every letter is written once and in order."""
    lines = woven([("b", piece) for piece in pieces], width=24)
    written = "".join(line.removeprefix("b │").strip() for line in lines if line.startswith("b"))
    text = "".join(pieces)
    assert written.replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert all(len(line) <= 24 for line in lines)


def test_colours_are_closed() -> None:
    """Each coloured line ends without colour, so that nothing else is painted."""
    out = io.StringIO()
    weaver = Weaver({"a": "a"}, width=40, colours={"a": "\033[31m"}, out=out)
    weaver.add("a", "red\n")
    weaver.end("a", "[note]")
    assert out.getvalue() == "\033[31ma │ red\033[0m\n\033[31ma │ \033[0m\033[2m[note]\033[0m\n"


def test_model_cannot_drive_the_terminal() -> None:
    """Escape sequences and other controls in an answer are shown, not obeyed; text is kept."""
    text = "a\x1b[2J\x07\x9b\u202eb\tç\n漢"
    assert printable(text) == "a\ufffd[2J\ufffd\ufffd\ufffdb\tç\n漢"
