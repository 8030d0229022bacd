"""Stop strings: what comes through does not depend on how the text is cut."""

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.stops import StopStrings

STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)
PIECES = st.lists(st.text("ab\n", max_size=4), max_size=12)


def transcription(text: str, stops: list[str]) -> tuple[str, bool]:
    """Look at the text character by character: the first stop string complete, the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(stops=STOPS, pieces=PIECES)
def test_equal_to_a_look_at_the_whole_text(stops: list[str], pieces: list[str]) -> None:
    """Joined, the text ends before the first stop string, across any borders."""
    filter_ = StopStrings(stops)
    through = [filter_.push(piece) for piece in pieces]
    through.append(filter_.flush())
    assert ("".join(through), filter_.found) == transcription("".join(pieces), stops)


@given(stops=STOPS.filter(len), pieces=PIECES)
def test_exactly_the_possible_part_is_held(stops: list[str], pieces: list[str]) -> None:
    """Held back is the longest ending of the text that a stop string begins with, no more."""
    filter_ = StopStrings(stops)
    shown = seen = ""
    for piece in pieces:
        shown += filter_.push(piece)
        seen += piece
        if filter_.found:
            return
        endings = [seen[at:] for at in range(len(seen) + 1)]
        held = next(part for part in endings if any(stop.startswith(part) for stop in stops))
        assert shown + held == seen


def test_nothing_comes_after_a_stop_string() -> None:
    """Text behind it, in the same piece or later, is dropped."""
    filter_ = StopStrings(["END"])
    assert filter_.push("one E") == "one "
    assert filter_.push("ND two") == ""
    assert filter_.found
    assert filter_.push("three") == ""
    assert filter_.flush() == ""
