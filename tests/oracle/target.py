"""The target in numpy: a Llama decoder without a cache; every call reads the whole text again."""

import numpy as np

from tests.oracle import layer


def forward(weights, config, tokens, positions, visible):
    """Logits [T, X] and features: the streams entering some layers, or the last norm's output."""
    stream, streams = weights.embedding[np.asarray(tokens)], []
    for index, one in enumerate(weights.layers):
        streams.append(stream)
        rows = layer.rms_norm(stream, one.input_norm, config.rms_norm_eps)
        stream = stream + layer.attend(rows, one, config, positions, visible, index)
        rows = layer.rms_norm(stream, one.post_attention_norm, config.rms_norm_eps)
        stream = stream + layer.feed_forward(rows, one)
    streams.append(stream)
    last = layer.rms_norm(stream, weights.norm, config.rms_norm_eps)
    head = weights.embedding.T if weights.head is None else weights.head
    features = [streams[index] for index in config.feature_layers] or [last]
    return last @ head, np.concatenate(features, axis=1)


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
