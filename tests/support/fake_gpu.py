"""A CUDA device that is none: tensors live on it with their values, and what crosses is counted.

Operators see its tensors as those of a GPU; what they compute is computed on the host. So an engine
runs whole, and a test reads off how often a step told the
device something, how often it waited for it, and that tokens are what they are without. Kernels of
ours are replaced (fake_kernels.py).
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from tests.support.fake_kernels import KERNELS
from tests.support.fake_streams import FakeEvent, FakeGraph, FakeStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
CPU: Final = torch.device("cpu")

# Operators whose result has a shape that depends on values: a GPU is waited for.
_WAITING: Final = frozenset(
    {"nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "repeat_interleave", "equal"}
)


_INDEXING: Final = frozenset({"index", "index_put_", "_index_put_impl_"})


class FakeTensorOnGpu(torch.Tensor):
    """What looks like a tensor of a GPU; `held` on the host has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: type[Self], held: torch.Tensor, device: torch.device) -> Self:
        """Wrap a tensor of the host."""
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(),
            dtype=held.dtype, device=device,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuse: outside of its device nobody may look at it."""
        raise RuntimeError(f"{func} on a tensor of a device that is not on")

    def tolist(self) -> Any:
        """Read it, as a GPU's tensor is read: one copy to the host."""
        return self.cpu().tolist()

    def __repr__(self, **_more: Any) -> str:  # type: ignore[override]
        return f"on {self.device}: {self.held!r}"


class FakeGpu(TorchDispatchMode):
    """The device. Counts, since the last `reset`.

    `told`: copies to it, of more than nothing; `late`, those of them that the host waits for,
    because what is copied is not pinned; `reads`: what the host waited for, values and events;
    `fetched`: copies into pinned memory, which hold no number until an event behind them was
    waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # nobody asks for a driver meanwhile
        self._pinned: dict[int, Any] = {}  # storages, by address; kept, so that none comes again
        self.current = 0  # number of the device that calls go to where none is named
        self.stream = FakeStream(at_once=True)
        self.streams: list[FakeStream] = []  # beside its own
        self.graphs: list[FakeGraph] = []
        self._captured: FakeGraph | None = None  # while it is
        self.reset()

    def reset(self) -> None:
        """Begin to count."""
        self.told: list[str] = []
        self.late: list[str] = []
        self.reads: list[str] = []
        self.fetched: list[str] = []

    def new_event(self, **_: object) -> FakeEvent:
        """Make an event; waits for it are reads of the step that waits."""
        return FakeEvent(self)

    def new_stream(self, device: object = None) -> FakeStream:
        """Make a stream beside the device's own."""
        self.streams.append(FakeStream(device))
        return self.streams[-1]

    @contextmanager
    def on_stream(self, stream: FakeStream) -> Iterator[None]:
        """Ask it all meanwhile."""
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def on_device(self, device: torch.device) -> Iterator[None]:
        """Let it be the current one meanwhile."""
        before = self.current
        self.set_device(device)
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def capture(self, graph: FakeGraph, **_: object) -> Iterator[None]:
        """Record what is launched meanwhile."""
        self.graphs.append(graph)
        self._captured = graph
        try:
            yield
        finally:
            self._captured = None

    def set_device(self, device: torch.device) -> None:
        """Choose where calls go to that name no number."""
        self.current = torch.device(device).index or 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do on the host what a GPU would do, and count what crosses."""
        kwargs = dict(kwargs or {})
        name = func.name().removeprefix("aten::").removeprefix("aril::").split(".")[0]
        if _is_composite(func):  # what it is made of tells what crosses
            with self:
                return func.decompose(*args, **kwargs)
        if name in {"pin_memory", "_pin_memory"}:
            return self._pin(args[0])
        if name == "is_pinned":
            return self.pinned(args[0])
        if kwargs.pop("pin_memory", False):
            return self._pin(func(*args, **kwargs))
        return self._compute(name, func, tuple(args), kwargs)

    def _compute(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        flat = tree_flatten((args, kwargs))[0]
        ours = [each for each in flat if isinstance(each, FakeTensorOnGpu)]
        device = ours[0].device if ours else None
        if (target := kwargs.get("device")) is not None:
            kwargs["device"] = CPU
            device = self._numbered(torch.device(target))
        if device is None and not ours:
            return func(*args, **kwargs)
        if name == "copy_" and self._fetch(*args):
            return args[0]
        waits = len(self.late) + len(self.reads)
        self._count(name, args, ours, device)
        self._check(name, flat, ours)
        if self._captured is not None and len(self.late) + len(self.reads) > waits:
            raise RuntimeError(f"{name}: not permitted when stream is capturing")
        inner, more = tree_map_only(FakeTensorOnGpu, lambda each: each.held, (args, kwargs))
        if ours and not self.stream.at_once and name.endswith("_"):
            self.stream.waiting.append(lambda: func(*inner, **more))
            return None if name.startswith("_foreach") else args[0]
        kernel = KERNELS.get(name, func)
        result = kernel(*inner, **more)
        if self._captured is not None:
            self._captured.calls.append(partial(_launch_again, kernel, inner, more, result))
        if device is None:
            return result
        known = {id(each.held): each for each in ours}  # what is written in place is returned

        def shown(held: torch.Tensor) -> torch.Tensor:
            found = known.get(id(held))
            return FakeTensorOnGpu(held, device) if found is None else found

        # A view of what was made outside of inference mode is no inference tensor either.
        plain = bool(ours) and not any(each.is_inference() for each in ours)
        with torch.inference_mode(mode=torch.is_inference_mode_enabled() and not plain):
            return tree_map_only(torch.Tensor, shown, result)

    def _fetch(
        self, into: torch.Tensor, source: torch.Tensor, non_blocking: object = False
    ) -> bool:
        """Copy to pinned memory, if that is what is asked for: later, and nobody waits."""
        if not isinstance(source, FakeTensorOnGpu) or into.is_cuda:
            return False
        if not (non_blocking and self.pinned(into)):
            return False
        self.fetched.append(f"{list(source.shape)}")
        values = source.held.clone()
        into.fill_(float("nan"))
        self.stream.fetches.append(lambda: into.copy_(values))
        return True

    def pinned(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor of the host lies where a GPU fetches it by itself."""
        return tensor.untyped_storage().data_ptr() in self._pinned

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        own = tensor.clone()
        storage = own.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return own

    def _numbered(self, device: torch.device) -> torch.device | None:
        if device.type != "cuda":
            return None
        index: int | None = device.index
        return torch.device("cuda", self.current if index is None else index)

    def _count(
        self,
        name: str,
        args: Sequence[Any],
        ours: Sequence[FakeTensorOnGpu],
        device: torch.device | None,
    ) -> None:
        if name in {"_to_copy", "copy_"}:
            source = args[0] if name == "_to_copy" else args[1]
            there = device is not None if name == "_to_copy" else args[0].is_cuda
            if there and not source.is_cuda and source.numel():
                self.told.append(f"{name} {list(source.shape)}")
                if not self.pinned(source):
                    self.late.append(self.told[-1])
            elif source.is_cuda and not there and source.numel():
                self.reads.append(f"{name} {list(source.shape)}")
        elif ours and (name == "_local_scalar_dense" or name in _WAITING):
            self.reads.append(name)
        elif ours and name in _INDEXING:
            indices = [each for each in args[1] if each is not None]
            if any(each.dtype in {torch.bool, torch.uint8} for each in indices):
                self.reads.append(f"{name} with a mask")
            if any(each.ndim and not each.is_cuda for each in indices):  # torch copies it over
                self.told.append(f"{name} by a tensor of the host")
                self.late.append(self.told[-1])

    def _check(self, name: str, flat: Sequence[Any], ours: Sequence[FakeTensorOnGpu]) -> None:
        """Refuse what a GPU refuses: operands on two sides, but for single numbers."""
        if not ours or name in {"_to_copy", "copy_", "lift_fresh", *_INDEXING}:
            return
        for each in flat:
            if isinstance(each, torch.Tensor) and not each.is_cuda and each.ndim:
                raise RuntimeError(f"{name}: operands on the host and on a GPU, {each.shape}")
        if len({each.device for each in ours}) > 1:
            raise RuntimeError(f"{name}: operands on two GPUs")


def _launch_again(kernel: Callable[..., Any], args: Any, more: dict[str, Any], result: Any) -> None:
    """Compute once more, into the memory that the result had."""
    for old, new in zip(tree_leaves(result), tree_leaves(kernel(*args, **more)), strict=True):
        own = isinstance(old, torch.Tensor)
        if own and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
            old.copy_(new)


def _is_composite(func: Any) -> bool:
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), composite))


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Let "cuda" be such a device meanwhile."""
    gpu = FakeGpu()

    def graph(own: FakeGraph, **more: object) -> Any:
        return gpu.capture(own, **more)

    instead: dict[str, Any] = {
        "Stream": gpu.new_stream,
        "Event": gpu.new_event,
        "stream": gpu.on_stream,
        "current_stream": lambda _device=None: gpu.stream,
        "get_device_properties": lambda _device=None: SimpleNamespace(multi_processor_count=8),
        "mem_get_info": lambda _device=None: (1 << 34, 1 << 34),
        "set_device": gpu.set_device,
        "current_device": lambda: gpu.current,
        "device": gpu.on_device,
        "is_available": lambda: True,
        "CUDAGraph": FakeGraph,
        "graph": graph,
        "graph_pool_handle": lambda: (0, 0),
    }
    lifts = torch._C._only_lift_cpu_tensors()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003 - torch's own
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with patch.multiple(torch.cuda, **instead), gpu:
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
