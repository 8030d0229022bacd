"""The pictures of SGMV: drawn from the model alone, and from measurements where there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

pytest.importorskip("matplotlib")

from benchmarks.gpu.results import Results
from benchmarks.gpu.workloads import PUNICA, Workload, decode_case
from benchmarks.plots import bytes as sgmv_bytes
from benchmarks.plots import roofline, segments
from kernels.sgmv.cost import Roofs, sgmv_cost

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gpu.workloads import Case

PNG = b"\x89PNG"
ROOFS = Roofs(memory=3e12, products=8e14, launch=2.5e-6)


def keep_times(results: Results, question: str, provider: str, metric: str, case: Case) -> None:
    """Add a time twice that of the slowest ceiling."""
    cost = sgmv_cost(
        case.segments, case.slice_ranks, in_features=PUNICA.in_features, widths=PUNICA.widths
    )
    middle = 2e6 * ROOFS.seconds(cost)
    samples = [middle, 0.9 * middle, 1.1 * middle]
    results.add(question, provider, metric, case.rows, samples, unit="us", config=case.config)


def measured(folder: Path) -> Path:
    """Write what a run on a GPU would have written of Punica's operator."""
    results = Results(torch.device("cpu"), folder, rehearsal=False)
    for provider, rate, unit in (
        ("copy", ROOFS.memory / 1e9, "GB/s"),
        ("triad", ROOFS.memory / 2e9, "GB/s"),
        ("product", ROOFS.products / 1e12, "TFLOP/s"),
        ("smallest kernel", ROOFS.launch * 1e6, "us"),
    ):
        results.add("gpu_roofs", provider, "rate", 1, [rate], unit=unit, config="")
    for tokens in roofline.TOKENS:
        for workload in Workload if tokens > 1 else (Workload.DISTINCT,):
            case = decode_case(workload, PUNICA, tokens, roofline.RANK)
            keep_times(results, "sgmv_gpu", roofline.MEASURED, "time in a graph", case)
            for provider in sgmv_bytes.WAYS:
                keep_times(results, "sgmv_cpu", provider, "time over that of Aril", case)
    results.write()
    return folder


def drawing(path: Path) -> bytes:
    """Return a picture's bytes."""
    content = path.read_bytes()
    assert content.startswith(PNG)
    return content


def test_predictions_need_no_figures(tmp_path: Path) -> None:
    """Without a CSV the roofline is the model's, the same bytes each time."""
    (first,) = roofline.draw(tmp_path / "none", tmp_path)
    before = drawing(first)
    (second,) = roofline.draw(tmp_path / "none", tmp_path)
    assert first.name == "sgmv-roofline.png"
    assert drawing(second) == before


def test_measurements_are_drawn_where_they_are(tmp_path: Path) -> None:
    """With both CSVs the picture is another one, against the measured ceilings."""
    (model,) = roofline.draw(tmp_path, tmp_path)
    predicted = drawing(model)
    folder = measured(tmp_path / "results")
    (real,) = roofline.draw(folder, tmp_path)
    assert drawing(real) != predicted
    ceilings, times = roofline._measurements(folder)
    found = (ceilings.roofs.memory, ceilings.roofs.products, ceilings.roofs.launch)
    assert found == pytest.approx((ROOFS.memory, ROOFS.products, ROOFS.launch))
    assert all(set(times[workload]) == set(roofline.TOKENS) for workload in Workload)


def test_one_token_is_the_same_point_in_all_facets() -> None:
    """What the sentence in the picture says."""
    assert len({roofline.cost_of(workload, 1) for workload in Workload}) == 1
    assert len({roofline.cost_of(workload, 64) for workload in Workload}) == 4


def test_no_batch_passes_the_rank_limit() -> None:
    """More rows come nearer to it and never over it."""
    near = [roofline.cost_of(Workload.IDENTICAL, tokens).intensity for tokens in (64, 1024, 9999)]
    assert near == sorted(near)
    assert near[-1] < roofline.rank_limit()
    assert near[-1] > 0.99 * roofline.rank_limit()


def test_ways_are_drawn_from_the_cpu_measurements(tmp_path: Path) -> None:
    """And left out, with the name of the file, where there are none."""
    with pytest.raises(FileNotFoundError) as missing:
        sgmv_bytes.draw(tmp_path, tmp_path)
    assert str(missing.value.filename).endswith("sgmv_cpu.csv")
    (ways,) = sgmv_bytes.draw(measured(tmp_path / "results"), tmp_path)
    assert drawing(ways)


def test_the_explaining_picture_is_drawn(tmp_path: Path) -> None:
    """From a real plan, and no figures."""
    (picture,) = segments.draw(tmp_path, tmp_path)
    assert drawing(picture)
