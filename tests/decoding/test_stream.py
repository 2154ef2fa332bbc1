"""Streaming shows the text that decoding all tokens at once gives, characters never in halves."""

import pytest
from tokenizers.decoders import DecodeStream

from ltd_jax import text as texts
from ltd_jax.files import ASSETS
from ltd_jax.text import TextStream

TOKENIZER = texts.load_tokenizer(ASSETS / "target")


@pytest.mark.parametrize(
    "text", ["def f(x):\n    return x\n", "naïve – Größe 漢字 🎈 end", "a", " b  c"]
)
@pytest.mark.parametrize("step", [1, 2, 5])
def test_pieces_are_the_text(text, step):
    tokens = TOKENIZER.encode(text).ids
    shown = TextStream(TOKENIZER)
    pieces = [shown.add(tuple(tokens[i : i + step])) for i in range(0, len(tokens), step)]
    assert "".join(pieces) + shown.end() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_bytes_that_make_no_character_do_not_end_the_answer(monkeypatch):
    tokens, broken = TOKENIZER.encode("fine text").ids, []

    class Failing:
        def __init__(self, **flags):
            self.own = DecodeStream(**flags)

        def step(self, tokenizer, token):
            if token == tokens[1] and not broken:
                broken.append(token)
                raise Exception("Invalid prefix encountered while decoding stream.")
            return self.own.step(tokenizer, token)

    monkeypatch.setattr(texts, "DecodeStream", Failing)
    shown = TextStream(TOKENIZER)
    assert "".join([shown.add(tuple(tokens)), shown.end()]) == "fine text" and broken


def test_a_character_cut_off_is_shown_at_the_end():
    tokens = TOKENIZER.encode("ok 漢").ids
    answer = TextStream(TOKENIZER)
    shown = answer.add(tuple(tokens[:-1]))
    assert shown.startswith("ok") and "漢" not in shown
    assert (shown + answer.end()).startswith(shown)
