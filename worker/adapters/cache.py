"""Adapters in host memory for whoever asks: one load at a time for one content, off the loop."""

import asyncio
import dataclasses
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters.byte_lru import ByteLru
from aril.worker.adapters.store import AdapterRef, AdapterStore
from aril.worker.adapters.weights import AdapterWeights, Remark
from aril.worker.observe.distribution import Distribution
from aril.worker.observe.engine_stats import LOAD_SECONDS
from aril.worker.observe.logs import Sampled, get_logger

_LOADS_AT_ONCE: Final = 2  # reads are bound by the disk, checks by one core each
_MAX_TRIES: Final = 3  # for a folder that is being replaced while we read it
_REFUSAL_SECONDS: Final = 30.0
_MAX_REFUSALS: Final = 1_024

Clock = Callable[[], float]

log = Sampled(get_logger(__name__))


class _Content(NamedTuple):
    """One content under one name: a refusal speaks of the name, so it is shared no further."""

    digest: str
    name: str


class AdapterCache:
    """Gives jobs their adapters. Everything that touches the disk runs in a thread.

    Belongs to one event loop. A folder that was refused is not read again for half a minute;
    other failures (a store that cannot be reached) are told to those who wait, and forgotten.
    """

    def __init__(
        self,
        store: AdapterStore,
        max_bytes: int,
        *,
        prepare: Callable[[AdapterWeights], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Keep up to `max_bytes`.

        `prepare` is called once for what was read, in the thread that read it; a JobError of it is
        a refusal.
        """
        self._store = store
        self._prepare = prepare
        self._clock = clock
        self._lru = ByteLru(max_bytes)
        self._loads: dict[_Content, asyncio.Task[AdapterWeights]] = {}
        self._refusals: OrderedDict[_Content, tuple[float, JobError]] = OrderedDict()
        self._turn = asyncio.Semaphore(_LOADS_AT_ONCE)
        self._loads_of: Counter[str] = Counter()  # by tenant, since they were last asked for
        self.load_seconds = Distribution(LOAD_SECONDS)
        self.hits = 0
        self.loads = 0
        self.other_bases = 0
        """Adapters read that name another base model."""
        self.other_templates = 0
        """Adapters read whose own chat template is not used."""

    @property
    def digests(self) -> tuple[str, ...]:
        """The adapters that are held."""
        return self._lru.digests

    @property
    def nbytes(self) -> int:
        """Bytes of all adapters that are held."""
        return self._lru.nbytes

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return the adapter that `tenant` means by `name`, with the content it has now.

        Raises what `AdapterStore.find` and `.load` raise.
        """
        for _ in range(_MAX_TRIES):
            ref = await asyncio.to_thread(self._store.find, tenant, name)
            found = self._lru.get(ref.digest)
            if found is not None:
                self.hits += 1
                return _named(found, ref)
            weights = await self._load_once(tenant, ref)
            if weights.digest == ref.digest:
                return _named(weights, ref)
        raise JobError(
            ErrorCode.ADAPTER_INVALID, f"adapter {ref.name}: its folder changes while it is read"
        )

    def take_loads(self, tenant: str) -> int:
        """Return how many adapters were read for a tenant since this was last asked."""
        return self._loads_of.pop(tenant, 0)

    async def close(self) -> None:
        """Wait for the loads under way; a thread cannot be stopped."""
        await asyncio.gather(*self._loads.values(), return_exceptions=True)

    async def _load_once(self, tenant: str, ref: AdapterRef) -> AdapterWeights:
        content = _Content(ref.digest, ref.name)
        self._raise_refusal(content)
        load = self._loads.get(content)
        if load is None:
            load = asyncio.create_task(self._load(ref))
            self._loads[content] = load
            self._loads_of[tenant] += 1
            load.add_done_callback(lambda done: self._loaded(ref, done))
        # One who gives up must not take the load away from the others.
        return await asyncio.shield(load)

    async def _load(self, ref: AdapterRef) -> AdapterWeights:
        async with self._turn:
            self.loads += 1
            begun = time.monotonic()
            weights = await asyncio.to_thread(self._read, ref)
            self.load_seconds.observe(time.monotonic() - begun)
            return weights

    def _read(self, ref: AdapterRef) -> AdapterWeights:
        weights = _named(self._store.load(ref), ref)
        if self._prepare is not None:
            self._prepare(weights)
        return weights

    def _loaded(self, ref: AdapterRef, load: asyncio.Task[AdapterWeights]) -> None:
        content = _Content(ref.digest, ref.name)
        del self._loads[content]
        if load.cancelled():
            return
        error = load.exception()  # also marks it as seen, should nobody wait any more
        if error is None:
            self._lru.put(load.result())
            self._warn(ref, load.result())
        elif isinstance(error, JobError):
            # Those who wait for the load are raised this one; its frames hold what was read.
            self._refusals[content] = (self._clock() + _REFUSAL_SECONDS, error.bare())
            while len(self._refusals) > _MAX_REFUSALS:
                self._refusals.popitem(last=False)

    def _warn(self, ref: AdapterRef, weights: AdapterWeights) -> None:
        if weights.warning is not None:
            self.other_bases += 1
            owner = ref.folder.home.name
            log.warning("adapter_base_differs", owner=owner, adapter=ref.name, why=weights.warning)
        for remark in weights.remarks:
            self.other_templates += remark is Remark.TEMPLATE_NOT_USED
            owner = ref.folder.home.name
            log.warning(remark.value, owner=owner, adapter=ref.name, why=remark.text)

    def _raise_refusal(self, content: _Content) -> None:
        until, error = self._refusals.get(content, (0.0, None))
        if error is None:
            return
        if self._clock() < until:
            # A new one: an exception that is raised again keeps every traceback it ever had.
            raise JobError(error.code, error.message, limit=error.limit, given=error.given)
        del self._refusals[content]


def _named(weights: AdapterWeights, ref: AdapterRef) -> AdapterWeights:
    """Equal content is kept once, but nobody is shown the name another tenant gave it."""
    name, owner = ref.name, ref.folder.home.name
    if (weights.name, weights.owner) == (name, owner):
        return weights
    return dataclasses.replace(weights, name=name, owner=owner)
