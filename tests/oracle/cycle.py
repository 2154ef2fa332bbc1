"""One draft-and-verify round in numpy, from a text whose last token is the root."""

import numpy as np

from ltd_jax.config import GriffinConfig
from tests.oracle import draft, griffin, target, tree


def reader_of(both, config, text, features):
    """The draft behind a text whose last token is the root."""
    kind = griffin if isinstance(config.draft, GriffinConfig) else draft
    return kind.Reader(both.draft, config.draft, text, features)


def tree_pass(weights, config, before, chosen):
    """Target logits and features of the chosen nodes behind a text, in one pass."""
    start, count = len(before), len(chosen.token)
    visible = np.tri(start + count, dtype=bool)
    visible[start:, start:] = chosen.mask
    positions = np.array([*range(start), *(start + one for one in chosen.depth)])
    tokens = [*before, *chosen.token]
    logits, features = target.forward(weights, config, tokens, positions, visible)
    return logits[start:], features[start:]


def cycle(both, config, text, levels, size):
    """The text's next tokens (accepted ones, then the target's own) and the path's features."""
    features = target.read(both.target, config.target, text)[1]
    reader = reader_of(both, config, text, features)
    offsets = both.draft.target_token - np.arange(config.draft.draft_vocab_size)
    width = config.cycle.beam_width
    flat = tree.grow(reader, offsets, width, levels)
    chosen = tree.select(flat, text[-1], size, width)
    logits, features = tree_pass(both.target, config.target, text[:-1], chosen)
    path, following = tree.evaluate_posterior(
        chosen.token, chosen.parent, logits.argmax(-1).tolist()
    )
    return [chosen.token[node] for node in path[1:]] + [following], features[path]
