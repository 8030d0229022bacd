"""The README's four ways are run as they are printed there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import aril.kernels.sgmv
from aril.kernels.sgmv import make_plan
from aril.kernels.sgmv.reference import exact
from tests.support.sgmv_cases import make_case

README = Path(aril.kernels.sgmv.__file__).with_name("README.md").read_text(encoding="utf-8")
FOUR_WAYS = re.search(r"## Four ways to compute it.*?```python\n(.*?)```", README, re.DOTALL)
ROW_SLOTS = [2, 0, 1, 2, 0, 0, 2]


def ways() -> list[str]:
    """Split the block at its numbered comments."""
    assert FOUR_WAYS is not None
    return [part for part in re.split(r"(?m)^(?=# \d\. )", FOUR_WAYS[1]) if part.strip()]


def test_there_are_four() -> None:
    """The text promises four, and no line goes untested."""
    assert [way[:4] for way in ways()] == ["# 1.", "# 2.", "# 3.", "# 4."]


@pytest.mark.parametrize("number", range(4))
def test_a_printed_way_is_right(number: int) -> None:
    """Its lines alone, on fp64 operands, give the definition."""
    case = make_case(ROW_SLOTS, [[4], [4], [4]], in_features=9, widths=[7], dtype=torch.float64)
    blocks = make_plan(case.row_slots, slots=3).blocks(4)
    padded = blocks.rows.view(-1, 4).long()
    names = {
        "torch": torch,
        "x": case.x,
        "a": case.a,
        "b": case.b[0],
        "scale": case.scales[:, 0].double(),
        "row_slots": case.row_slots.long(),
        "block_rows": [rows[rows < len(ROW_SLOTS)] for rows in padded],
        "block_slots": blocks.slots.tolist(),
        "delta": torch.full((len(ROW_SLOTS), 7), float("nan"), dtype=torch.float64),
    }
    exec(ways()[number], names)  # noqa: S102 - our own text is what is tested
    expected, _ = exact(case.x, case.a, case.b, case.ranks, case.scales, case.row_slots)
    torch.testing.assert_close(names["delta"], expected, rtol=0, atol=1e-12)


def test_the_printed_plan_is_the_plan() -> None:
    """The two arrays under the picture are those of the picture's batch."""
    drawn = make_plan(torch.tensor([2, 0, -1, 2, 1, 2, 0], dtype=torch.int32), slots=3).blocks(4)
    rows = "   ".join(" ".join(map(str, block)) for block in drawn.rows.view(-1, 4).tolist())
    assert f"block_rows   {rows} " in README
    slots = re.search(r"block_slots  ([\d ]+\d) ", README)
    assert slots is not None
    assert slots[1].split() == [str(slot) for slot in drawn.slots.tolist()]
