"""The host cache: one load however many ask, a budget in bytes, errors that do not stick."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterCache, AdapterRef, AdapterStore, AdapterWeights, LoraModule
from aril.worker.adapters.byte_lru import ByteLru
from tests.support.adapter_folders import SHAPES, tensors, write_adapter

NBYTES = sum(tensor.nbytes for tensor in tensors().values())


class SlowStore(AdapterStore):
    """A store whose loads wait for a gate, and are counted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, base_model=None, linear_shapes=SHAPES, max_rank=8)
        self.gate = threading.Event()
        self.loaded: Counter[str] = Counter()
        self.threads: set[int] = set()
        self.error: Exception | None = None

    def load(self, ref: AdapterRef) -> AdapterWeights:
        """Wait for the gate, then load, or fail as told."""
        self.loaded[ref.name] += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return super().load(ref)


@pytest.fixture
def slow(root: Path) -> SlowStore:
    """Return a store with adapters a to d, each of other content."""
    for alpha, name in enumerate("abcd", start=1):
        write_adapter(root / "acme" / name, lora_alpha=alpha)
    return SlowStore(root)


async def until_asked(cache: AdapterCache, loads: int) -> None:
    """Wait until the cache has started so many loads."""
    while cache.loads < loads:  # noqa: ASYNC110  # the counter is all there is to watch
        await asyncio.sleep(0.001)


async def test_many_who_ask_at_once_cause_one_load(slow: SlowStore) -> None:
    """Jobs that arrive during a load join it, and none of it runs on the event loop's thread."""
    cache = AdapterCache(slow, 10 * NBYTES)
    asking = [asyncio.create_task(cache.get("acme", "a")) for _ in range(50)]
    await until_asked(cache, 1)
    slow.gate.set()
    adapters = await asyncio.gather(*asking)
    assert slow.loaded == {"a": 1}
    assert len({id(adapter) for adapter in adapters}) == 1
    assert threading.get_ident() not in slow.threads


async def test_a_resident_adapter_is_not_read_again(slow: SlowStore) -> None:
    """The second job finds it in memory."""
    slow.gate.set()
    cache = AdapterCache(slow, 10 * NBYTES)
    first = await cache.get("acme", "a")
    assert await cache.get("acme", "a") is first
    assert (cache.loads, cache.hits, cache.nbytes) == (1, 1, NBYTES)


async def test_one_who_gives_up_does_not_stop_the_load(slow: SlowStore) -> None:
    """A cancelled job leaves the load to the others."""
    cache = AdapterCache(slow, 10 * NBYTES)
    leaves, stays = (asyncio.create_task(cache.get("acme", "a")) for _ in range(2))
    await until_asked(cache, 1)
    leaves.cancel()
    await asyncio.sleep(0)
    slow.gate.set()
    assert (await stays).name == "a"
    assert leaves.cancelled()
    assert slow.loaded == {"a": 1}


async def test_a_load_that_nobody_waits_for_any_more_is_kept(slow: SlowStore) -> None:
    """Its result is there for the next one who asks, and `close` waits for it."""
    cache = AdapterCache(slow, 10 * NBYTES)
    leaves = asyncio.create_task(cache.get("acme", "a"))
    await until_asked(cache, 1)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    slow.gate.set()
    await cache.close()
    await cache.get("acme", "a")
    assert slow.loaded == {"a": 1}


async def test_loads_at_once_are_bounded(slow: SlowStore) -> None:
    """A burst over many adapters does not read them all at the same time."""
    cache = AdapterCache(slow, 10 * NBYTES)
    asking = [asyncio.create_task(cache.get("acme", name)) for name in "abcd"]
    await until_asked(cache, 2)
    await asyncio.sleep(0.05)
    assert cache.loads == 2
    slow.gate.set()
    assert [adapter.name for adapter in await asyncio.gather(*asking)] == list("abcd")


async def test_new_content_under_a_name_is_loaded(slow: SlowStore, root: Path) -> None:
    """A job gets what the folder holds when it asks, and the old content stays for its holders."""
    slow.gate.set()
    cache = AdapterCache(slow, 10 * NBYTES)
    old = await cache.get("acme", "a")
    write_adapter(root / "acme/a", lora_alpha=30)
    new = await cache.get("acme", "a")
    assert new.digest != old.digest
    assert next(iter(new.modules.values())).scaling == 10.0


async def test_a_folder_replaced_during_the_load_is_loaded_anew(
    slow: SlowStore, root: Path
) -> None:
    """What is handed out always has the digest that the look-up found."""
    cache = AdapterCache(slow, 10 * NBYTES)
    asking = asyncio.create_task(cache.get("acme", "a"))
    await until_asked(cache, 1)
    write_adapter(root / "acme/a", lora_alpha=30)
    slow.gate.set()
    assert (await asking).digest == slow.find("acme", "a").digest


async def test_a_refusal_is_remembered_for_a_while(slow: SlowStore, root: Path) -> None:
    """A bad adapter is not read for each of a thousand jobs, and not refused for ever."""
    now = 100.0
    slow.gate.set()
    cache = AdapterCache(slow, 10 * NBYTES, clock=lambda: now)
    write_adapter(root / "acme/a", use_bdlora=True)
    for _ in range(3):
        with pytest.raises(JobError, match="use_bdlora") as caught:
            await cache.get("acme", "a")
        assert caught.value.code is ErrorCode.ADAPTER_INVALID
    assert slow.loaded == {"a": 1}
    now += 31
    with pytest.raises(JobError, match="use_bdlora"):
        await cache.get("acme", "a")
    assert slow.loaded == {"a": 2}


async def test_what_was_read_is_prepared_once(slow: SlowStore) -> None:
    """What takes long with an adapter is done in the thread that read it, before anybody has it."""
    slow.gate.set()
    prepared: list[tuple[str, int]] = []
    cache = AdapterCache(
        slow,
        10 * NBYTES,
        prepare=lambda adapter: prepared.append((adapter.digest, threading.get_ident())),
    )
    found = [await cache.get("acme", "a") for _ in range(3)]
    assert [digest for digest, _ in prepared] == [found[0].digest]
    assert {thread for _, thread in prepared} == slow.threads
    assert threading.get_ident() not in slow.threads


async def test_what_cannot_be_prepared_is_refused_for_a_while(slow: SlowStore) -> None:
    """A refusal of `prepare` is one of the folder: remembered, and nothing is kept."""
    slow.gate.set()

    def refuse(_adapter: AdapterWeights) -> None:
        raise JobError(ErrorCode.ADAPTER_INVALID, "linear: no length")

    cache = AdapterCache(slow, 10 * NBYTES, prepare=refuse)
    for _ in range(3):
        with pytest.raises(JobError, match="no length"):
            await cache.get("acme", "a")
    assert slow.loaded == {"a": 1}
    assert cache.nbytes == 0


async def test_a_mended_folder_is_served_at_once(slow: SlowStore, root: Path) -> None:
    """A refusal is of a content, so new content has none."""
    slow.gate.set()
    cache = AdapterCache(slow, 10 * NBYTES)
    write_adapter(root / "acme/a", use_bdlora=True)
    with pytest.raises(JobError):
        await cache.get("acme", "a")
    write_adapter(root / "acme/a")
    assert (await cache.get("acme", "a")).rank == 3


async def test_a_failing_disk_is_not_remembered(slow: SlowStore) -> None:
    """An error of ours reaches all who wait, once, and the next job tries again."""
    cache = AdapterCache(slow, 10 * NBYTES)
    slow.error = OSError(5, "Input/output error")
    asking = [asyncio.create_task(cache.get("acme", "a")) for _ in range(3)]
    await until_asked(cache, 1)
    slow.gate.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(result, OSError) for result in results)
    slow.error = None
    assert (await cache.get("acme", "a")).name == "a"


async def test_nobody_sees_the_name_another_tenant_gave(slow: SlowStore, root: Path) -> None:
    """Equal content is held once, under the name that each one asked for."""
    slow.gate.set()
    write_adapter(root / "globex/project-x", lora_alpha=1)
    write_adapter(root / "acme/bad", use_bdlora=True)
    write_adapter(root / "globex/bad-x", use_bdlora=True)
    cache = AdapterCache(slow, 10 * NBYTES)
    theirs, ours = await cache.get("globex", "project-x"), await cache.get("acme", "a")
    assert (theirs.name, ours.name) == ("project-x", "a")
    assert theirs.digest == ours.digest
    assert cache.nbytes == NBYTES
    for tenant, name in (("globex", "bad-x"), ("acme", "bad")):
        with pytest.raises(JobError, match=rf"adapter {name}:"):
            await cache.get(tenant, name)


def sized(digest: str, size: int) -> AdapterWeights:
    """Return an adapter of which only digest and size matter."""
    a, b = torch.empty(size, 1, dtype=torch.uint8), torch.empty(0)
    return AdapterWeights(digest, digest, 1, {"linear": LoraModule(1, 1.0, a, b)})


STEPS = st.lists(st.tuples(st.sampled_from(["put", "get"]), st.integers(0, 5)), max_size=60)


@given(steps=STEPS, budget=st.integers(0, 12))
def test_lru_keeps_its_budget(steps: list[tuple[str, int]], budget: int) -> None:
    """At every step: what is there fits in the budget, and the oldest have gone first."""
    lru = ByteLru(budget)
    order: list[str] = []  # the model: least recently used first
    for action, number in steps:
        adapter = sized(str(number), 1 + number % 4)
        digest = adapter.digest
        if action == "get":
            assert (lru.get(digest) is not None) == (digest in order)
            if digest in order:
                order.remove(digest)
                order.append(digest)
            continue
        lru.put(adapter)
        order = [entry for entry in order if entry != digest] + [digest]
        while sum(1 + int(entry) % 4 for entry in order) > budget:
            order.pop(0)
        assert [entry for entry in map(str, range(6)) if entry in lru] == sorted(order)
        assert lru.nbytes == sum(1 + int(entry) % 4 for entry in order)
        assert len(lru) == len(order)
