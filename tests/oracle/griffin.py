"""The Griffin draft in numpy: one layer without a cache; every call reads all entries again."""

import numpy as np

from tests.oracle import draft, layer


def guided(weights, config, embedded, features):
    """Token-guided fusion, one row after the other."""
    rows = []
    for token, feature in zip(embedded, features, strict=True):
        fused = np.concatenate([token, feature]) @ weights.fuse + weights.fuse_bias
        normed = layer.rms_norm(fused[None], weights.fuse_norm, config.rms_norm_eps)[0]
        both = np.concatenate(
            [
                layer.rms_norm(x[None], weights.guide_norm, config.rms_norm_eps)[0]
                for x in (normed, token)
            ]
        )
        inner = both @ weights.guide_up
        rows.append(fused + (inner / (1 + np.exp(-inner))) @ weights.guide_down)
    return np.array(rows)


def forward(weights, config, tokens, features, positions, visible):
    """Outputs [T, 2E]: what the head reads, and what the next level reads."""
    embedded = weights.embedding[np.asarray(tokens)]
    stream = guided(weights, config, embedded, features)
    hidden = stream + layer.attend(stream, weights, config, positions, visible)
    rows = layer.rms_norm(hidden, weights.post_attention_norm, config.rms_norm_eps)
    added = layer.feed_forward(rows, weights)
    E = config.hidden_size
    return np.concatenate([hidden + added[:, :E], hidden + added[:, E:]], axis=1)


def log_probs(weights, config, hidden):
    """Log-probabilities over the target's vocabulary."""
    head = weights.embedding.T if weights.head is None else weights.head
    logits = hidden[:, : config.hidden_size] @ head
    peak = logits.max(-1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True))


class Reader(draft.Reader):
    """The draft's entries of one cycle; features of true entries are the target's last states."""

    def add(self, token, feature, round_, ancestors):
        return super().add(token, feature[self.config.hidden_size :], round_, ancestors)

    def fuse(self, features):
        return features

    def forward(self, features, positions, visible):
        return forward(self.weights, self.config, self.tokens, features, positions, visible)

    def log_probs(self, output):
        return log_probs(self.weights, self.config, output[None])[0]
