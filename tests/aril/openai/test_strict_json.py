"""What is read of a body: as Python reads it, but for what cannot be written again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.openai.strict_json import MAX_DEPTH, BadJson, strict_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nested(depth: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    """Make maps or arrays within each other."""
    return (opening * depth + "1" + closing * depth).encode()


@given(JSON, st.booleans())
def test_it_reads_what_is_written(value: Any, ascii_only: bool) -> None:
    """Whatever that is, surrogate pairs as escapes included."""
    assert strict_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=30) | st.text(alphabet='[]{}",:\\ud81e9.-', max_size=30).map(str.encode))
def test_what_is_read_can_be_written(data: bytes) -> None:
    """Of any bytes, by the strictest writer; all else is refused."""
    try:
        value = strict_json(data)
    except BadJson:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_a_depth_that_all_can_write(opening: str) -> None:
    """Up to it, not beyond, and never for want of stack."""
    closing = "}" if opening[0] == "{" else "]"
    assert strict_json(nested(MAX_DEPTH, opening, closing))
    for depth in (MAX_DEPTH + 1, 900, 990, 100_000):
        with pytest.raises(BadJson, match=f"nested more than {MAX_DEPTH} deep"):
            strict_json(nested(depth, opening, closing))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'"\xff"', "is not JSON"),
        (b"NaN", "is not JSON"),
        (b"[-Infinity]", "is not JSON"),
        (b"[" + b"9" * 5_000 + b"]", "is not JSON"),
        (b'{"a": [1e999]}', "too large"),
        (b"-1e999", "too large"),
        (rb'"\ud800"', "surrogate"),
        (rb'{"a": ["\udc00\ud800"]}', "surrogate"),
        (rb'{"\uD800": 1}', "surrogate"),
    ],
)
def test_what_is_refused(data: bytes, told: str) -> None:
    """With the reason, as it is told to the caller."""
    with pytest.raises(BadJson, match=told):
        strict_json(data)
