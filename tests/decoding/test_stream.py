"""Streaming shows the text that decoding all tokens at once gives, characters never in halves."""

import pytest

from ltd_jax import prompts
from ltd_jax.cycle.pair import ASSETS
from ltd_jax.decoding.stream import TextStream

TOKENIZER = prompts.load_tokenizer(ASSETS / "target")


@pytest.mark.parametrize(
    "text", ["def f(x):\n    return x\n", "naïve – Größe 漢字 🎈 end", "a", " b  c"]
)
@pytest.mark.parametrize("step", [1, 2, 5])
def test_pieces_are_the_text(text, step):
    tokens = TOKENIZER.encode(text).ids
    stream = TextStream(TOKENIZER)
    pieces = [stream.add(tuple(tokens[i : i + step])) for i in range(0, len(tokens), step)]
    assert "".join(pieces) + stream.end() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_character_cut_off_is_shown_at_the_end():
    tokens = TOKENIZER.encode("ok 漢").ids
    stream = TextStream(TOKENIZER)
    shown = stream.add(tuple(tokens[:-1]))
    assert shown.startswith("ok") and "漢" not in shown
    assert (shown + stream.end()).startswith(shown)
