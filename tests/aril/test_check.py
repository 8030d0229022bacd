"""`aril check`, `topics` and `adapters` on a real broker, a tiny model and its adapters."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.arguments import FAILED, OK
from aril.cli import main
from aril.commands.backbone import read_model_folder
from aril.commands.check import check_traces, experts_room
from aril.commands.int8_change import compare
from aril.commands.report import Report
from aril.worker.engine.model import load_backbone
from aril.worker.settings import load_settings
from tests.support.int8 import why_not
from tests.support.tiny import (
    Architecture,
    make_tiny_adapter,
    make_tiny_experts,
    make_tiny_model,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.aril.conftest import Cluster, RunAril


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a model and a store with two good adapters, a shared one among them."""
    root = tmp_path_factory.mktemp("check")
    model, store = make_tiny_model(root / "tiny"), root / "store"
    make_tiny_adapter(store / "acme" / "terse", model, rank=4, targets=["q_proj", "v_proj"])
    make_tiny_adapter(store / "shared" / "polite", model, rank=2)
    return model, store


@pytest.fixture
def bad_store(tmp_path: Path) -> Path:
    """Make a store in which nothing can be served."""
    (tmp_path / "acme" / "pickled").mkdir(parents=True)
    (tmp_path / "acme" / "pickled" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "acme" / "pickled" / "adapter_model.bin").write_bytes(b"")
    (tmp_path / "acme" / "Not_A_Name").mkdir()
    (tmp_path / "Not_A_Tenant" / "x").mkdir(parents=True)
    return tmp_path


def test_adapters_are_listed(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each adapter is listed with owner, digest, rank, targets and size."""
    model, store = folders
    flags = ["--model", str(model), "--adapters", str(store)]
    assert main(["adapters", *flags, "--json"]) == OK
    terse, polite = json.loads(capsys.readouterr().out)
    assert (terse["tenant"], terse["name"], terse["rank"]) == ("acme", "terse", 4)
    assert terse["targets"] == ["q_proj", "v_proj"]
    assert len(terse["digest"]) == 64
    assert terse["size"] > (store / "acme" / "terse" / "adapter_model.safetensors").stat().st_size
    assert (polite["tenant"], polite["problem"]) == ("shared", None)
    assert main(["adapters", *flags]) == OK
    header, first, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["TENANT", "ADAPTER", "DIGEST", "RANK", "SIZE", "TARGETS"]
    assert first.split()[:4] == ["acme", "terse", terse["digest"][:12], "4"]


def test_bad_adapters_are_named(
    folders: tuple[Path, Path], bad_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be served is listed with the reason, and the exit code says so."""
    flags = ["--model", str(folders[0]), "--adapters", str(bad_store)]
    assert main(["adapters", *flags, "--json"]) == FAILED
    problems = {entry["name"]: entry["problem"] for entry in json.loads(capsys.readouterr().out)}
    assert "pickle" in problems["pickled"]
    assert "not an adapter's name" in problems["Not_A_Name"]
    assert "not a tenant's name" in problems["x"]


@pytest.mark.parametrize("spelt", ["./tiny", "./current", "."])
def test_a_model_is_called_the_same_by_check_and_worker(
    folders: tuple[Path, Path],
    spelt: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However the folder is spelt, what is good for `aril adapters` is good for the worker."""
    model, store = folders
    link = model.parent / "current"
    if not link.exists():
        link.symlink_to("tiny")
    monkeypatch.chdir(model if spelt == "." else model.parent)
    flags = ["--model", spelt, "--adapters", str(store), "--base-check", "strict"]
    assert main(["adapters", *flags]) == OK, capsys.readouterr().out
    assert load_backbone(spelt, "cpu", torch.float32).name == "tiny"


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_check_and_worker_see_the_same_linears(arch: Architecture, tmp_path: Path) -> None:
    """Without weights in memory a folder shows what a worker finds in it, GPT-2's too."""
    folder = make_tiny_model(tmp_path / "tiny", arch, tie_word_embeddings=True)
    told, found = read_model_folder(str(folder)), load_backbone(folder, "cpu", torch.float32)
    assert told.linear_shapes == found.linear_shapes
    assert len(told.linear_shapes) > 1
    assert found.own_weights is not None
    assert told.own_weights is not None
    assert told.own_weights.tables == found.own_weights.tables
    assert found.own_weights.tables is not None
    assert found.own_weights.tables.output == found.output_module
    head = found.model.get_output_embeddings().weight
    for own in (told.own_weights, found.own_weights):
        assert own.equals("lm_head.weight", head)
        assert own.max_copy_bytes(told.linear_shapes) >= 2 * head.nbytes


def test_another_base_model_is_a_warning(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """`aril adapters` and `aril check` tell both names and pass; with `strict` neither does."""
    model, store = folders
    flags = ["--model", str(model), "--adapters", str(store), "--base", "org/Other"]
    assert main(["adapters", *flags, "--json"]) == OK
    told = json.loads(capsys.readouterr().out)
    assert all("'org/Other'" in entry["warning"] for entry in told)
    assert main(["adapters", *flags, "--base-check", "strict"]) == FAILED
    assert "'org/Other'" in capsys.readouterr().out
    main(["check", "--bootstrap", "127.0.0.1:1", *flags])
    out = capsys.readouterr().out
    assert "! adapters  acme/terse: it was made for" in out
    assert "✓ adapters  2 can be served" in out


def test_check_tells_what_eight_bits_change(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, only where they are asked for; on a processor without them that it has none."""
    flags = ["check", "--bootstrap", "127.0.0.1:1", "--model", str(folders[0])]
    main(flags)
    assert "weights" not in capsys.readouterr().out
    flags += ["--weights", "int8", "--dtype", "float32"]
    if why_not() is None:
        main(flags)
        (line,) = [each for each in capsys.readouterr().out.splitlines() if "weights" in each]
        told = re.fullmatch(
            r"✓ weights   int8 changes the next token by ([\d.e-]+) nats"
            r" \(KL to the stored weights\), the likeliest is the same after (\d+)% of"
            r" (\d+) tokens",
            line,
        )
        assert told is not None
        assert 0 < float(told[1]) < 0.1
        assert 80 < int(told[2]) <= 100
        assert int(told[3]) > 256
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert main(flags) == FAILED
    assert "✗ weights   ARIL_WEIGHTS=int8 needs a processor with" in capsys.readouterr().out


def test_a_change_is_measured_by_its_formulas() -> None:
    """KL from the stored to the changed probabilities, and how often the best token stays."""
    stored = torch.tensor([[0.5, 0.5, 0.0], [0.8, 0.1, 0.1]]).log().nan_to_num(neginf=-1e4)
    changed = torch.tensor([[0.25, 0.75, 0.0], [0.8, 0.1, 0.1]]).log().nan_to_num(neginf=-1e4)
    found = compare(stored, changed)
    assert found.divergence == pytest.approx(0.25 * math.log(4 / 3), rel=1e-5)
    assert (found.same_best, found.tokens) == (0.5, 2)


@pytest.mark.kafka
async def test_check_of_a_good_setup(
    cluster: Cluster, aril: RunAril, folders: tuple[Path, Path]
) -> None:
    """A setup that a worker could start with is a line each and exit code 0."""
    model, store = folders
    env = cluster.env | {"ARIL_MODEL": str(model), "ARIL_ADAPTERS": str(store)}
    done = await aril("check", env=env)
    assert done.code == OK, done.out + done.err
    lines = done.out.splitlines()
    assert [line.split()[1] for line in lines] == [
        "settings",
        "broker",
        "topics",
        "model",
        "adapters",
    ]
    assert all(line.startswith("✓") for line in lines)


@pytest.mark.kafka
async def test_check_finds_every_fault(cluster: Cluster, aril: RunAril, bad_store: Path) -> None:
    """Missing topics and a missing model are each told, in one run, with exit code 1."""
    names = {"ARIL_JOBS_TOPIC": "no-jobs", "ARIL_DLQ_TOPIC": "no-dlq"}
    env = cluster.env | names | {"ARIL_MODEL": str(bad_store)}
    done = await aril("check", env=env)
    assert done.code == FAILED
    assert "✗ topics    no-jobs: does not exist" in done.out
    assert "✗ topics    no-dlq: does not exist" in done.out
    assert f"✗ model     {bad_store}: no config.json there" in done.out
    assert done.err == ""


async def test_check_without_a_broker(aril: RunAril) -> None:
    """Without a broker the other checks are still made."""
    done = await aril("check", "--bootstrap", "127.0.0.1:1")
    assert "✗ broker    no broker answers at 127.0.0.1:1" in done.out
    assert "✗ model     not set" in done.out
    assert done.code == FAILED


@pytest.mark.kafka
async def test_topics_are_created_and_told(cluster: Cluster, aril: RunAril) -> None:
    """`aril topics` says what it created and what was there, and refuses another count."""
    prefix = cluster.contract.replies_prefix
    env = cluster.env
    done = await aril("topics", "newcomer", "--reply-partitions", "2", env=env)
    assert done.code == OK
    assert f"✓ created   {prefix}newcomer, 2 partitions" in done.out.splitlines()
    assert f"✓ there     {cluster.contract.jobs_topic}, 2 partitions" in done.out.splitlines()
    refused = await aril("topics", "newcomer", "--reply-partitions", "3", env=env)
    assert refused.code == FAILED
    assert "2 partitions, 3 asked: the number never changes" in refused.out


def test_a_template_of_its_own_is_told(
    tmp_path: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Listed with a warning where it is not used, and without where it is."""
    adapter = tmp_path / "store" / "acme" / "spoken"
    shutil.copytree(folders[1] / "acme" / "terse", adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}")
    flags = [
        "adapters",
        "--model",
        str(folders[0]),
        "--adapters",
        str(tmp_path / "store"),
        "--json",
    ]
    assert main(flags) == OK
    assert "ARIL_ADAPTER_TEMPLATES" in json.loads(capsys.readouterr().out)[0]["warning"]
    assert main([*flags, "--adapter-templates"]) == OK
    assert json.loads(capsys.readouterr().out)[0]["warning"] is None


def test_experts_have_room_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their LoRA is listed and bounded as a worker does it, and check says which rank fits."""
    model, store = make_tiny_experts(tmp_path / "mixture"), tmp_path / "store"
    names = ["experts.gate_up_proj", "experts.down_proj"]
    adapter = store / "acme" / "expert"
    make_tiny_adapter(adapter, model, rank=4, targets=[], target_parameters=names)
    flags = ["--model", str(model), "--adapters", str(store)]
    assert main(["adapters", *flags, "--json"]) == OK
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["rank"], found["targets"]) == (4, ["down_proj", "gate_up_proj"])
    # fp32, 2 layers of 4 experts: (64 + 192) + (96 + 64) numbers each for a rank.
    a_rank = 4 * 2 * 4 * (256 + 160)
    flagged = {"expert_bytes": 1 << 20, "slots": 300, "max_rank": 128, "device": "cpu"}
    settings = load_settings(flags=flagged).settings
    rank = (1 << 20) // a_rank
    told = experts_room(settings, read_model_folder(str(model)))
    assert f"up to rank {rank}, 300 slots may take 0.31 GB" in told
    make_tiny_adapter(adapter, model, rank=rank + 1, targets=[], target_parameters=names)
    assert main(["adapters", *flags, "--max-rank=128", f"--expert-bytes={1 << 20}"]) == FAILED
    assert "ARIL_EXPERT_BYTES" in capsys.readouterr().out


def test_what_traces_need_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing where they are off; else the package and the environment, as a worker does."""

    def check(traces: str) -> tuple[bool, str]:
        report = Report()
        check_traces(load_settings(flags={"traces": traces}).settings, report)
        return report.failed, capsys.readouterr().out

    missing: Any = None
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "aril.worker.observe.traces.export", missing)
        assert check("off") == (False, "")
        failed, told = check("on")
        assert failed
        assert "pip install 'aril[otel]'" in told
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    assert check("steps")[0] is False
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    assert check("on")[0] is True
