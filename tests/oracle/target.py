"""The target in numpy: a Llama decoder without a cache; every call reads the whole text again."""

import numpy as np

from tests.oracle import layer


def forward(weights, config, tokens, positions, visible):
    """Logits [T, X] and features [T, 3E]: the streams entering layers 2, n // 2 and n - 3."""
    stream, streams = weights.embedding[np.asarray(tokens)], []
    for one in weights.layers:
        streams.append(stream)
        rows = layer.rms_norm(stream, one.input_norm, config.rms_norm_eps)
        stream = stream + layer.attend(rows, one, config, positions, visible)
        rows = layer.rms_norm(stream, one.post_attention_norm, config.rms_norm_eps)
        stream = stream + layer.feed_forward(rows, one)
    count = len(streams)
    features = np.concatenate([streams[i] for i in (2, count // 2, count - 3)], axis=1)
    return layer.rms_norm(stream, weights.norm, config.rms_norm_eps) @ weights.head, features


def read(weights, config, text):
    """Logits and features of a plain text."""
    count = len(text)
    return forward(weights, config, text, np.arange(count), np.tri(count, dtype=bool))


def continuation(weights, config, prompt, count):
    """The next `count` tokens, each the most probable one."""
    text = list(prompt)
    for _ in range(count):
        text.append(int(read(weights, config, text)[0][-1].argmax()))
    return text[len(prompt) :]
