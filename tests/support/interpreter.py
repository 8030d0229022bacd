"""What Triton's interpreter does otherwise than a GPU, put right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

if TYPE_CHECKING:
    import pytest
    from numpy.typing import NDArray


def round_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fp32 become bfloat16 by rounding, as a GPU does it: the interpreter cuts digits off."""
    own = interpreter._convert_float

    def convert(data: NDArray[Any], given: Any, wanted: Any, mode: Any) -> NDArray[Any]:
        if (given, wanted) != (tl.float32, tl.bfloat16):
            return own(data, given, wanted, mode)
        rounded = torch.from_numpy(np.array(data, np.float32)).to(torch.bfloat16)
        return rounded.view(torch.uint16).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", convert)
