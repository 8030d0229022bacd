"""Counts operator calls, so that a test can say how many kernels a layer launches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LaunchCounter(TorchDispatchMode):
    """Counts the calls of each operator inside the `with` block, by qualified name.

    Each operator of the `aril` namespace is one kernel launch: `calls["aril::sgmv_shrink"]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count, then do what would have been done."""
        self.calls[func.name().split(".")[0]] += 1
        return func(*args, **(kwargs or {}))

    @property
    def ours(self) -> dict[str, int]:
        """The calls of Aril's own operators, by short name."""
        return {
            name.removeprefix("aril::"): count
            for name, count in self.calls.items()
            if name.startswith("aril::")
        }
