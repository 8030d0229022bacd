"""Probabilities whose sums are exact, so that no order of adding them matters.

A float32 probability counts as its nearest multiple of 2**-52. Doubles hold sums of these exactly
up to 2, and a softmax sums to less. So a sort, bins, a GPU's parallel scan and a sum above some
border agree to the last bit on the token with which a cumulative distribution passes a number. What
is lost by rounding is below 2**-53 a token; from 2**-29 up nothing is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Masses = TypeVar("Masses", NDArray[np.float64], Tensor)

WHOLE: Final = 2.0**-29
"""From here up a float32 is a multiple of 2**-52 as it is."""


def whole(probabilities: Masses) -> Masses:
    """Round float64 probabilities to multiples of 2**-52."""
    return (probabilities + 1.0) - 1.0
