"""Tokenizer files beside an adapter: the backbone's tokens, tokens of its own, chat templates."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from structlog.testing import capture_logs
from transformers import AddedToken, PreTrainedTokenizerFast

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterCache, AdapterStore, AdapterWeights
from aril.worker.adapters.chat_template import MAX_TEMPLATE_BYTES, TEMPLATE_FILE, TOOLS_FILE
from aril.worker.adapters.config import canonical, read_fields
from aril.worker.adapters.own_weights import OwnWeights
from aril.worker.adapters.tokenizer_files import BackboneTokenizer
from aril.worker.adapters.trained_tokens import TokenTables
from aril.worker.adapters.weights import Remark
from tests.support.adapter_folders import SHAPES, tensors, write_adapter
from tests.support.tiny import CHAT_TEMPLATE, make_tokenizer

TOKENS = 384
ROWS = TOKENS + 6  # as backbones fill their tables up
EMBEDDING = "model.embed_tokens"
OTHER = "{% for message in messages %}{{ bos_token }}{{ message.content }}{% endfor %}"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model's folder: its tokenizer, and embeddings of zeros tied to its head."""
    folder = tmp_path_factory.mktemp("backbone")
    make_tokenizer().save_pretrained(folder)
    save_file({f"{EMBEDDING}.weight": torch.zeros(ROWS, 4)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def store(root: Path, backbone: Path) -> AdapterStore:
    """Return a store that looks at tokenizer files and uses no template."""
    return store_of(root, backbone)


def store_of(root: Path, backbone: Path, *, templates: bool = False) -> AdapterStore:
    """Return a store of adapters of the backbone."""
    tables = TokenTables(EMBEDDING, "lm_head", ROWS, 4, tied=True)
    return AdapterStore(
        root,
        base_model=None,
        linear_shapes=SHAPES,
        max_rank=8,
        own=OwnWeights(backbone, {}, "model.", tables),
        tokenizer=BackboneTokenizer(PreTrainedTokenizerFast.from_pretrained(backbone), backbone),
        templates=templates,
    )


def load(store: AdapterStore) -> AdapterWeights:
    """Read the one adapter."""
    return store.load(store.find("acme", "pirate"))


def refusal(store: AdapterStore) -> JobError:
    """Return what its tenant is told."""
    with pytest.raises(JobError) as caught:
        load(store)
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
    return caught.value


def trained(*ids: int) -> dict[str, Any]:
    """Return an adapter with vectors of its own for some tokens."""
    key = f"base_model.model.{EMBEDDING}.token_adapter.trainable_tokens_delta"
    return {
        "weights": tensors() | {key: torch.rand(len(ids), 4)},
        "trainable_token_indices": list(ids),
    }


def test_the_backbones_tokenizer_changes_nothing(root: Path, store: AdapterStore) -> None:
    """Saved again by a trainer, in full: nothing to tell, no template of its own."""
    make_tokenizer().save_pretrained(write_adapter(root / "acme/pirate"))
    found = load(store)
    assert (found.template, found.remarks) == (None, ())


def test_a_pad_token_is_in_no_prompt(root: Path, store: AdapterStore) -> None:
    """Trainers add one, and train no vector of it."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(write_adapter(root / "acme/pirate"))
    assert load(store).remarks == ()


def test_added_tokens_without_embeddings_are_refused_by_name(
    root: Path, store: AdapterStore
) -> None:
    """All of them up to five; with a vector for one of two, the other."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<tool>", "<call>"])
    tokenizer.save_pretrained(write_adapter(root / "acme/pirate"))
    assert re.search(r"embeddings of: '<tool>', '<call>'$", refusal(store).message)
    tokenizer.save_pretrained(write_adapter(root / "acme/pirate", **trained(TOKENS)))
    assert re.search(r"embeddings of: '<call>'$", refusal(store).message)


def test_added_tokens_with_embeddings_are_served_within_the_backbones_rows(
    root: Path, store: AdapterStore
) -> None:
    """They have ids, which is told; a row that is not there is told with the last one."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<tool>", "<call>"])
    tokenizer.save_pretrained(write_adapter(root / "acme/pirate", **trained(TOKENS, TOKENS + 1)))
    found = load(store)
    assert found.remarks == (Remark.TOKENS_ADDED,)
    assert found.added_tokens == {"<tool>": TOKENS, "<call>": TOKENS + 1}
    tokenizer.add_tokens([f"<{at}>" for at in range(9)])
    tokenizer.save_pretrained(root / "acme/pirate")
    error = refusal(store)
    assert "'<4>' lies beyond the backbone's embeddings" in error.message
    assert (error.limit, error.given) == (ROWS - 1, ROWS)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("added_tokens.json", {"<tool>": TOKENS}),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {str(TOKENS): {"content": "<tool>", "special": True}}},
        ),
        ("tokenizer.json", {"model": {"vocab": {"<tool>": TOKENS}}}),
        ("tokenizer.json", {"model": {"vocab": [["a", 0.0]] * TOKENS + [["<tool>", 0.0]]}}),
    ],
)
def test_added_tokens_are_found_wherever_they_are_saved(
    root: Path, store: AdapterStore, file: str, content: dict[str, Any]
) -> None:
    """Releases of transformers keep them in different files."""
    (write_adapter(root / "acme/pirate") / file).write_text(json.dumps(content))
    if isinstance(content.get("model", {}).get("vocab"), list):
        assert "has the id 0" in refusal(store).message  # another vocabulary, told first
    else:
        assert "embeddings of: '<tool>'" in refusal(store).message


def test_a_token_that_takes_what_is_beside_it_is_refused(root: Path, store: AdapterStore) -> None:
    """Where it would be found depends on its surroundings, which only its own tokenizer knows."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("<tool>", lstrip=True)])
    tokenizer.save_pretrained(write_adapter(root / "acme/pirate", **trained(TOKENS)))
    assert "'<tool>' takes spaces" in refusal(store).message


def test_another_vocabulary_is_refused(root: Path, store: AdapterStore) -> None:
    """A token under another id, or an id of another token: prompts would be tokenised wrongly."""
    folder = write_adapter(root / "acme/pirate")
    for vocabulary, told in (
        ({"<|im_start|>": 7}, r"token '<\|im_start\|>' has the id 7, .* tokenizer has 1$"),
        ({"new": 1}, r"token 'new' has the id 1, .* tokenizer has '<\|im_start\|>'$"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
        assert re.search(told, refusal(store).message)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("tokenizer.json", "{", "tokenizer.json is not JSON"),
        ("tokenizer.json", "[]", "tokenizer.json is not a JSON object"),
        ("tokenizer.json", '{"a":' * 40 + "1" + "}" * 40, "tokenizer.json is nested too deep"),
        ("tokenizer.json", "[" + "[]," * 2_000_001 + "[]]", "tokenizer.json has too many values"),
        ("tokenizer.json", '{"added_tokens": {"a": 1}}', "added_tokens is not an array"),
        ("tokenizer.json", '{"added_tokens": [3]}', "no token"),
        ("tokenizer.json", '{"model": {"vocab": {"a": -1}}}', "no token"),
        ("tokenizer.json", '{"model": {"vocab": [3]}}', "no token"),
        ("added_tokens.json", '{"a": "b"}', "no token"),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}', None),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', "is not an object"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}', "no token"),
        ("tokenizer_config.json", '{"chat_template": 3}', "chat_template is 3, not a template"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default"}]}', "not a template"),
        ("tokenizer_config.json", '{"pad_token": 3}', "pad_token is 3, not a token"),
        (TEMPLATE_FILE, "\udcff", "chat_template.jinja is not UTF-8"),
        (TEMPLATE_FILE, "a" * (MAX_TEMPLATE_BYTES + 1), "chat_template.jinja is too large"),
    ],
)
def test_hostile_files_are_refused_by_name(
    root: Path, store: AdapterStore, file: str, content: str, told: str | None
) -> None:
    """None of them is a crash, and none takes memory without a bound."""
    folder = write_adapter(root / "acme/pirate")
    (folder / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    if told is None:
        load(store)
    else:
        assert told in refusal(store).message


def test_a_link_out_of_the_store_is_not_read(
    root: Path, store: AdapterStore, tmp_path: Path
) -> None:
    """A tenant's template could show what stands in any file."""
    (tmp_path / "secret").write_text("{{ secret }}")
    (write_adapter(root / "acme/pirate") / TEMPLATE_FILE).symlink_to(tmp_path / "secret")
    with pytest.raises(JobError, match="leaves its owner's folder"):
        store.find("acme", "pirate")


async def test_a_template_that_is_not_used_is_told(root: Path, store: AdapterStore) -> None:
    """In the log, once an adapter is read, and in a count; what equals the backbone's is not."""
    (write_adapter(root / "acme/pirate") / TEMPLATE_FILE).write_text(OTHER)
    (write_adapter(root / "acme/plain") / TEMPLATE_FILE).write_text(CHAT_TEMPLATE)
    cache = AdapterCache(store, 1 << 20)
    with capture_logs() as logged:
        assert (await cache.get("acme", "pirate")).template is None
        await cache.get("acme", "pirate")
        await cache.get("acme", "plain")
    assert cache.other_templates == 1
    (told,) = (each for each in logged if each["event"] == "adapter_template_not_used")
    assert (told["owner"], told["adapter"]) == ("acme", "pirate")
    assert "ARIL_ADAPTER_TEMPLATES" in told["why"]
    assert "message.content" not in str(logged)


@pytest.mark.parametrize(
    ("files", "text", "tools"),
    [
        ({TEMPLATE_FILE: OTHER}, OTHER, OTHER),
        ({"tokenizer_config.json": {"chat_template": OTHER}}, OTHER, OTHER),
        ({"tokenizer_config.json": {"chat_template": "old"}, TEMPLATE_FILE: OTHER}, OTHER, OTHER),
        ({TEMPLATE_FILE: CHAT_TEMPLATE, TOOLS_FILE: "t"}, CHAT_TEMPLATE, "t"),
        (
            {
                "tokenizer_config.json": {
                    "chat_template": [
                        {"name": "default", "template": OTHER},
                        {"name": "tool_use", "template": "t"},
                        {"name": "rag", "template": "r"},
                    ]
                }
            },
            OTHER,
            "t",
        ),
    ],
)
def test_a_template_is_found_where_transformers_finds_it(
    root: Path, backbone: Path, files: dict[str, Any], text: str, tools: str
) -> None:
    """A file of its own goes before the configuration; one for tools is for jobs with tools."""
    folder = write_adapter(root / "acme/pirate")
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    found = load(store_of(root, backbone, templates=True))
    assert found.template is not None
    assert found.remarks == ()
    assert (found.template.text(tools=False), found.template.text(tools=True)) == (text, tools)
    assert found.template.special["bos_token"] == "<|im_start|>"  # noqa: S105  # no password
    assert found.nbytes > sum(each.nbytes for each in tensors().values())


def test_special_tokens_count_where_a_template_names_them(root: Path, backbone: Path) -> None:
    """The backbone's template with another `bos_token` is another only if it says `bos_token`."""
    store = store_of(root, backbone, templates=True)
    folder = write_adapter(root / "acme/pirate")
    (folder / TEMPLATE_FILE).write_text(CHAT_TEMPLATE)
    (folder / "special_tokens_map.json").write_text('{"bos_token": {"content": "<|im_end|>"}}')
    assert load(store).template is None
    (folder / TEMPLATE_FILE).write_text(OTHER)
    template = load(store).template
    assert template is not None
    assert template.special["bos_token"] == "<|im_end|>"  # noqa: S105  # no password
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<|endoftext|>"}')
    template = load(store).template
    assert template is not None
    assert template.special["bos_token"] == "<|endoftext|>"  # noqa: S105  # no password


def test_the_digest_is_of_all_that_is_read(root: Path, store: AdapterStore) -> None:
    """A worker that takes a job over must know that it would render another prompt."""
    folder = write_adapter(root / "acme/pirate")
    config = canonical(read_fields((folder / "adapter_config.json").read_bytes()))
    both = (folder / "adapter_model.safetensors").read_bytes()
    plain = hashlib.sha256(len(config).to_bytes(8, "little") + config + both).hexdigest()
    seen = [store.find("acme", "pirate").digest]
    assert seen == [plain]  # as it was before other files were read
    for file in (TEMPLATE_FILE, "tokenizer_config.json", "tokenizer.json"):
        (folder / file).write_text("{}")
        seen.append(store.find("acme", "pirate").digest)
        assert load(store).digest == seen[-1]
    (folder / TEMPLATE_FILE).write_text("{} ")
    seen.append(store.find("acme", "pirate").digest)
    (folder / TEMPLATE_FILE).rename(folder / "notes.jinja")  # that nobody reads
    seen.append(store.find("acme", "pirate").digest)
    assert len(set(seen)) == len(seen)
