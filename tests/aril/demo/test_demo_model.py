"""The converted model: made once, whole or not at all, and still a model that answers."""

import shutil
import threading
from pathlib import Path

import pytest

from aril.demo import model
from aril.demo.model import ModelUnavailableError, Progress, ensure_model


class Converter:
    """Stands in for the half minute of conversion: writes two small files."""

    def __init__(self) -> None:
        self.runs = 0
        self.fails = False

    def __call__(self, source: Path, target: Path, report: Progress) -> None:
        """Write the files, or fail after the first."""
        self.runs += 1
        report("writing", 0.5)
        target.mkdir(parents=True)
        (target / "config.json").write_text("{}")
        if self.fails:
            raise ModelUnavailableError("disk full")
        (target / "model.safetensors").write_bytes(source.read_bytes())


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Converter:
    """Replace the package's file and its conversion."""
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    made = Converter()
    monkeypatch.setattr(model, "_source", lambda: source)
    monkeypatch.setattr(model, "_convert_in_child", made)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache folder that does not exist yet."""
    return tmp_path / "cache" / "aril"


def test_converts_once(converter: Converter, cache: Path) -> None:
    """The second start finds the folder and leaves it alone."""
    folder = ensure_model(cache)
    assert folder == cache / "SmolLM2-135M-Instruct"
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert ensure_model(cache) == folder
    assert converter.runs == 1


def test_default_cache_follows_the_environment(
    converter: Converter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG_CACHE_HOME counts, and else the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ensure_model().parent == tmp_path / "xdg" / "aril"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert ensure_model().parent == tmp_path / "home" / ".cache" / "aril"
    assert converter.runs == 2


@pytest.mark.parametrize("damage", ["marker gone", "file gone", "file cut", "marker cut", "extra"])
def test_a_folder_that_is_not_whole_is_made_again(
    converter: Converter, cache: Path, damage: str
) -> None:
    """Whatever happened to the folder, the marker tells, and the next start mends it."""
    folder = ensure_model(cache)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    match damage:
        case "marker gone":
            (folder / "converted.json").unlink()
        case "file gone":
            (folder / "config.json").unlink()
        case "file cut":
            (folder / "model.safetensors").write_bytes(b"weigh")
        case "marker cut":
            (folder / "converted.json").write_text('{"format": 1')
        case "extra":
            (folder / "other.safetensors").write_bytes(b"")
    ensure_model(cache)
    assert converter.runs == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_failed_conversion_leaves_nothing_behind(converter: Converter, cache: Path) -> None:
    """Neither a half folder nor scratch files, and the next start tries again."""
    converter.fails = True
    with pytest.raises(ModelUnavailableError, match="disk full"):
        ensure_model(cache)
    assert [file.name for file in cache.iterdir()] == [".SmolLM2-135M-Instruct.lock"]
    converter.fails = False
    ensure_model(cache)
    assert converter.runs == 2


def test_those_who_start_together_share_one_conversion(converter: Converter, cache: Path) -> None:
    """The others wait for the first and use what it made."""
    starts = [threading.Thread(target=ensure_model, args=(cache,)) for _ in range(4)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert converter.runs == 1


def test_progress_ends_at_one(converter: Converter, cache: Path) -> None:
    """Also when there is nothing to do."""
    del converter
    seen: list[float] = []

    def report(_what: str, done: float) -> None:
        seen.append(done)

    ensure_model(cache, report)
    assert seen == [0.5, 1.0]
    ensure_model(cache, report)
    assert seen == [0.5, 1.0, 1.0]


def test_without_the_package_the_message_says_what_to_install(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's extra is named instead of a traceback."""
    monkeypatch.setattr(model, "_PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(ModelUnavailableError, match=r"pip install 'aril\[demo\]'"):
        ensure_model(cache)


@pytest.mark.slow
def test_an_unreadable_source_is_reported_in_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong in the converting process arrives here."""
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, or not")
    monkeypatch.setattr(model, "_source", lambda: tmp_path / "bad.gguf")
    with pytest.raises(ModelUnavailableError, match=r"could not be converted: .+") as caught:
        ensure_model(cache)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_real_model_answers(cache: Path) -> None:
    """Converted for real, loaded like any Hugging Face folder, and still sensible."""
    import torch  # noqa: PLC0415  # seconds, which only this test needs
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  # same

    folder = ensure_model(cache)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    causal_lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = causal_lm.generate(**inputs, max_new_tokens=24, do_sample=False)[0]
    answer = tokenizer.decode(output[inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
    shutil.rmtree(folder)
