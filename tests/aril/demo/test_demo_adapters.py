"""The adapters that come with the demo: served as they are, unlike each other, and small."""

import json
from importlib import resources
from pathlib import Path

import pytest
import torch

import aril.demo
from aril.demo.model import MODEL_NAME
from aril.demo.train.answers import QUESTIONS
from aril.demo.train.recipes import ALL_LINEARS, ATTENTION, RECIPES, Recipe
from aril.worker.adapters import AdapterStore, AdapterWeights

STORE = Path(aril.demo.__file__).parent / "adapters"
HIDDEN, KEY_VALUE, INTERMEDIATE, LAYERS = 576, 192, 1536, 30  # SmolLM2-135M
LAYER_SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def load(recipe: Recipe) -> AdapterWeights:
    """Load an adapter the way a worker does."""
    shapes = {
        f"model.layers.{layer}.{name}": shape
        for layer in range(LAYERS)
        for name, shape in LAYER_SHAPES.items()
    }
    store = AdapterStore(STORE, base_model=MODEL_NAME, linear_shapes=shapes, max_rank=16)
    return store.load(store.find(recipe.tenant, recipe.name))


@each_recipe
def test_adapter_is_served_and_follows_its_recipe(recipe: Recipe) -> None:
    """Rank, scaling, modules and dtype are those that the recipe promises."""
    adapter = load(recipe)
    scaling = recipe.alpha / (recipe.rank**0.5 if recipe.use_rslora else recipe.rank)
    assert adapter.rank == recipe.rank
    assert {lora.scaling for lora in adapter.modules.values()} == {scaling}
    assert {lora.a.dtype for lora in adapter.modules.values()} == {torch.float16}
    assert {name.rpartition(".")[2] for name in adapter.modules} == set(recipe.target_modules)
    assert len(adapter.modules) == LAYERS * len(recipe.target_modules)


@each_recipe
def test_adapter_was_trained(recipe: Recipe) -> None:
    """No B is zero any more, so every module changes the answer."""
    assert all(lora.b.any() for lora in load(recipe).modules.values())


def test_the_recipes_differ_in_all_that_a_batch_has_to_mix() -> None:
    """Ranks, alphas, scaling rules and target modules are not all the same."""
    assert len({recipe.rank for recipe in RECIPES}) == len(RECIPES) >= 3
    assert len({recipe.alpha for recipe in RECIPES}) > 1
    assert {recipe.use_rslora for recipe in RECIPES} == {True, False}
    assert {recipe.target_modules for recipe in RECIPES} == {ATTENTION, ALL_LINEARS}


def test_the_store_holds_nothing_else_and_stays_small() -> None:
    """One folder per recipe, no file that a worker does not need but the cards, under 20 MB."""
    files = [file for file in STORE.rglob("*") if file.is_file()]
    expected = {STORE / "README.md"} | {
        STORE / recipe.tenant / recipe.name / name
        for recipe in RECIPES
        for name in ("README.md", "adapter_config.json", "adapter_model.safetensors")
    }
    assert set(files) == expected
    assert sum(file.stat().st_size for file in files) < 20_000_000


@each_recipe
def test_examples_are_well_formed(recipe: Recipe) -> None:
    """Each line has a prompt, said once, and an answer; none is a question the table asks."""
    text = resources.files("aril.demo.train").joinpath(f"{recipe.name}.jsonl").read_text()
    examples = [json.loads(line) for line in text.splitlines()]
    prompts = {example["prompt"] for example in examples}
    assert 60 <= len(prompts) == len(examples) <= 150
    assert all(example.keys() == {"prompt", "answer"} for example in examples)
    assert not prompts & set(QUESTIONS)


def test_examples_of_the_extractor_are_the_json_it_is_to_write() -> None:
    """The same four keys each time, and only words that the text has."""
    text = resources.files("aril.demo.train").joinpath("extract.jsonl").read_text()
    for line in text.splitlines():
        example = json.loads(line)
        found = json.loads(example["answer"])
        assert list(found) == ["people", "places", "dates", "amounts"]
        assert all(item in example["prompt"] for items in found.values() for item in items)
