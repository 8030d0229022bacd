"""Counts operator calls, so that a test can say how many kernels a layer launches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Operators that take memory or name it anew; all others are a kernel on a device. Views are told
# by their schema.
_NO_KERNEL: Final = frozenset(
    f"aten::{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("_unsafe_view", "lift_fresh", "resize_", "set_"),
    )
)


class LaunchCounter(TorchDispatchMode):
    """Counts the calls of each operator inside the `with` block, by qualified name.

    Each operator of the `aril` namespace is one kernel launch: `calls["aril::sgmv_shrink"]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()  # of these, what is a kernel on a device

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count, then do what would have been done; what is made of other operators are these."""
        if func._can_decompose():
            with self:
                return func.decompose(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        self.calls[name] += 1
        if not func.is_view and name not in _NO_KERNEL:
            self.launches[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """All kernels that were started so far."""
        return self.launches.total()

    @property
    def ours(self) -> dict[str, int]:
        """The calls of Aril's own operators, by short name."""
        return {
            name.removeprefix("aril::"): count
            for name, count in self.calls.items()
            if name.startswith("aril::")
        }
