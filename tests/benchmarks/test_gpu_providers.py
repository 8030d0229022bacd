"""What providers are given, and what they may refuse: ours as served, and the peers' modules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.sgmv.cost import H100_SXM
from aril.kernels.sgmv.row_blocks import worst_case_blocks
from benchmarks.gpu.checks import examine
from benchmarks.gpu.loading import SIGNED, _to_device, loaded
from benchmarks.gpu.ours import StaticSgmv
from benchmarks.gpu.peers_v2 import v2_spec
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import Loop
from benchmarks.gpu.results import Results
from benchmarks.gpu.sgmv import QUESTION, measure
from benchmarks.gpu.workloads import TINY, Workload, decode_case, dora_case

if TYPE_CHECKING:
    from pathlib import Path

CASE = decode_case(Workload.SKEWED, TINY[0], 6, 16, dtype="float32")


def test_gains_are_only_for_those_who_take_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A way without gains is left out of a case that has some, rather than found wrong."""
    case = dora_case(Workload.DISTINCT, TINY[0], 3, 16, dtype="float32")
    assert examine(Loop(), make_problem(case, "cpu")).wrong is not None
    results = Results(torch.device("cpu"), tmp_path, rehearsal=True)
    measure([case], [Loop()], results, H100_SXM, deadline=float("inf"), repetitions=1)
    assert not results.rows[QUESTION]
    assert "left out: has no gains (DoRA)" in capsys.readouterr().out


def test_a_captured_graph_has_room_for_a_services_adapters() -> None:
    """The worst case of 64 slots, whatever the case has; a step's plan is put in place."""
    provider, drawn = StaticSgmv(), make_problem(CASE, "cpu")
    plan = provider.plan(drawn)
    assert (plan.static, plan.slots) == (True, 64)
    table = plan.blocks(16)
    assert len(table.slots) == worst_case_blocks(CASE.rows, 64, 16)
    before, address = table.rows.clone(), table.rows.data_ptr()
    plan.update_(drawn.row_slots.flip(0))
    assert not torch.equal(table.rows, before)
    provider.replan(drawn, plan)
    assert torch.equal(table.rows, before)
    assert plan.blocks(16).rows.data_ptr() == address


def test_a_peer_that_does_not_load_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, whatever its modules raise."""

    def load() -> list[str]:
        raise AttributeError("module 'triton' has no 'x'\nand more")

    assert loaded("SGLang", load) == []
    assert capsys.readouterr().out == (
        "SGLang is left out: it did not load: AttributeError: module 'triton' has no 'x'\n"
    )


@pytest.mark.parametrize("dtype", [*SIGNED, torch.int32])
def test_addresses_get_to_the_device_by_their_bits(dtype: torch.dtype) -> None:
    """A GPU has no kernel of torch's that converts to an unsigned type."""
    values = [0, 1, 2**15 - 1]
    tensor = _to_device(values, dtype, torch.device("cpu"))
    assert tensor.dtype is dtype
    assert tensor.tolist() == values


def test_sglangs_plan_is_the_first_row_that_fits(tmp_path: Path) -> None:
    """Rows of other phases, kinds and sizes are passed over; without a match, the default."""
    table = tmp_path / "plans.json"
    rows = [
        {"phase": "decode", "kinds": ["lm_head"], "spec": {"name": "other kind"}},
        {"phase": "prefill", "spec": {"name": "other phase"}},
        {"phase": "decode", "max_tokens": 8, "max_rank": 16, "spec": {"name": "few"}},
        {"phase": "decode", "min_in_features": 100, "spec": {"name": "wide"}},
    ]
    table.write_text(json.dumps({"rows": rows}))

    def chosen(rows: int, in_features: int) -> object:
        return v2_spec(
            table, decode=True, rows=rows, max_rank=16, in_features=in_features, out_features=64
        ).get("name")

    assert chosen(8, 99) == "few"
    assert chosen(9, 100) == "wide"
    assert chosen(9, 99) is None
