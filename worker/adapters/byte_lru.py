"""What host memory holds: adapters by digest, least recently used out first.

For the device see slot_lru.py.
"""

from collections import OrderedDict

from aril.worker.adapters.weights import AdapterWeights


class ByteLru:
    """Adapters by digest within a budget of bytes. Pure: no I/O, no clock.

    One that is let go stays in memory for as long as a job holds it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[str, AdapterWeights] = OrderedDict()  # oldest first

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def digests(self) -> tuple[str, ...]:
        """What is here, the oldest first."""
        return tuple(self._entries)

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
        while self.nbytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.nbytes -= oldest.nbytes
