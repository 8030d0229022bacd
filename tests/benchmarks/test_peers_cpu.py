"""What peers are asked, how their answers are judged, and that one that ends is not waited for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from benchmarks.peers_cpu.__main__ import NAMES, USUAL, Alike
from benchmarks.peers_cpu.gguf_files import Names, write_adapter
from benchmarks.peers_cpu.peer import Answered, Peer
from benchmarks.peers_cpu.workload import CASES, MIXED, SHARED, Asked, Workload
from tests.support.tiny import make_tokenizer

ECHO = """
import wire

def answer(requests):
    answers = wire.Answers(requests)
    for row, asked in enumerate(requests):
        for place in range({made}):
            answers.add(row, [asked["prompt"][place % len(asked["prompt"])]])
    return answers

wire.serve("echo 1", answer)
"""


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """Make requests in a small vocabulary's tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return Workload(folder)


@pytest.mark.parametrize("case", CASES)
def test_requests_have_the_case_s_size(workload: Workload, case: str) -> None:
    """So many rows, adapters in turn, prompts of exactly so many tokens."""
    rows, adapters, prompt, new = CASES[case]
    requests = workload.requests(case, 1)
    assert [each.adapter for each in requests] == [adapters[i % len(adapters)] for i in range(rows)]
    assert {each.new for each in requests} == {new}
    lengths = {len(each.prompt) for each in requests}
    assert lengths == {prompt} if prompt else lengths <= {*range(32, 65)}


def test_only_what_is_to_be_shared_is_shared(workload: Workload) -> None:
    """A round is the same each time; another round, or row, begins with other words."""
    assert workload.requests("mixed16", 1) == workload.requests("mixed16", 1)
    one, other = workload.requests("prefill16", 1), workload.requests("prefill16", 2)
    heads = {tuple(each.prompt[:48]) for each in one + other}
    assert len(heads) == 2 * len(one)
    shared, later = workload.requests("prefix32", 1), workload.requests("prefix32", 2)
    assert len({tuple(each.prompt[:SHARED]) for each in shared}) == 1
    assert len({tuple(each.prompt) for each in shared}) == len(shared)
    assert shared[0].prompt[:48] != later[0].prompt[:48]


def test_an_answer_of_another_adapter_is_not_alike() -> None:
    """The first token that differs ends what is alike; after the end of the text all is well."""
    wanted = [[5, 6, 7, 2, 9]] * len(MIXED)
    assert Alike.of([[5, 6, 7, 3, 3]] * len(MIXED), wanted).enough
    wrong = [[5, 6, 7, 2, 9]] * (len(MIXED) - 1) + [[8, 6, 7, 2, 9]]
    found = Alike.of(wrong, wanted)
    assert found.shares["backbone"] == 0
    assert not found.enough


def test_gaps_are_those_within_a_request() -> None:
    """Quantiles over all requests; a request of one token has none."""
    run = Answered([[1, 1, 1], [1]], [[1.0, 2.0, 5.0], [9.0]], 9.0, 0.0)
    assert (run.tokens, run.first, run.gap(0.0), run.gap(0.99)) == (4, 5.0, 1.0, 3.0)
    assert Answered([[1]], [[1.0]], 1.0, 0.0).gap(0.5) == 0


def started(folder: Path, program: str) -> Peer:
    """Start a program of this text."""
    (folder / "echo.py").write_text(program)
    return Peer("echo", str(folder / "echo"), (), python=Path(sys.executable), logs=folder)


def test_a_peer_answers_until_it_is_closed(tmp_path: Path) -> None:
    """Requests go in and tokens come out, again and again."""
    peer = started(tmp_path, ECHO.format(made=3))
    assert peer.version == "echo 1"
    for _ in range(2):
        found = peer.ask([Asked([4, 5], None, 3), Asked([6], "acme/terse", 3)])
        assert found.ids == [[4, 5, 4], [6, 6, 6]]
        assert all(len(times) == 3 for times in found.times)
        assert 0 <= found.foreign <= 1
    assert peer.peak_megabytes() > 1
    peer.close()
    with pytest.raises(psutil.NoSuchProcess):
        peer.peak_megabytes()


def test_a_peer_that_leaves_tokens_out_or_ends_is_told_of(tmp_path: Path) -> None:
    """Neither is measured."""
    peer = started(tmp_path, ECHO.format(made=2))
    with pytest.raises(RuntimeError, match="echo left tokens out"):
        peer.ask([Asked([4], None, 3)])
    peer.close()
    with pytest.raises(RuntimeError, match="echo ended with 3"):
        started(tmp_path, "raise SystemExit(3)")


def test_usual_peers_are_known() -> None:
    """Whatever is measured where nobody names peers can be named."""
    assert {*USUAL} <= {*NAMES}


def test_an_rslora_adapter_keeps_its_strength_as_gguf(tmp_path: Path) -> None:
    """The runtime divides alpha by the rank; q's rows are paired, other rows stay."""
    names = Names({"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1})
    told = {"r": 4, "lora_alpha": 8, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    prefix = "base_model.model.model.layers.0.self_attn"
    b = np.arange(16, dtype=np.float32).reshape(4, 4)
    tensors = {
        f"{prefix}.{module}.lora_{side}.weight": b
        for module in ("q_proj", "v_proj")
        for side in "AB"
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    write_adapter(tmp_path, tmp_path / "out.gguf", names)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    alpha = reader.fields["adapter.lora.alpha"].contents()
    assert alpha / told["r"] == pytest.approx(8 / 4**0.5)
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert np.array_equal(found["blk.0.attn_q.weight.lora_b"], b[[0, 2, 1, 3]])
    assert np.array_equal(found["blk.0.attn_q.weight.lora_a"], b)
    assert np.array_equal(found["blk.0.attn_v.weight.lora_b"], b)
