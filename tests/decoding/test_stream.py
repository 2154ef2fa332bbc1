"""Streaming shows the text that decoding all tokens at once gives, characters never in halves."""

import random

import pytest

from ltd_jax import text as texts
from ltd_jax.files import ASSETS
from ltd_jax.text import UNKNOWN, WINDOW, TextStream
from tests.models.golden import chats

TOKENIZERS = {
    "embedded": texts.load_tokenizer(ASSETS / "target"),
    "Llama's pieces": chats.llama(),
    "bytes": chats.byte_level("<s>", "</s>"),
}
LONG = "naïve – Größe 漢字 🎈 end\n" * WINDOW


def streamed(tokenizer, tokens, steps):
    """The pieces of an answer whose tokens come in bursts, and what comes at its end."""
    shown, pieces, at = TextStream(tokenizer), [], 0
    while at < len(tokens):
        step = next(steps)
        pieces.append(shown.add(tuple(tokens[at : at + step])))
        at += step
    return pieces, shown.end()


def every(step):
    while True:
        yield step


def drawn(seed):
    numbers = random.Random(seed)
    while True:
        yield numbers.randint(1, 9)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    "text",
    ["def f(x):\n    return x\n", "naïve – Größe 漢字 🎈 end", "a", " b  c", "", LONG],
    ids=["code", "letters", "a", "spaces", "nothing", "long"],
)
@pytest.mark.parametrize("steps", [every(1), every(2), every(5), drawn(0)])
def test_pieces_are_the_text(name, text, steps):
    tokenizer = TOKENIZERS[name]
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    pieces, end = streamed(tokenizer, tokens, steps)
    assert "".join(pieces) + end == tokenizer.decode(tokens)
    assert not any(UNKNOWN in piece for piece in pieces)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_cut_off_is_shown_at_the_end(name, cut):
    tokenizer = TOKENIZERS[name]
    tokens = tokenizer.encode("ok 🎈", add_special_tokens=False).ids[:-cut]
    pieces, end = streamed(tokenizer, tokens, every(3))
    assert "".join(pieces).rstrip() == "ok" and UNKNOWN not in "".join(pieces)
    assert "".join(pieces) + end == tokenizer.decode(tokens)
    assert end.strip(f" {UNKNOWN}") == "" and UNKNOWN in end


def test_what_was_shown_stays_where_later_bytes_spoil_it():
    """Llama's decoder gives up a whole run of bytes for one that makes no character."""
    tokenizer = TOKENIZERS["Llama's pieces"]
    tokens = [*tokenizer.encode("a漢", add_special_tokens=False).ids, 3 + 0xE6]
    assert tokenizer.decode(tokens) == "a" + 4 * UNKNOWN
    pieces, end = streamed(tokenizer, tokens, every(1))
    assert ("".join(pieces), end) == ("a漢", UNKNOWN)
    more = tokenizer.encode("b", add_special_tokens=False).ids[-1:]
    pieces, end = streamed(tokenizer, [*tokens, *more, *more], every(1))
    assert ("".join(pieces), end) == (f"a漢{UNKNOWN}bb", "")


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("seed", range(4))
def test_any_tokens_can_be_shown(name, seed):
    """Tokens that no text has, special ones among them: nothing raises, nothing whole is lost."""
    tokenizer, numbers = TOKENIZERS[name], random.Random(seed)
    count = tokenizer.get_vocab_size()
    tokens = [numbers.randrange(count) for _ in range(400)]
    pieces, end = streamed(tokenizer, tokens, drawn(seed))
    shown, whole = "".join(pieces) + end, tokenizer.decode(tokens)
    assert len(pieces) > 50 and sum(map(bool, pieces)) > 20
    if name != "Llama's pieces":
        assert shown == whole
    letters = iter(shown)  # bytes that a later one spoils stay, so there may be more
    assert all(letter in letters for letter in whole if letter.isalnum())


def test_a_real_unknown_character_is_shown():
    tokenizer = TOKENIZERS["bytes"]
    tokens = tokenizer.encode(f"a{UNKNOWN}").ids
    pieces, end = streamed(tokenizer, tokens, every(1))
    assert "".join(pieces) + end == f"a{UNKNOWN}"


def test_a_long_answer_is_not_decoded_anew_for_every_piece():
    tokenizer, most = TOKENIZERS["bytes"], 0
    shown = TextStream(tokenizer)
    for token in tokenizer.encode("x" * 1000).ids:
        shown.add((token,))
        most = max(most, len(shown.tokens) - shown.start)
    assert most <= WINDOW + 1
