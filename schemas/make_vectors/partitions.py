"""Hashes and partitions; the hashes marked so are the values of Kafka's own tests of murmur2."""

from typing import Any

_KAFKA = "from Kafka's tests"


def partition_vectors() -> list[dict[str, Any]]:
    """Return job ids with their hash, as Java shows it (signed), and partitions by topic size."""
    return [
        _vector("", "no bytes", 275646681, {1: 0, 8: 1, 12: 9}),
        _vector("a", "one byte left over", -1563381124, {1: 0, 8: 4, 12: 4}),
        _vector("ab", "two bytes left over", 316155434, {1: 0, 8: 2, 12: 2}),
        _vector("abc", f"{_KAFKA}, three bytes left over", 479470107, {1: 0, 8: 3, 12: 3}),
        _vector("21", _KAFKA, -973932308, {1: 0, 8: 4, 12: 0}),
        _vector("foobar", _KAFKA, -790332482, {1: 0, 8: 6, 12: 6}),
        _vector("a-little-bit-long-string", _KAFKA, -985981536, {1: 0, 8: 0, 12: 8}),
        _vector("a-little-bit-longer-string", _KAFKA, -1486304829, {1: 0, 8: 3, 12: 11}),
        _vector(
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            _KAFKA,
            -58897971,
            {1: 0, 8: 5, 12: 5},
        ),
        _vector(
            "3f2b6c1e-8d47-4a0b-9c55-0d1e2f3a4b5c",
            "a UUID",
            -1898058977,
            {1: 0, 8: 7, 12: 3},
        ),
    ]


def _vector(text: str, meaning: str, signed: int, partitions: dict[int, int]) -> dict[str, Any]:
    return {
        "job": text,
        "meaning": meaning,
        "hex": text.encode().hex(),
        "murmur2_signed": signed,
        "partition_of": {str(count): partition for count, partition in partitions.items()},
    }
