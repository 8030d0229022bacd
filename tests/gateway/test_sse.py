"""Events for readers that take more than one character for the end of a line."""

from __future__ import annotations

import json
import sys

from hypothesis import given
from hypothesis import strategies as st

from aril.gateway.messages import message
from aril.gateway.sse import event
from aril.schemas import TokensEvent

# All that str.splitlines splits at, by which httpx reads lines.
ENDS = "".join(
    each for each in map(chr, range(sys.maxunicode + 1)) if len(f"a{each}b".splitlines()) > 1
)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(ENDS)))
def test_an_event_is_as_many_lines_as_it_has_fields(text: str) -> None:
    """Whatever it says, by Python's notion of a line; and it says it."""
    head, data, *rest = event({"text": text}, id="1.2").decode().splitlines()
    assert (head, rest) == ("id: 1.2", [""])
    assert json.loads(data.removeprefix("data: ")) == {"text": text}


@given(st.text(st.sampled_from(ENDS + "aé")))
def test_a_message_is_one_line(text: str) -> None:
    """Of a durable stream, too."""
    (line,) = message(TokensEvent(0, (1,), text)).decode().splitlines()
    assert json.loads(line)["text"] == text
