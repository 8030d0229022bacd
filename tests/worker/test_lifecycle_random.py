"""Whatever happens to jobs, in whatever order: none is in two places, and each ends once.

The real parts of a worker on logs that are lists (`tests.support.life_scene`). Jobs come, are
cancelled, run, fail; appends fail and hang; partitions go and come back.
"""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest

from aril.worker.stages import Stage
from tests.support.harness import Harness
from tests.support.life_scene import CALM, STORMY, Scene
from tests.support.span_list import SpanList

STEPS = 200  # of one history
SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 100))]


async def live(seed: int, weights: dict[str, int]) -> None:
    """Live through one history."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    spans = SpanList()
    async with Harness(max_rows=2, tracing=spans.tracing) as harness:
        scene = Scene(harness, random.Random(seed))
        await scene.live(weights, STEPS)
        await scene.end()
        assert {each.stage for each in scene.entries} <= {Stage.SETTLED, Stage.DROPPED}
        spans.check()
        settled = {each.record.offset for each in scene.entries if each.stage is Stage.SETTLED}
        assert settled <= {each.root.place.offset for each in spans.roots}
        assert harness.state.position in {None, len(scene.values)}
        assert harness.answers._streams == {}
        claims = harness.lifecycle.parts.claims
        assert not claims._ahead
        assert not claims._asked
        assert not claims._claimed
        unwritable = [
            headers
            for _, _, headers in harness.dead_letters
            if headers["aril-reason"] == b"reply_unwritable"
        ]
        unanswered = {
            each.id for each in scene.jobs if harness.visible(each.tenant, each.id).terminal is None
        }
        assert len(unanswered) <= len(unwritable)
    gc.collect()  # a task that failed unseen tells when it goes
    assert faults == []


@pytest.mark.parametrize("weights", [CALM, STORMY], ids=["calm", "stormy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_job_is_in_two_places_and_each_ends_once(
    monkeypatch: pytest.MonkeyPatch, seed: int, weights: dict[str, int]
) -> None:
    """Random histories; in the end nothing is open and nobody waits for an answer."""
    monkeypatch.setattr("aril.worker.effects.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.takeover.claims.FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.replies.reply_logs.FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.replies.answers.RETRY_SECONDS", 0.0)
    asyncio.run(live(seed, weights))
