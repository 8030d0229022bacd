"""What runs in an engine: whatever comes, it comes to rest, and nobody is in two places."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.adapters import AdapterWeights
from aril.worker.batching.feed import Feed
from aril.worker.engine.request import GenerationRequest
from aril.worker.intake.tenant_limits import TenantLimits
from aril.worker.settings import load_settings
from tests.support.entries import entry_of
from tests.support.harness import HandEngine

if TYPE_CHECKING:
    from aril.worker.job import Entry

SETTINGS = load_settings(
    flags={"max_rows": 4, "slots": 2, "window_ms": 0, "max_step_tokens": 64}
).settings


class Weights(TenantLimits):
    """One tenant may have twice as much."""

    asked = 0  # how often: what shares cost

    def weight(self, tenant: str) -> float:
        """Tell."""
        self.asked += 1
        return 2.0 if tenant == "c" else 1.0


class Scene:
    """A feed between jobs and an engine that a test answers for."""

    def __init__(self, **flags: int) -> None:
        settings = SETTINGS.model_copy(update=flags)
        self.places = settings.max_rows + settings.max_rows // 4
        self.limits = Weights()
        self.keys = itertools.count(1)
        self.times = itertools.count(1)
        self.entries: list[Entry] = []
        self.engine = HandEngine()
        self.feed = Feed(
            settings=settings,
            kv_tokens=15 * settings.max_rows,
            engine=self.engine,
            limits=self.limits,
            request=self.request,
            displaced=self.displaced,
        )

    def request(self, entry: Entry) -> Any:
        """Make what the engine gets."""
        return GenerationRequest(
            key=entry.key,
            prompt_ids=entry.prompt_ids,
            sampling=entry.job.sampling,  # type: ignore[union-attr] # it has one
            seed=0,
            adapter=None,
        )

    def displaced(self, entry: Entry, _had_row: bool) -> None:
        """Do what the table says."""
        self.feed.stop(entry)
        entry.key = next(self.keys)
        self.feed.offer(entry)

    def send(self, tenant: str, adapter: str, tokens: int) -> None:
        """Let a job wait."""
        entry = entry_of(f"{tenant}{len(self.entries)}", offset=len(self.entries))
        entry.tenant, entry.key = tenant, next(self.keys)
        entry.gathered = next(self.times)
        entry.prompt_ids = (1,) * tokens
        if adapter:
            entry.adapter = AdapterWeights(name=adapter, digest=adapter, rank=1, modules={})
        self.entries.append(entry)
        self.feed.offer(entry)

    def end(self, which: int) -> None:
        """Let a running job end."""
        running = [*self.feed]
        if running:
            entry = running[which % len(running)]
            self.feed.ended(entry.key)
            self.engine.requests.pop(entry.key)
            self.entries.remove(entry)

    def rest(self) -> None:
        """Submit until nothing changes; see that this comes, and that all is in one place."""
        for _ in range(200):
            if not self.feed.submit(now=1e9):
                break
        else:
            raise AssertionError("rows are passed to and fro for ever")
        running, waiting = [*self.feed], [*self.feed.waiting()]
        assert sorted(map(id, running + waiting)) == sorted(map(id, self.entries))
        assert set(self.engine.requests) == {entry.key for entry in running}
        assert len(running) == min(len(self.entries), self.places)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"),
            st.sampled_from("abc"),
            st.sampled_from(["", "x", "y", "z"]),
            st.integers(1, 40),
        ),
        st.tuples(st.just("end"), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_it_comes_to_rest_whatever_comes(actions: list[tuple[Any, ...]]) -> None:
    """Rows, slots and cache all lack at times; places are filled, and change hands no longer."""
    scene = Scene()
    for name, *given_ in actions:
        getattr(scene, name)(*given_)
        scene.rest()


def test_who_gives_way_does_not_take_it_back_with_an_equal_share() -> None:
    """Shares that hang on slots do not change with a row: the older job came in again, for ever."""
    scene = Scene()
    for tenant, adapter in (("a", "x"), ("b", "y"), ("a", ""), ("a", "")):
        scene.send(tenant, adapter, 1)
        scene.rest()
    scene.send("b", "y", 1)
    scene.rest()
    scene.send("b", "", 1)
    scene.rest()


@pytest.mark.parametrize("adapters", [False, True])
def test_looking_for_room_costs_little_however_many_wait(adapters: bool) -> None:
    """Every tenant has its part, and the rest waits: nobody looks through all rows for each."""
    scene = Scene(max_rows=64, slots=16)
    for number in range(64):
        tenant = f"t{number % 16}" if adapters else f"t{number}"
        scene.send(tenant, tenant if adapters else "", 1)
    scene.rest()
    for number in range(100):
        scene.send(f"n{number}", f"n{number}" if adapters else "", 1)
    scene.rest()
    scene.limits.asked = 0
    assert not scene.feed.submit(now=1e9)
    assert scene.limits.asked < 20 * (64 + 100)
    assert not scene.engine.cancelled
