"""The first space of an answer: its own where it goes on in the prompt's text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aril.schemas import ErrorCode, Sampling
from aril.worker.constraints.compiler import CompiledConstraint
from aril.worker.constraints.grammar import compile_grammar, to_grammar
from aril.worker.constraints.vocabulary import Vocabulary
from aril.worker.engine.answer import Answer
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import adopt_backbone
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.text import Detokenizer, TextStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.engine.request import Output

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES += ["▁", "I", "s", "▁Is", "it", "▁it", "▁Paris", ".", "▁so", "é"]
MERGES = [("I", "s"), ("▁", "Is")]


def llama2() -> Tokenizer:
    """Build Llama 2's kind: a space is put before all text, and taken from before all answers."""
    vocabulary = {piece: at for at, piece in enumerate([*PIECES, "Is"])}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, MERGES, byte_fallback=True, unk_token="<unk>")  # noqa: S106
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in PIECES[:3]])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


TOKENIZER = llama2()
DETOKENIZER = Detokenizer(TOKENIZER)


def ids(*pieces: str) -> tuple[int, ...]:
    """Look tokens up."""
    return tuple(PIECES.index(piece) for piece in pieces)


PROMPT = tuple(TOKENIZER.encode("Is").ids)


def streamed(answer: Sequence[int], prompt: Sequence[int]) -> str:
    """Stream an answer behind a prompt, piece by piece."""
    stream = TextStream(DETOKENIZER, DETOKENIZER.context(prompt))
    return "".join([*map(stream.push, answer), stream.flush()])


def test_the_tokenizer_is_of_that_kind() -> None:
    """It drops the space of an answer that it is shown alone."""
    assert ids("<s>", "▁Is") == PROMPT
    assert TOKENIZER.decode(list(ids("▁Paris"))) == "Paris"
    assert TOKENIZER.decode([*PROMPT, *ids("▁Paris")]) == "Is Paris"


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        (PROMPT, ids("▁Paris", "."), " Paris."),
        (PROMPT, ids("it"), "it"),
        (PROMPT, ids("▁", "▁Paris"), "  Paris"),
        (PROMPT, ids("</s>"), ""),
        (PROMPT, (*ids("▁"), *ids("<0xC3>", "<0xA9>")), " é"),
        (ids("<s>", "▁Is", "<0xC3>", "<0xA9>"), ids("▁Paris"), " Paris"),
        (ids("<s>", "▁"), ids("▁Paris"), " Paris"),
        (ids("<s>"), ids("▁Paris"), "Paris"),
        (ids("<s>", "▁Is", "</s>"), ids("▁Paris"), "Paris"),
        ((), ids("▁Paris"), "Paris"),
    ],
)
def test_an_answer_has_what_it_adds_to_the_prompt(
    prompt: tuple[int, ...], answer: tuple[int, ...], text: str
) -> None:
    """Behind text the space is there; behind a special token, or nothing, the decoder drops it."""
    assert streamed(answer, prompt) == text


@given(
    st.lists(st.sampled_from(range(3, len(PIECES))), min_size=1, max_size=6),
    st.lists(st.sampled_from(range(len(PIECES))), max_size=8),
)
def test_prompt_and_answer_joined_are_the_whole_decoded(
    prompt: list[int], answer: list[int]
) -> None:
    """Whatever the tokens, where the prompt's last one is no byte: bytes are read as one run."""
    if DETOKENIZER.is_byte(prompt[-1]):
        prompt = [*prompt, *ids("s")]
    whole = TOKENIZER.decode([*prompt, *answer])
    assert TOKENIZER.decode(prompt) + streamed(answer, prompt) == whole


@pytest.mark.parametrize("visible", range(4))
def test_who_takes_over_goes_on_with_the_same_text(visible: int) -> None:
    """Its pieces are those of the undisturbed answer, from any token on, and so is the stop."""
    tokens = ids("▁Paris", "▁so", ".", "▁it")
    sampling = Sampling(stop=(" so. it",))

    def answer() -> Answer:
        return Answer(DETOKENIZER, sampling, ids("</s>"), prompt_ids=PROMPT)

    first, second = answer(), answer()
    pieces = [first.push(token) for token in tokens]
    for token in tokens[:visible]:
        second.push(token)
    assert [second.push(token) for token in tokens[visible:]] == pieces[visible:]
    assert "".join(pieces) == " Paris"
    assert first.finish == second.finish == "stop"


def test_a_stop_string_meets_the_first_space() -> None:
    """One that begins with it stops the answer at once, and one of the bare word leaves it."""
    for stop, text in ((" Paris", ""), ("Paris", " ")):
        answer = Answer(DETOKENIZER, Sampling(stop=(stop,)), (), prompt_ids=PROMPT)
        assert (answer.push(ids("▁Paris")[0]), answer.finish) == (text, "stop")


def make_engine() -> Engine:
    """Make one with a model of that kind."""
    config = LlamaConfig(
        vocab_size=len(PIECES) + 1,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER, eos_token="</s>")  # noqa: S106
    backbone = adopt_backbone(LlamaForCausalLM(config), tokenizer, "cpu", name="llama2")
    limits = EngineConfig(max_rows=2, max_step_tokens=16, slots=1, max_rank=4, kv_tokens=64)
    return Engine(backbone, limits)


def test_the_engine_decodes_behind_the_prompt() -> None:
    """A raw prompt's answer has its space, streamed or resumed; a turn of a chat has none."""
    engine = make_engine()
    paris = ids("▁Paris")[0]
    given: dict[str, Any] = {
        "prompt_ids": PROMPT,
        "sampling": Sampling(max_tokens=2, temperature=0.0, logit_bias={str(paris): 100.0}),
        "seed": 0,
        "adapter": None,
    }

    def run(**more: Any) -> list[Output]:
        engine.submit(GenerationRequest(key=0, **(given | more)))
        outputs = []
        while engine.has_work:
            outputs += engine.step()
        return outputs

    with torch.no_grad():
        texts = [output.text for output in run(continues_text=True)]
        assert texts == [" Paris", " Paris"]
        assert [output.text for output in run(continues_text=True, resume_ids=(paris,))] == texts[
            1:
        ]
        assert [output.text for output in run()] == ["Paris", " Paris"]


@pytest.mark.parametrize("visible", range(2))
def test_a_form_may_begin_with_the_space_that_is_shown(visible: int) -> None:
    """Behind a raw prompt; a turn of a chat cannot begin so, and is told."""
    engine = make_engine()
    vocabulary = Vocabulary.of(engine.backbone.tokenizer, len(PIECES) + 1, frozenset(ids("</s>")))
    sampling = Sampling(choice=(" Paris it",), temperature=0.0)
    held = compile_grammar(vocabulary.engine, to_grammar("choice", '[" Paris it"]'))
    resumed = ids("▁Paris")[:visible]

    def run(**more: Any) -> list[Output]:
        constraint = CompiledConstraint(held, "choice", vocabulary)
        sampled = sampling.model_copy(update={"max_tokens": 12})
        engine.submit(
            GenerationRequest(
                key=0, prompt_ids=PROMPT, sampling=sampled, seed=0, adapter=None,
                constraint=constraint, **more,
            )
        )  # fmt: skip
        outputs = []
        while engine.has_work:
            outputs += engine.step()
        return outputs

    outputs = run(continues_text=True, resume_ids=resumed)
    assert outputs[-1].finish == "stop"
    shown = "".join(output.text for output in outputs)
    assert " Paris"[: 6 * visible] + shown == " Paris it"
    if not visible:
        error = run()[-1].error
        assert error is not None
        assert error.code is ErrorCode.INVALID_JOB
