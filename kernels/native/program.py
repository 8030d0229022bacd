"""Kernels' calls in one parallel region, a barrier behind each: see kernels/program.py."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

import torch
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from kernels.native import openmp
from kernels.native.kernel import Kernel, record
from kernels.native.scalars import int64s, untyped
from kernels.program import writing_down

if TYPE_CHECKING:
    import struct

# Of one program; it is run when it is full. A layer writes down a dozen calls, 2 KB.
_CALLS: Final = 2048
_BYTES: Final = _CALLS * 192

_OPERANDS = record("count", "bodies", "records", "barrier")


class NativeProgram:
    """Written by one thread, run by it and the others that torch has."""

    def __init__(self) -> None:
        self._bodies, self._records = (torch.zeros(_CALLS, dtype=torch.int64) for _ in range(2))
        self._body_of, self._record_of = self._bodies.numpy(), self._records.numpy()
        self._memory = ctypes.create_string_buffer(_BYTES)
        self._address = ctypes.addressof(self._memory)
        self.forget()

    def forget(self) -> None:
        """Begin anew: what a step that failed has left is not run."""
        self._count = self._used = self._work = 0

    def add(self, body: int, operands: struct.Struct, work: int, values: tuple[float, ...]) -> None:
        """Write a call down; see `Program`."""
        if self._count == _CALLS or self._used + operands.size > _BYTES:
            self.run()
        operands.pack_into(self._memory, self._used, *values)
        self._body_of[self._count] = body
        self._record_of[self._count] = self._address + self._used
        self._count += 1
        self._used += operands.size
        self._work += work

    def run(self) -> None:
        """Run what is written down, and forget it."""
        count, work = self._count, self._work
        self.forget()
        if count:
            with writing_down(None):
                _RUN(
                    torch.float32,
                    torch.get_num_threads(),
                    work,
                    count,
                    self._bodies.data_ptr(),
                    self._records.data_ptr(),
                    openmp.barrier,
                )


@intrinsic
def _call(_typing: Any, address: Any, operand: Any) -> Any:
    """Call the function at an address with an address."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _run(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    bodies, records = int64s(o.bodies), int64s(o.records)
    for i in range(o.count):
        _call(bodies[i], records[i])
        if o.barrier != 0:
            _call(o.barrier, 0)


_RUN = Kernel(_run, _OPERANDS, only=torch.float32)
