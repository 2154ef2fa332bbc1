"""Parts of a Llama layer in numpy, f64: no cache, no batching, one head at a time."""

import numpy as np


def rms_norm(rows, weight, eps):
    """Every row over its root mean square, times the weight."""
    return rows / np.sqrt((rows**2).mean(-1, keepdims=True) + eps) * weight


def rotate(head, positions, theta):
    """Rotary embedding: channels i and i + C/2 are a complex number, turned by position * rate."""
    half = head.shape[1] // 2
    rates = theta ** (-np.arange(half) / half)
    turned = (head[:, :half] + 1j * head[:, half:]) * np.exp(1j * np.outer(positions, rates))
    return np.concatenate([turned.real, turned.imag], axis=1)


def mapped(rows, weights, index):
    """Rows through the map of queries, keys or values, with its bias where there is one."""
    biases = getattr(weights, "qkv_bias", ())
    return rows @ weights.qkv[index] + (biases[index] if biases else 0)


def within(visible, positions, config, layer):
    """What is seen in a layer: of sliding layers only positions in the window."""
    if layer not in config.sliding_layers:
        return visible
    positions = np.asarray(positions)
    return visible & (positions[:, None] - positions[None, :] < config.sliding_window)


def attend(rows, weights, config, positions, visible, layer=0):
    """Attention of all rows to the rows they see; each group of query heads shares one kv head."""
    query, key, value = (mapped(rows, weights, index) for index in range(3))
    visible = within(visible, positions, config, layer)
    norms = getattr(weights, "qk_norms", ())
    if norms:
        query, key = (
            rms_norm(x.reshape(len(x), -1, config.head_dim), norm, config.rms_norm_eps).reshape(
                len(x), -1
            )
            for x, norm in zip((query, key), norms, strict=True)
        )
    width, group = config.head_dim, config.head_count // config.kv_head_count
    heads = []
    for index in range(config.head_count):
        own = slice(index * width, (index + 1) * width)
        shared = slice(index // group * width, (index // group + 1) * width)
        turned = rotate(query[:, own], positions, config.rope_theta)
        score = turned @ rotate(key[:, shared], positions, config.rope_theta).T / np.sqrt(width)
        score = np.where(visible, score, -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        heads.append(weight / weight.sum(-1, keepdims=True) @ value[:, shared])
    bias = getattr(weights, "o_bias", None)
    return np.concatenate(heads, axis=1) @ weights.o + (0 if bias is None else bias)


def feed_forward(rows, weights):
    """down(silu(gate) * up)."""
    gate, up = (rows @ weight for weight in weights.gate_up)
    return (gate / (1 + np.exp(-gate)) * up) @ weights.down
