"""The rules that end an answer, and that visible tokens rebuild their state."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from aril.schemas import Sampling
from aril.worker.engine.answer import Answer
from aril.worker.engine.text import Detokenizer

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENIZER = Tokenizer(models.BPE({char: at for at, char in enumerate(ALPHABET)}, []))
TOKENIZER.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
TOKENIZER.decoder = decoders.ByteLevel()
TOKENIZER.add_special_tokens(["<eos>"])
DETOKENIZER = Detokenizer(TOKENIZER)
EOS = len(ALPHABET)


def encode(text: str) -> list[int]:
    """One token a byte; <eos> is one token."""
    ids: list[int] = TOKENIZER.encode(text).ids
    return ids


def play(
    sampling: Sampling, ids: list[int], eos_ids: tuple[int, ...] = (EOS,)
) -> tuple[list[str], str | None]:
    """Push tokens until the answer ends: the pieces and the reason."""
    answer = Answer(DETOKENIZER, sampling, eos_ids)
    pieces = []
    for token in ids:
        pieces.append(answer.push(token))
        if answer.finish is not None:
            break
    return pieces, answer.finish


@pytest.mark.parametrize(
    ("sampling", "tokens", "text", "finish", "count"),
    [
        (Sampling(), "ab<eos>c", "ab", "stop", 3),
        (Sampling(ignore_eos=True, max_tokens=4), "ab<eos>cd", "abc", "length", 4),
        (Sampling(stop_token_ids=tuple(encode("b"))), "abc", "a", "stop", 2),
        (Sampling(max_tokens=2), "abc", "ab", "length", 2),
        (Sampling(stop=("bc",)), "abcd", "a", "stop", 3),
        (Sampling(stop=("bc",), max_tokens=3), "abcd", "a", "stop", 3),
        (Sampling(stop=("bcd",), max_tokens=3), "abcd", "abc", "length", 3),
        (Sampling(stop=("bcd",)), "abc<eos>", "abc", "stop", 4),
        (Sampling(max_tokens=3), "ab<eos>", "ab", "stop", 3),
        (Sampling(max_tokens=9), "abc", "abc", None, 3),
        (Sampling(max_tokens=2), "a🎉", "a\ufffd", "length", 2),
        (Sampling(stop=("\ufffd",), max_tokens=2), "a🎉", "a", "stop", 2),
        (Sampling(stop=("🎉",)), "a🎉b", "a", "stop", 5),
        (Sampling(stop=("<eos>",), ignore_eos=True), "ab<eos>c", "ab", "stop", 3),
        (Sampling(stop=("bc",), min_tokens=3), "abcabcd", "abca", "stop", 6),
        (Sampling(stop=("bc",), min_tokens=2), "abcd", "abcd", None, 4),
        (Sampling(stop=("bc",), min_tokens=3, max_tokens=3), "abc", "abc", "length", 3),
    ],
)
def test_rules(sampling: Sampling, tokens: str, text: str, finish: str | None, count: int) -> None:
    """Each rule alone and where two meet: the text, the reason and the number of tokens."""
    pieces, reason = play(sampling, encode(tokens))
    assert ("".join(pieces), reason, len(pieces)) == (text, finish, count)


SAMPLING = st.builds(
    Sampling,
    max_tokens=st.integers(1, 25),
    stop=st.lists(st.text("ab🎉 ", min_size=1, max_size=3), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
)
TEXTS = st.lists(st.sampled_from(["a", "b", "ab", " ", "🎉", "é", "<eos>"]), max_size=10)


@settings(deadline=None)
@given(sampling=SAMPLING, parts=TEXTS)
def test_the_text_is_the_decoded_tokens_before_the_stop(
    sampling: Sampling, parts: list[str]
) -> None:
    """Joined pieces are what decoding all the tokens gives, cut where a stop string begins."""
    pieces, finish = play(sampling, encode("".join(parts)))
    ids = encode("".join(parts))[: len(pieces)]
    text = TOKENIZER.decode(ids, skip_special_tokens=True)
    joined = "".join(pieces)
    if finish == "length" or (finish == "stop" and ids[-1] == EOS and not sampling.ignore_eos):
        assert joined == text
        assert not any(stop in text for stop in sampling.stop)
    elif finish == "stop":
        assert any(text[len(joined) :].startswith(stop) for stop in sampling.stop)
        assert not any(stop in joined for stop in sampling.stop)
    else:
        assert text.startswith(joined)


@settings(deadline=None)
@given(sampling=SAMPLING, parts=TEXTS, cut=st.integers(0, 20))
def test_visible_tokens_rebuild_the_state(sampling: Sampling, parts: list[str], cut: int) -> None:
    """A second worker that pushes the visible tokens again goes on with the very same pieces."""
    ids = encode("".join(parts))
    pieces, finish = play(sampling, ids)
    resumed = Answer(DETOKENIZER, sampling, (EOS,))
    visible, rest = ids[:cut], ids[cut:]
    again = [resumed.push(token) for token in visible[: len(pieces)]]
    again += [resumed.push(token) for token in rest[: len(pieces) - len(again)]]
    assert (again, resumed.finish) == (pieces, finish)


def test_nothing_can_be_pushed_behind_the_end() -> None:
    """A token after the end is a bug of the caller."""
    answer = Answer(DETOKENIZER, Sampling(max_tokens=1), ())
    answer.push(0)
    with pytest.raises(ValueError, match="has ended"):
        answer.push(0)
