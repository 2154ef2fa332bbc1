"""The EAGLE-3 draft in numpy, without a cache: every call reads all entries again."""

import numpy as np

from tests.oracle import layer


def forward(weights, config, tokens, features, positions, visible):
    """Outputs [T, E] as the next level reads them."""
    eps = config.rms_norm_eps
    embedded = layer.rms_norm(weights.embedding[np.asarray(tokens)], weights.input_norm, eps)
    normed = layer.rms_norm(features, weights.hidden_norm, eps)
    rows = np.concatenate([embedded, normed], axis=1)
    residual = normed if config.norm_before_residual else features
    hidden = residual + layer.attend(rows, weights, config, positions, visible)
    rows = layer.rms_norm(hidden, weights.post_attention_norm, eps)
    hidden = hidden + layer.feed_forward(rows, weights)
    for index, one in enumerate(weights.further):
        rows = layer.rms_norm(hidden, one.input_norm, eps)
        hidden = hidden + layer.attend(rows, one, config, positions, visible, index + 1)
        rows = layer.rms_norm(hidden, one.post_attention_norm, eps)
        hidden = hidden + layer.feed_forward(rows, one)
    return layer.rms_norm(hidden, weights.norm, eps) if config.norm_output else hidden


def fuse(weights, config, features):
    """The target's features as the draft's."""
    size, eps = config.target_hidden_size, config.rms_norm_eps
    if config.norm_before_fc:
        features = layer.rms_norm(features, weights.fuse_norms[0], eps)
    if config.norm_each_feature:
        parts = [features[:, i * size : (i + 1) * size] for i in range(config.feature_count)]
        normed = [layer.rms_norm(part, weights.fuse_norms[i], eps) for i, part in enumerate(parts)]
        features = np.concatenate(normed, axis=1)
    return features @ weights.fuse + (0 if weights.fuse_bias is None else weights.fuse_bias)


def log_probs(weights, config, hidden):
    """Log-probabilities over the draft's own vocabulary."""
    normed = layer.rms_norm(hidden, weights.norm, config.rms_norm_eps)
    head = weights.embedding.T if weights.head is None else weights.head
    logits = (hidden if config.norm_output else normed) @ head
    peak = logits.max(-1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True))


class Reader:
    """The draft's entries of one cycle: a chain of committed ones, then a tree's."""

    def __init__(self, weights, config, text, features):
        """`text` ends with the root; entry i is token i + 1 with the feature of token i."""
        self.weights, self.config = weights, config
        self.tokens, self.features = (
            list(text[1:]),
            list(self.fuse(features[: len(text) - 1])),
        )
        self.chain = len(self.tokens)
        self.seen = [set(range(entry + 1)) for entry in range(self.chain)]
        self.positions = list(range(self.chain))

    def add(self, token, feature, round_, ancestors):
        """One tree entry; `ancestors` are entries of the tree. Returns its number."""
        entry = len(self.tokens)
        self.tokens.append(token)
        self.features.append(feature)
        self.positions.append(self.chain + round_)
        self.seen.append(set(range(self.chain)) | set(ancestors) | {entry})
        return entry

    def outputs(self):
        """Outputs of all entries."""
        count = len(self.tokens)
        visible = np.array([[one in seen for one in range(count)] for seen in self.seen])
        features, positions = np.array(self.features), np.array(self.positions)
        return self.forward(features, positions, visible)

    def fuse(self, features):
        return fuse(self.weights, self.config, features)

    def forward(self, features, positions, visible):
        return forward(self.weights, self.config, self.tokens, features, positions, visible)

    def log_probs(self, output):
        return log_probs(self.weights, self.config, output[None])[0]
