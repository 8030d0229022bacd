"""JSON objects from a tenant's folder: each key once, no numbers that are none, not too deep."""

import json
from typing import Any, Final

from aril.worker.adapters.faults import AdapterFault

MAX_DEPTH: Final = 16


def read_object(data: bytes, file: str) -> dict[str, Any]:
    """Decode the JSON object of a file of that name; AdapterFault if it is not exactly one."""
    try:
        fields = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except RecursionError:
        raise AdapterFault(f"{file} is nested too deep", limit=MAX_DEPTH) from None
    except ValueError as error:
        raise AdapterFault(f"{file} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise AdapterFault(f"{file} is not a JSON object")
    if _is_deeper(fields, MAX_DEPTH):
        raise AdapterFault(f"{file} is nested too deep", limit=MAX_DEPTH)
    return fields


def _is_deeper(value: object, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(item, depth - 1) for item in inner)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key occurs twice")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
