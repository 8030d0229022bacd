"""The pictures of SGMV: drawn from the model alone, and from measurements where there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

pytest.importorskip("matplotlib")

import matplotlib as mpl
from matplotlib.text import Text

from aril.kernels.sgmv.cost import Roofs
from benchmarks.gpu import layer as gpu_layer
from benchmarks.gpu.cases import ROWS
from benchmarks.gpu.cost import cost_of
from benchmarks.gpu.results import Results
from benchmarks.gpu.sequences import all_shapes
from benchmarks.gpu.timing import IN_A_GRAPH
from benchmarks.gpu.workloads import LLAMA_8B, PUNICA, Workload, decode_case
from benchmarks.plots import attention, labels, peers, ratios, roofline, runs, segments, tables
from benchmarks.plots import bytes as sgmv_bytes
from benchmarks.plots.style import Span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.gpu.workloads import Case

PNG = b"\x89PNG"
ROOFS = Roofs(memory=3e12, products=8e14, launch=1.3e-6)


FACTORS = {  # of our time, which is `slow` times that of the slowest ceiling
    "Aril fast": 1,
    "Aril invariant": 1.25,
    "vLLM": 1.5,
    "SGLang csgmv": 0.5,
    **dict.fromkeys(sgmv_bytes.WAYS, 3),
}


@pytest.fixture(autouse=True)
def _coarse() -> Iterator[None]:
    """Save few pixels: what is compared is the same at any size."""
    with mpl.rc_context({"savefig.dpi": 40}):
        yield


def keep_times(results: Results, question: str, metric: str, case: Case, middle: float) -> None:
    """Add a time of each provider."""
    for provider, factor in FACTORS.items():
        samples = [factor * middle * each for each in (0.9, 1, 1.1)]
        results.add(question, provider, metric, case.rows, samples, unit="us", config=case.config)


def measured(folder: Path, slow: float = 2.0, *, code: str = "") -> Path:
    """Write what a run on a GPU would have written of the operator."""
    results = Results(torch.device("cpu"), folder, rehearsal=False, code=code)
    for provider, rate, unit in (
        ("copy", ROOFS.memory / 1e9, "GB/s"),
        ("triad", ROOFS.memory / 2e9, "GB/s"),
        ("product", ROOFS.products / 1e12, "TFLOP/s"),
        ("smallest kernel", ROOFS.launch * 1e6, "us"),
    ):
        results.add("gpu_roofs", provider, "rate", 1, [rate], unit=unit, config="")
    for layer in (PUNICA, LLAMA_8B[0]):
        for tokens in ROWS:
            for workload in Workload if tokens > 1 else (Workload.DISTINCT,):
                case = decode_case(workload, layer, tokens, runs.RANK)
                middle = slow * 1e6 * ROOFS.seconds(cost_of(case))
                keep_times(results, "sgmv_gpu", IN_A_GRAPH, case, middle)
    results.write()
    return folder


def on_cpu(folder: Path) -> Path:
    """Write what the CPU's benchmark would have written."""
    results = Results(torch.device("cpu"), folder, rehearsal=False)
    for tokens in ROWS:
        for workload in Workload if tokens > 1 else (Workload.DISTINCT,):
            case = decode_case(workload, PUNICA, tokens, runs.RANK, dtype="float32")
            keep_times(results, "sgmv_cpu", "time over that of Aril", case, 1)
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
    ceilings, times = roofline.measurements(folder)
    found = (ceilings.roofs.memory, ceilings.roofs.products, ceilings.roofs.launch)
    assert found == pytest.approx((ROOFS.memory, ROOFS.products, ROOFS.launch))
    assert all(set(times[workload]) == set(ROWS) for workload in Workload)


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


def facets(picture: Figure) -> list[Axes]:
    """Return a roofline's facets as they are on paper, without the panel of shares below."""
    picture.draw_without_rendering()
    return picture.axes[: len(Workload)]


@pytest.mark.parametrize("slow", [None, 1.0, 1.05, 1.4, 2.0, 4.0])
def test_no_label_lies_on_another_nor_on_the_rank_limit(tmp_path: Path, slow: float | None) -> None:
    """Whatever was measured: the points, and so the room for labels, are others each time."""
    if slow is not None:
        measured(tmp_path, slow)
    for axes in facets(roofline.make(tmp_path)):
        # The roof's name is slanted: its upright box says nothing, the slanted one does.
        roof = [each for each in axes.texts if each.get_text().startswith("memory roof")]
        boxes = {
            each.get_text(): Text.get_window_extent(each) for each in axes.texts if each not in roof
        }
        assert len(boxes) == len(axes.texts) - 1
        names = list(boxes)
        for number, name in enumerate(names):
            over = [other for other in names[:number] if boxes[name].overlaps(boxes[other])]
            assert not over, f"{name!r} lies on {over} in {axes.get_title(loc='left')!r}"
            assert not labels.outline(roof[0]).intersects_bbox(boxes[name])
        limit = axes.transData.transform((roofline.rank_limit(), 1))[0]
        on_it = [name for name, box in boxes.items() if box.x0 <= limit <= box.x1]
        assert not on_it, f"{on_it} on the rank's limit in {axes.get_title(loc='left')!r}"
        assert "64" in names


def test_points_at_one_place_have_one_name(tmp_path: Path) -> None:
    """At the memory roof 16 to 64 distinct adapters are as fast: a second name would mislead."""
    distinct = facets(roofline.make(measured(tmp_path)))[0]
    assert "64" in {each.get_text() for each in distinct.texts}
    assert "16" not in {each.get_text() for each in distinct.texts}


def test_measured_points_stand_beside_the_attainable(tmp_path: Path) -> None:
    """As fast as attainable, they would cover the hollow ones."""
    picture = roofline.make(measured(tmp_path, slow=1.0))
    point = picture.dpi / 72
    for axes in facets(picture):
        hollow, filled = (
            line.get_transform().transform(line.get_xydata())
            for line in axes.lines
            if line.get_marker() not in {"None", None, ""}
        )
        gaps = hollow - filled
        assert gaps[:, 0] == pytest.approx(-roofline.ASIDE * point)
        assert gaps[:, 1] == pytest.approx(0, abs=0.01)  # a CSV has six digits


def test_ways_are_those_of_a_gpu_where_they_are(tmp_path: Path) -> None:
    """Else the CPU's; left out, with the name of the file, where there are neither."""
    with pytest.raises(FileNotFoundError) as missing:
        sgmv_bytes.draw(tmp_path, tmp_path)
    assert str(missing.value.filename).endswith("sgmv_cpu.csv")
    (ways,) = sgmv_bytes.draw(on_cpu(tmp_path), tmp_path)
    on_a_cpu = drawing(ways)
    assert sgmv_bytes.on_gpu(tmp_path) is None
    (ways,) = sgmv_bytes.draw(measured(tmp_path), tmp_path)
    assert drawing(ways) != on_a_cpu
    found = sgmv_bytes.on_gpu(tmp_path)
    assert found is not None
    assert (found.place, sgmv_bytes.on_cpu(tmp_path).place) == ("a GPU", "a CPU")
    for curves in found.curves.values():
        ratio = curves["Gather-BMM"][64]
        assert ratio == pytest.approx((3, 2.7, 3.3), rel=1e-4)


def test_each_provider_has_a_colour_and_a_mark_of_its_own() -> None:
    """Colours alone are not told apart by everybody."""
    for looks in (peers.LOOKS, attention.LOOKS, sgmv_bytes.WAYS):
        assert len({look.colour for look in looks.values()}) == len(looks)
        assert len({look.mark for look in looks.values()}) == len(looks)


def test_a_picture_takes_one_code_only(tmp_path: Path) -> None:
    """Rows that a resumed run left of older code are another's figures."""
    old, new = measured(tmp_path / "old", code="old"), measured(tmp_path / "new", 9.0, code="new")
    both = (old / "sgmv_gpu.csv").read_text()
    both += "".join((new / "sgmv_gpu.csv").read_text().splitlines(keepends=True)[1:])
    (tmp_path / "sgmv_gpu.csv").write_text(both)
    rows = runs.newest(tmp_path, "sgmv_gpu")
    assert {row.versions.rpartition(" ")[2] for row in rows} == {"new"}
    assert runs.times_of(rows) == runs.times_of(runs.newest(new, "sgmv_gpu"))


def test_ratios_need_our_time() -> None:
    """Where ours failed there is nothing to divide by."""
    theirs = {"vLLM": Span(3, 2, 4)}
    assert ratios.over_ours(theirs) == {}
    ours = {"Aril fast": Span(2, 1, 9)}
    assert ratios.over_ours(theirs | ours)["vLLM"] == (1.5, 1, 2)


def test_peers_are_drawn_where_they_were_measured(tmp_path: Path) -> None:
    """A picture a layer; without the table none, with the name of the file."""
    with pytest.raises(FileNotFoundError) as missing:
        peers.draw(tmp_path, tmp_path)
    assert str(missing.value.filename).endswith("sgmv_gpu.csv")
    files = peers.draw(measured(tmp_path), tmp_path)
    assert [file.name for file in files] == ["sgmv-peers.png", "sgmv-peers-qkv.png"]
    assert drawing(files[0]) != drawing(files[1])


def attended(folder: Path) -> Path:
    """Write what a run on a GPU would have written of attention; one provider failed once."""
    results = Results(torch.device("cpu"), folder, rehearsal=False)
    for number, shape in enumerate(all_shapes()):
        for provider, middle in (("Aril fast", 10), ("Aril invariant", 12), ("vLLM unified", 11)):
            metric = IN_A_GRAPH
            if number == 0 and provider == "vLLM unified":
                metric = "failed: out of memory"
            results.add(
                "attention_gpu", provider, metric, shape.rows, [middle], unit="us",
                config=shape.config,
            )  # fmt: skip
    results.write()
    return folder


def test_attention_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    """Without the table it is not, with the name of the file."""
    with pytest.raises(FileNotFoundError) as missing:
        attention.draw(tmp_path, tmp_path)
    assert str(missing.value.filename).endswith("attention_gpu.csv")
    (picture,) = attention.draw(attended(tmp_path), tmp_path)
    assert drawing(picture)


PLACES = "".join(f"<!-- table: {name} -->\nold\n<!-- end -->\n" for name in tables.TABLES)


def test_tables_say_what_was_not_measured(tmp_path: Path) -> None:
    """And what stood there before is gone."""
    text = tables.filled(PLACES, tmp_path, tmp_path)
    assert text.count(tables.UNMEASURED) == len(tables.TABLES)
    assert "old" not in text
    with pytest.raises(ValueError, match="no place for the table 'ways'"):
        tables.filled("", tmp_path, tmp_path)


def test_tables_come_from_the_figures(tmp_path: Path) -> None:
    """Times over ours, in a word why there is none, and the pictures that were drawn."""
    on_cpu(measured(attended(tmp_path)))
    results = Results(torch.device("cpu"), tmp_path, rehearsal=False)
    for case in gpu_layer.all_cases():
        for provider, added in (("linears alone", 0), ("Aril fast", 7), ("vLLM", 12)):
            results.add(
                "layer_gpu", provider, gpu_layer.ADDED, case.rows, [added], unit="%",
                config=case.config,
            )  # fmt: skip
    results.write()
    peers.draw(tmp_path, tmp_path)
    text = tables.filled(PLACES, tmp_path, tmp_path)
    assert tables.filled(text, tmp_path, tmp_path) == text
    assert tables.UNMEASURED not in text
    assert "| Distinct | 64 | 3.00 (2.70 to 3.30) | 3.00 (2.70 to 3.30) | 2.8 |" in text
    assert "| workload | layer | Aril fast, µs | vLLM | SGLang csgmv | Aril invariant |" in text
    ours = 2e6 * ROOFS.seconds(cost_of(decode_case(Workload.SKEWED, PUNICA, 64, runs.RANK)))
    assert f"| Skewed | Punica, 4096 to 11008 | {ours:.3g} | 1.50 | 0.50 | 1.25 |" in text
    assert "| Uniform | 7.0 (7.0 to 7.0) | 12.0 (12.0 to 12.0) |" in text
    assert "| Decode 64 x 2048 | 10 | failed | 1.20 |" in text
    assert "| Decode 1 x 2048 | 10 | 1.10 | 1.20 |" in text
    assert text.count("](images/sgmv-peers") == len(peers.LAYERS)
    assert "](images/attention-peers" not in text


def test_the_explaining_picture_is_drawn(tmp_path: Path) -> None:
    """From a real plan, and no figures."""
    (picture,) = segments.draw(tmp_path, tmp_path)
    assert drawing(picture)
