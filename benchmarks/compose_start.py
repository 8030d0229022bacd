"""Measure how long the compose stack takes from nothing to the first token of its gateway.

    python -m benchmarks.compose_start [--rounds 3]    # writes compose_start.csv

The images are built before (`docker compose --profile gateway build`), volumes are empty: Kafka is
formatted, the demo's model made, topics created, a worker loads. A question is put as soon as the
engine says that the worker takes jobs.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from typing import Final

from benchmarks.record import Row, keep
from tests.support.compose import Stack

RESULTS: Final = "compose_start"  # no QUESTION: `make bench` has no Docker engine
QUESTION_BODY: Final = {
    "model": "terse",
    "stream": True,
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "My parcel is late. What now?"}],
}


def once() -> float:
    """Return the seconds to the first token."""
    begun = time.monotonic()
    with Stack("gateway", build=False) as stack:
        asked = urllib.request.Request(  # noqa: S310 - ours
            f"{stack.gateway}/v1/chat/completions",
            json.dumps(QUESTION_BODY).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked) as answer:  # noqa: S310 - ours
            for line in answer:
                if line.startswith(b"data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    if delta.get("content"):
                        return time.monotonic() - begun
    raise AssertionError("an answer without a token")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    taken = [once() for _ in range(parser.parse_args().rounds)]
    row = Row.of(
        taken,
        question=RESULTS,
        provider="aril",
        metric="first token",
        x="empty volumes",
        unit="s",
        config="one worker of one core, gateway, kafka; images built before, stand-ins",
    )
    keep(RESULTS, [row])
