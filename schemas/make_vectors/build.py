"""The shape of a vector."""

from typing import Any

import msgpack

from aril.schemas import limits

Fields = dict[str, Any]
Vector = dict[str, Any]

MISSING = object()
"""As a field's value: the field is left out."""
JOB: Fields = {"kind": "job", "id": "j1", "tenant": "acme", "prompt": "Hi"}
"""The smallest job."""
OWNER: Fields = {"kind": "job", "tenant": "acme", "job": "j1"}
"""What is known of a refused record whose owner can be told."""
NOBODY: Fields = {"kind": None, "tenant": None, "job": None}
"""What is known of a refused record that cannot be read."""


def pack(fields: Fields) -> bytes:
    """Return the msgpack map of `fields`, with `v` in front unless they set it."""
    present = {
        name: value
        for name, value in ({"v": limits.VERSION} | fields).items()
        if value is not MISSING
    }
    data: bytes = msgpack.packb(present)
    return data


def vector(
    name: str,
    meaning: str,
    data: bytes,
    expect: Fields,
    *,
    repeat: tuple[bytes, int] | None = None,
) -> Vector:
    """Return a vector; `repeat` is a piece of bytes to append so many times."""
    body: Vector = {"name": name, "meaning": meaning, "hex": data.hex()}
    if repeat:
        body["repeat"] = {"hex": repeat[0].hex(), "times": repeat[1]}
    return body | {"expect": expect}


def refusal(code: str, reason: str, **known: Any) -> Fields:
    """Return what is expected of bytes that are refused."""
    return {"error": {"code": code, "reason": reason, **known}}
