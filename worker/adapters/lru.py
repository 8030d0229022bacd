"""What host memory holds: adapters by digest, least recently used out first."""

from collections import OrderedDict

from worker.adapters.weights import AdapterWeights


class ByteLru:
    """Adapters by digest within a budget of bytes. Pure: no I/O, no clock.

    Pinned adapters stay. They are in memory anyway, as a job holds them, so they count against the
    budget, and `nbytes` may pass it while all that is left is pinned.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[str, AdapterWeights] = OrderedDict()  # oldest first
        self._pins: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    def get(self, digest: str) -> AdapterWeights | None:
        """Return the adapter, if it is here, and make it the most recently used."""
        found = self._entries.get(digest)
        if found is not None:
            self._entries.move_to_end(digest)
        return found

    def put(self, adapter: AdapterWeights) -> None:
        """Keep `adapter` as the most recently used, if need be at the cost of the oldest."""
        if adapter.digest not in self._entries:
            self._entries[adapter.digest] = adapter
            self.nbytes += adapter.nbytes
        self._entries.move_to_end(adapter.digest)
        self._shrink()

    def pin(self, adapter: AdapterWeights) -> None:
        """Keep `adapter` until it is unpinned as often as it was pinned."""
        self._pins[adapter.digest] = self._pins.get(adapter.digest, 0) + 1
        self.put(adapter)

    def unpin(self, digest: str) -> None:
        """Take one pin off."""
        pins = self._pins.pop(digest) - 1
        if pins:
            self._pins[digest] = pins
        else:
            self._shrink()

    @property
    def pinned(self) -> int:
        """How many adapters are pinned."""
        return len(self._pins)

    def _shrink(self) -> None:
        if self.nbytes <= self.max_bytes:
            return
        for digest in [digest for digest in self._entries if digest not in self._pins]:
            self.nbytes -= self._entries.pop(digest).nbytes
            if self.nbytes <= self.max_bytes:
                return
