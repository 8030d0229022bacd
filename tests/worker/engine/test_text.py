"""Streamed text against the tokenizer's own decoding, over every kind of decoder."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from aril.demo.model import ensure_model
from aril.worker.engine.text import Detokenizer, TextStream

CORPUS = [
    "The quick brown fox jumps over the lazy dog, twice a day.",
    "Grüße aus Köln: naïve café, 10 °C.",
    "日本語の文章と中文的句子。",
    "emoji 🎉 family 👩‍👩‍👧 flag 🇩🇪 and 👍🏽",
]
HARD = st.text(st.sampled_from("ab .🎉日é\u200d👩\n\ufffd"), max_size=12)


def byte_level() -> Tokenizer:
    """Build GPT-2's kind, as in Llama 3, Qwen and SmolLM: each token is a run of bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|end|>", "<|im|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(
        [AddedToken("<tool call>", special=False), AddedToken("日本", special=False)]
    )
    return tokenizer


def single_bytes() -> Tokenizer:
    """Build a byte-level one without merges: each token is one byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: at for at, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback(*, strip: bool) -> Tokenizer:
    """Build sentencepiece's kind: Llama 2 strips the first space, Gemma does not."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "a", "b", "▁a", "▁▁", "hello", "▁world", ".", "é", "日", "🎉", "\ufffd"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: at for at, piece in enumerate(pieces)},
            [],
            byte_fallback=True,
            unk_token="<unk>",  # noqa: S106 - the name of a token, no password
        )
    )
    last = [decoders.Strip(" ", 1, 0)] if strip else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def metaspace() -> Tokenizer:
    """Build the Unigram kind: a word's first token brings the space, the very first drops it."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁the", -2.0), ("a", -3.0), ("ing", -3.0), ("日", -4.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def word_piece() -> Tokenizer:
    """Build the kind that joins tokens with spaces unless they begin with ##."""
    pieces = ["[UNK]", "[SEP]", "the", "##ing", "play", ".", ",", "'", "日"]
    tokenizer = Tokenizer(
        models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]")  # noqa: S106 - the name of a token, no password
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_special_tokens(["[UNK]", "[SEP]"])
    return tokenizer


TOKENIZERS = {
    "byte-level": byte_level(),
    "bytes": single_bytes(),
    "byte-fallback": byte_fallback(strip=False),
    "byte-fallback-strip": byte_fallback(strip=True),
    "metaspace": metaspace(),
    "word-piece": word_piece(),
}


def stream(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Text piece for each token, and at the end the rest."""
    text = TextStream(Detokenizer(tokenizer))
    return [*(text.push(token) for token in ids), text.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_joined_pieces_are_the_decoded_text(name: str, data: st.DataObject) -> None:
    """For any ids, also invalid bytes, special ones and ones past the vocabulary."""
    tokenizer = TOKENIZERS[name]
    token = st.integers(0, tokenizer.get_vocab_size() + 2)
    ids = data.draw(st.lists(token, max_size=60))
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.slow
def test_the_demo_models_tokenizer() -> None:
    """SmolLM2's own vocabulary: random ids, and hard text in several scripts."""
    path = ensure_model() / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    detokenizer = Detokenizer(tokenizer)
    dice = random.Random(0)
    answers = [
        [dice.randrange(tokenizer.get_vocab_size() + 3) for _ in range(dice.randrange(80))]
        for _ in range(500)
    ]
    for ids in [*answers, *(tokenizer.encode(line).ids for line in CORPUS)]:
        text = TextStream(detokenizer)
        joined = "".join([*map(text.push, ids), text.flush()])
        assert joined == tokenizer.decode(ids, skip_special_tokens=True)


@settings(max_examples=300, deadline=None)
@given(
    ids=st.lists(
        st.one_of(
            st.sampled_from([0xF0, 0x9F, 0x8E, 0x89, 0xE6, 0x97, 0xA5, 0xFF, 0x20]).map(
                lambda byte: byte + 3
            ),
            st.integers(259, 270),
        ),
        max_size=50,
    )
)
def test_runs_of_byte_tokens_are_decoded_whole(ids: list[int]) -> None:
    """A byte that makes the whole run invalid changes no character that was shown."""
    for name in ("byte-fallback", "byte-fallback-strip"):
        tokenizer = TOKENIZERS[name]
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@settings(max_examples=200, deadline=None)
@given(text=HARD)
def test_characters_come_whole_and_at_once(text: str) -> None:
    """Of valid UTF-8 each piece is whole characters, all that the bytes so far complete."""
    tokenizer = TOKENIZERS["byte-level"]
    ids = tokenizer.encode(text).ids
    pieces = stream(tokenizer, ids)
    shown = ""
    for count, piece in enumerate(pieces[:-1], 1):
        shown += piece
        assert tokenizer.decode(ids[:count]) in (shown, shown + "\ufffd")
    assert shown + pieces[-1] == text


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_endless_invalid_bytes_cost_no_memory_and_no_time(name: str) -> None:
    """Thousands of bytes that never make a character come out, over a short window, as U+FFFD."""
    tokenizer = TOKENIZERS[name]
    broken = [
        token
        for token in range(tokenizer.get_vocab_size())
        if tokenizer.decode([token]) == "\ufffd" and tokenizer.id_to_token(token) != "\ufffd"
    ]
    ids = (broken * 40)[:4000]
    text = TextStream(Detokenizer(tokenizer))
    pieces = [text.push(token) for token in ids]
    if name == "byte-level":
        assert len(text._window) <= 33
        assert all(any(pieces[at : at + 4]) for at in range(len(pieces) - 4))
    assert "".join(pieces) + text.flush() == tokenizer.decode(ids)


def test_a_character_behind_invalid_bytes_is_not_cut() -> None:
    """Wherever the window is shortened, the character that has just begun stays whole."""
    tokenizer = TOKENIZERS["bytes"]
    crab = tokenizer.encode("🦀").ids
    assert len(crab) == 4
    for count in range(70):
        ids = [crab[-1]] * count + crab
        assert "".join(stream(tokenizer, ids)) == "\ufffd" * count + "🦀"


def test_special_tokens_between_the_bytes_of_a_character() -> None:
    """They are skipped before decoding, so the character comes out once its last byte is there."""
    tokenizer = TOKENIZERS["byte-level"]
    first, *rest = tokenizer.encode("🦀").ids
    assert rest
    end = tokenizer.token_to_id("<|end|>")
    assert end is not None
    ids = [first, end, end, *rest]
    assert stream(tokenizer, ids) == [*[""] * (len(ids) - 1), "🦀", ""]
