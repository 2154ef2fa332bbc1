"""Training the compared classifiers: binary cross-entropy with AdamW, and how good they are.

Features are standardised for training; the scale is folded into the first layer afterwards, so that
decoding pays nothing for it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from ltd_jax.config import HeadConfig
from ltd_jax.learning.examples import Examples, balanced
from ltd_jax.policies.networks import output


class Quality(NamedTuple):
    """Of a classifier on examples that it was not trained on."""

    auc: float  # chance that a yes is ranked above a no; 0.5 = chance
    balanced_accuracy: float  # mean of both labels' shares found, at 0.5; 0.5 = chance
    examples: int
    positives: float  # share


def fit(network: nn.Module, examples: Examples, config: HeadConfig, seed: int) -> Any:
    """Linen variables of a network, trained on as many yes as no.

    Raises:
      UserError: all labels are the same.
    """
    chosen = balanced(examples, config.examples, seed)
    mean, scale = chosen.feature.mean(axis=0), chosen.feature.std(axis=0) + 1e-6
    feature = jnp.asarray((chosen.feature - mean) / scale, jnp.float32)
    label = jnp.asarray(chosen.label, jnp.float32)
    key_init, key_order = jax.random.split(jax.random.key(seed))
    variables = network.init(key_init, feature[0])
    trained = _train(network, config, variables, feature, label, key_order)
    return jax.device_get(folded(trained, mean, scale))


@functools.partial(jax.jit, static_argnames=("network", "config"))
def _train(
    network: nn.Module,
    config: HeadConfig,
    variables: Any,
    feature: jax.Array,
    label: jax.Array,
    key: jax.Array,
) -> Any:
    """All epochs; what does not fill a batch waits for the next order."""
    batch = min(config.batch, label.shape[0])
    batches = label.shape[0] // batch
    optimiser = optax.adamw(config.learning_rate)

    def loss(variables: Any, rows: jax.Array) -> jax.Array:
        logits = output(network, variables, feature[rows])
        return optax.sigmoid_binary_cross_entropy(logits, label[rows]).mean()

    def step(carry, rows):
        variables, state = carry
        gradient = jax.grad(loss)(variables, rows)
        change, state = optimiser.update(gradient, state, variables)
        return (optax.apply_updates(variables, change), state), None

    def epoch(carry, key):
        order = jax.random.permutation(key, label.shape[0])[: batches * batch]
        return jax.lax.scan(step, carry, order.reshape(batches, batch))

    start = (variables, optimiser.init(variables))
    (variables, _), _ = jax.lax.scan(epoch, start, jax.random.split(key, config.epochs))
    return variables


def folded(variables: Any, mean: np.ndarray, scale: np.ndarray) -> Any:
    """The same network for features that are not standardised."""
    layers = dict(variables["params"])
    for name, layer in layers.items():
        if layer["kernel"].shape[0] == len(mean) and name != last_layer(layers):
            kernel = layer["kernel"] / scale[:, None]
            layers[name] = {"kernel": kernel, "bias": layer["bias"] - mean @ kernel}
    return {"params": layers}


def last_layer(layers: Any) -> str:
    """The name of a network's last layer."""
    return max(layers, key=lambda name: int(name.rsplit("_", 1)[1]))


def quality(network: nn.Module, variables: Any, examples: Examples) -> Quality:
    """How well a classifier tells yes from no, on examples as they come."""
    logits = np.concatenate(
        [
            np.asarray(output(network, variables, jnp.asarray(part)))
            for part in np.array_split(examples.feature, max(len(examples.label) // 65536, 1))
        ]
    )
    found, label = logits > 0, examples.label
    accuracy = (found[label].mean() + (~found[~label]).mean()) / 2
    return Quality(auc(logits, label), float(accuracy), len(label), float(label.mean()))


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a yes scores above a no; ties count half."""
    values, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[place]  # mean rank of equal scores, from 1
    yes = int(label.sum())
    no = len(label) - yes
    return float((rank[label].sum() - yes * (yes + 1) / 2) / (yes * no))
