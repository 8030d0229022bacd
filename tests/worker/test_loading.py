"""From settings to an engine with its adapters: names, warnings and counts on their way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from structlog.testing import capture_logs

from aril.schemas import Job, JobError, Message
from aril.worker.batching.templates import TemplateRenderer
from aril.worker.engine import kv_room
from aril.worker.loading import ModelError, RoomError, load_model
from aril.worker.observe.metrics import Metrics
from aril.worker.settings import load_settings
from tests.support.int8 import why_not
from tests.support.tiny import make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Undo what a worker's start sets for its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the settings that name a model and a store with LoRA on its head, as PEFT saves it."""
    root = tmp_path_factory.mktemp("loading")
    model = make_tiny_model(root / "tiny")
    make_tiny_adapter(root / "store/acme/head", model, rank=2, targets=["lm_head"])
    return {"model": str(model), "adapters": str(root / "store")}


async def test_the_operators_name_of_the_backbone(folders: dict[str, str]) -> None:
    """It is what replies tell; an adapter of another name is served, and the metrics count it."""
    few = {"kv_tokens": 64, "max_rank": 4, "slots": 1, "threads": 1}
    loaded = load_model(load_settings(flags=folders | few | {"base": "org/Other"}).settings)
    assert loaded.base == "org/Other"
    assert loaded.adapters is not None
    assert loaded.stats is not None
    await loaded.adapters.get("acme", "head")
    metrics = Metrics()
    metrics.engine.watch(loaded.stats)
    assert metrics.registry.get_sample_value("aril_adapters_other_base_total") == 1


async def test_an_adapters_own_template(folders: dict[str, str]) -> None:
    """Off it is counted and not used; on it renders the adapter's messages, then tokenised."""
    root = Path(folders["adapters"])
    shutil.copytree(root / "acme/head", root / "acme/spoken")
    (root / "acme/spoken/chat_template.jinja").write_text("{{ messages[0].content }} ahoy")
    few = {"kv_tokens": 64, "max_rank": 4, "slots": 1, "threads": 1}
    for used in (False, True):
        loaded = load_model(
            load_settings(flags=folders | few | {"adapter_templates": used}).settings
        )
        assert loaded.adapters is not None
        assert loaded.stats is not None
        weights = await loaded.adapters.get("acme", "spoken")
        assert loaded.stats().adapters_other_template == (not used)
        assert (weights.template is not None, loaded.templates is not None) == (used, used)
    assert loaded.templates is not None
    job = Job(id="a", tenant="acme", messages=(Message(role="user", content="hi"),))
    text = await loaded.templates.render(job, weights)
    assert isinstance(loaded.templates, TemplateRenderer)
    process = loaded.templates._process
    loaded.templates.close()
    assert process is not None
    await process.wait()
    assert text == "hi ahoy"
    asked = loaded.prompts.encode(Job(id="a", tenant="acme", prompt=text))
    assert loaded.prompts.encode(job, text).ids == asked.ids


def test_the_cache_is_as_large_as_memory_lets_it(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default a quarter of what is free; what was asked for and does not fit is told so."""
    few = {"max_rank": 4, "slots": 1, "threads": 1}
    monkeypatch.setattr(kv_room, "free_memory", lambda: 1 << 24)
    loaded = load_model(load_settings(flags=folders | few).settings)
    assert loaded.stats is not None
    blocks = loaded.stats().kv_blocks
    assert 64 < blocks < 32_768 // 16
    asked = load_settings(flags=folders | few | {"kv_tokens": blocks * 16 * 5}).settings
    with pytest.raises(RoomError, match="ARIL_KV_TOKENS="):
        load_model(asked)


def test_weights_in_eight_bits(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told in the log, with a digest of their own; a processor without ends the start."""
    few = {"kv_tokens": 64, "max_rank": 4, "slots": 1, "threads": 1, "weights": "int8"}
    settings = load_settings(flags=folders | few).settings
    if why_not() is None:
        with capture_logs() as logged:
            loaded = load_model(settings)
        told = next(line for line in logged if line["event"] == "engine_ready")
        assert told["weights"] == "int8"
        stored = settings.model_copy(update={"weights": "stored"})
        assert loaded.base_digest != load_model(stored).base_digest
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(ModelError, match=r"^model: ARIL_WEIGHTS=int8 needs a processor with .*$"):
        load_model(settings)


@pytest.mark.parametrize(("asked", "loop"), [("auto", "SimpleLoop"), ("on", "RunAhead")])
def test_how_steps_follow_each_other(folders: dict[str, str], asked: str, loop: str) -> None:
    """A CPU runs one after the other unless it is told otherwise; drafts leave no choice."""
    few = {"kv_tokens": 64, "max_rank": 4, "slots": 1, "threads": 1, "run_ahead": asked}
    for speculation in (0, 2):
        settings = load_settings(flags=folders | few | {"speculation": speculation}).settings
        with capture_logs() as logged:
            engine: Any = load_model(settings).engine
        drafts = speculation > 0
        assert type(engine._run).__name__ == ("SimpleLoop" if drafts else loop)
        told = [line["event"] for line in logged].count("run_ahead_off")
        assert told == (drafts and asked == "on")


async def test_a_strict_operator(folders: dict[str, str]) -> None:
    """With `base_check=strict` the same adapter is refused with both names."""
    few = {"kv_tokens": 64, "max_rank": 4, "slots": 1, "threads": 1}
    strict = {"base": "org/Other", "base_check": "strict"}
    loaded = load_model(load_settings(flags=folders | few | strict).settings)
    assert loaded.adapters is not None
    with pytest.raises(JobError, match=r"tiny'.*'org/Other'"):
        await loaded.adapters.get("acme", "head")
