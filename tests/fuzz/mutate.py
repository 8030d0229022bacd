"""How a good value is made a bad one: on bytes, and on trees of maps, arrays and scalars.

Every change is drawn from the generator that is passed in, so a case is its seed and its number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

Slot = tuple[Any, Any]  # a map or an array, and the key or index of one of its values

INTEGERS: Final = (
    *(0, 1, -1, 2, 7, 63, 64, 65, 127, 128, 255, 256, -128, -129, 32767, 32768, 65535, 65536),
    *(2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63),
    *(2**64 - 1, -(2**63)),
)
_LEAST: Final = -(2**63)  # what msgpack can write
_MOST: Final = 2**64 - 1
FLOATS: Final = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1.0000000000000002, 2.0, 1e-5, 1e-45, 5e-324, 1e38, 3.5e38),
    *(1.7e308, -1.7e308, math.inf, -math.inf, math.nan),
)
TEXTS: Final = (
    *("", " ", "\0", "\n", "a", "shared", "job", "acme\n", "ACME", "..", "../x", "a/b", "nan"),
    *(
        "1",
        "true",
        "ß",
        "\u017f",
        "İ",
        "\u2028",
        "\ufeff",
        "😀",
        "²",
        "\u0661",
        "e\u0301",
        "%s{0}\\1",
    ),
    *("a" * 63, "a" * 64, "a" * 65, "x" * 257, "é" * 513, "y" * 2_000),
)
BYTES: Final = (b"", b"\0", b"\xff", b"\x80", b"\xc1", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")
_RUNS: Final = (1, 2, 3, 4, 8, 16, 64, 300)
_MOST_SLOTS: Final = 400  # of a tree; what lies behind is left as it is


def pick(rng: Random, choices: Sequence[Any]) -> Any:
    """Draw one of them; half the price of `Random.choice`."""
    return choices[int(rng.random() * len(choices))]


def chance(rng: Random, share: float) -> bool:
    """Whether what happens in this share of cases happens now."""
    return rng.random() < share


def count(rng: Random) -> int:
    """Draw how often to do something: mostly once, at times often."""
    return pick(rng, (1, 1, 1, 2, 2, 3, 8))


def bend(rng: Random, data: bytes, times: int = 0) -> bytes:
    """Return the bytes with a few changes, as many as told or as are drawn."""
    out = bytearray(data)
    for _ in range(times or count(rng)):
        pick(rng, _MOVES)(rng, out)
    return bytes(out)


def _flip(rng: Random, out: bytearray) -> None:
    if out:
        at = int(rng.random() * len(out))
        out[at] ^= 1 << int(rng.random() * 8)


def _set(rng: Random, out: bytearray) -> None:
    if out:
        out[int(rng.random() * len(out))] = int(rng.random() * 256)


def _put(rng: Random, out: bytearray) -> None:
    at = int(rng.random() * (len(out) + 1))
    what = pick(rng, BYTES) if chance(rng, 0.5) else rng.randbytes(pick(rng, _RUNS))
    out[at:at] = what


def _cut(rng: Random, out: bytearray) -> None:
    at = int(rng.random() * (len(out) + 1))
    del out[at : at + pick(rng, _RUNS)]


def _end(rng: Random, out: bytearray) -> None:
    del out[int(rng.random() * (len(out) + 1)) :]


def _twice(rng: Random, out: bytearray) -> None:
    at = int(rng.random() * (len(out) + 1))
    out[at:at] = out[at : at + pick(rng, _RUNS)]


def _move(rng: Random, out: bytearray) -> None:
    start, at = (int(rng.random() * (len(out) + 1)) for _ in range(2))
    piece = out[start : start + pick(rng, _RUNS)]
    out[at : at + len(piece)] = piece


def _number(rng: Random, out: bytearray) -> None:
    """Write an integer over what is there, as lengths and counts stand in formats."""
    width = pick(rng, (1, 2, 4, 8))
    number = pick(rng, INTEGERS) & ((1 << 8 * width) - 1)
    at = int(rng.random() * (len(out) + 1))
    out[at : at + width] = number.to_bytes(width, pick(rng, ("big", "little")))


def _run(rng: Random, out: bytearray) -> None:
    at = int(rng.random() * (len(out) + 1))
    out[at:at] = bytes((int(rng.random() * 256),)) * pick(rng, _RUNS)


_MOVES: Final[tuple[Callable[[Random, bytearray], None], ...]] = (
    *(_flip, _flip, _set, _set, _put, _cut, _end, _twice, _move, _number, _number, _run),
)


def scalar(rng: Random) -> Any:
    """Draw any value that is no map and no array."""
    kind = int(rng.random() * 8)
    if kind == 0:
        return None
    if kind == 1:
        return chance(rng, 0.5)
    if kind == 2:
        return pick(rng, FLOATS)
    if kind == 3:
        return pick(rng, BYTES)
    if kind in (4, 5):
        return pick(rng, TEXTS)
    return pick(rng, INTEGERS)


def tree(rng: Random, depth: int = 3) -> Any:
    """Draw any value, nested at most so deep."""
    shape = rng.random()
    if depth == 0 or shape < 0.6:
        return scalar(rng)
    size = int(rng.random() * 4)
    if shape < 0.8:
        return [tree(rng, depth - 1) for _ in range(size)]
    return {pick(rng, TEXTS): tree(rng, depth - 1) for _ in range(size)}


def bend_tree(rng: Random, root: Any, times: int = 0) -> Any:
    """Change a few places of a tree, in the tree itself; return it, or what took its place."""
    holder = [root]
    for _ in range(times or count(rng)):
        inside, key = pick(rng, _slots(holder))
        _bend_slot(rng, inside, key, holder)
    return holder[0]


def _slots(holder: list[Any]) -> list[Slot]:
    slots: list[Slot] = [(holder, 0)]
    for inside, key in slots:
        if len(slots) > _MOST_SLOTS:
            break
        value = inside[key]
        if isinstance(value, dict):
            slots += [(value, each) for each in value]
        elif isinstance(value, list):
            slots += [(value, each) for each in range(min(len(value), _MOST_SLOTS))]
    return slots[1:] if len(slots) > 1 else slots


def _bend_slot(rng: Random, inside: Any, key: Any, holder: list[Any]) -> None:
    value, how = inside[key], int(rng.random() * 8)
    if how == 0:
        inside[key] = tree(rng)
    elif how == 1:
        inside[key] = _other_type(rng, value)
    elif how == 2 and inside is not holder:
        del inside[key]
    elif how == 3:
        inside[key] = pick(rng, ([value], {"x": value}, [value, value]))
    elif how == 4:
        there, other = pick(rng, _slots(holder))
        if not isinstance(there[other], (dict, list)):  # what holds itself cannot be written
            inside[key] = there[other]
    elif how == 5 and isinstance(inside, dict):
        inside[pick(rng, TEXTS)] = inside.pop(key)
    else:
        inside[key] = _near(rng, value)


def _near(rng: Random, value: Any) -> Any:
    """Change a value within its type."""
    return _NEAR.get(type(value), lambda rng, _: scalar(rng))(rng, value)


def _near_integer(rng: Random, value: int) -> int:
    near = value + pick(rng, (1, -1))
    return near if chance(rng, 0.3) and _LEAST <= near <= _MOST else pick(rng, INTEGERS)


def _near_text(rng: Random, value: str) -> str:
    return value + pick(rng, TEXTS) if chance(rng, 0.3) else pick(rng, TEXTS)


def _near_array(rng: Random, value: list[Any]) -> list[Any]:
    return value * pick(rng, (0, 2, 3)) + [scalar(rng)] * int(rng.random() * 2)


_NEAR: Final[dict[type, Callable[[Random, Any], Any]]] = {
    bool: lambda _, value: not value,
    int: _near_integer,
    float: lambda rng, _: pick(rng, FLOATS),
    str: _near_text,
    bytes: lambda rng, value: bend(rng, value, 1),
    list: _near_array,
    dict: lambda rng, value: value | {pick(rng, TEXTS): scalar(rng)},
}


def _other_type(rng: Random, value: Any) -> Any:
    """Say the same, or something like it, in another type."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return pick(rng, (str(value), value * 1.0 if abs(value) < FLOATS[-4] else 0.0, [value]))
    if isinstance(value, str):
        return pick(rng, (value.encode(errors="replace"), [value], list(value[:20]), len(value)))
    if isinstance(value, list):
        return pick(rng, ({str(at): each for at, each in enumerate(value[:20])}, str(value)[:50]))
    if isinstance(value, dict):
        return list(value.items()) if chance(rng, 0.5) else list(value.values())
    return scalar(rng)
