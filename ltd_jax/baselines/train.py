"""Training what the compared methods need: examples, classifiers, the calibration of the draft.

In go traces; out come `Classifiers`.

A trace holds the full tree of most levels at every position, so no label is cut short by a setting
that was decoded with. A label is left out where the text ends before it is known. Classifiers learn
by binary cross-entropy with AdamW from as many yes as no; features are standardised for training,
and the scale is folded into the first layer afterwards, so that decoding pays nothing for it. The
calibration says that a node at a level is accepted with its path probability to a power, one power
per level, so the order of the nodes within a level stays.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from ltd_jax.baselines import classifiers
from ltd_jax.baselines.classifiers import Classifiers
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError, require_finite
from ltd_jax.policies.networks import layers_of, output
from ltd_jax.policies.policy import NO_NODE
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace

POWERS = np.geomspace(0.25, 4.0, 81)  # of the calibration
MOST_POSITIONS = 2000  # that a calibration is fitted to
BINS = 10
LEAST_CHANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """One classifier's training: binary cross-entropy, AdamW, as many yes as no (Sec. 5)."""

    width: int
    epochs: int
    learning_rate: float
    batch: int = 256
    examples: int = 200_000  # at most, after balancing


@struct.dataclass
class Examples:
    """Of one classifier (numpy, on the host)."""

    feature: np.ndarray  # [examples, O] f32
    label: np.ndarray  # [examples] bool


class Quality(NamedTuple):
    """Of a classifier on examples that it was not trained on."""

    auc: float | None  # chance that a yes is ranked above a no; 0.5 = chance
    balanced_accuracy: float | None  # mean of both labels' shares found, at 0.5; 0.5 = chance
    examples: int
    positives: float  # share; where it is 0 or 1 there is nothing to tell apart, and both are None


def train_classifiers(
    train: Trace,
    validation: Trace,
    config: CycleConfig,
    *,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Classifiers:
    """Trains all three and calibrates the draft; says in the provenance how good they are.

    Args:
      train: with the draft's outputs, as is `validation`, which the quality is measured on.
      config: the cycle that both were recorded with.

    Raises:
      UserError: a text is too short to tell yes from no, or the outputs were not recorded.
    """
    for trace in (train, validation):
        traces.check(trace, config)
    networks: dict[str, Any] = {}
    quality = {}
    for done, name in enumerate(classifiers.NETWORKS, 1):
        examples = EXAMPLES[name](train)
        head = head_config(name, examples.feature.shape[-1])
        network = classifiers.NETWORKS[name](head.width)
        networks[name] = fit_classifier(network, examples, head, seed)
        checked = EXAMPLES[name](validation)
        quality[name] = classifier_quality(network, networks[name], checked)._asdict()
        progress(done / len(classifiers.NETWORKS))
    power_D = fit_calibration(train, seed)
    before, after = (
        calibration_error(validation, power, seed) for power in (np.ones_like(power_D), power_D)
    )
    recorded = {key: train.provenance.get(key) for key in ("prompts", "new_tokens", "date")}
    provenance = {
        "fingerprint": train.provenance.get("fingerprint"),
        "quality": quality,
        "calibration_error": {"before": before, "after": after},
        "recorded": recorded,
    }
    return Classifiers(networks, power_D, config, provenance)


def head_config(name: str, inputs: int) -> HeadConfig:
    """How a classifier of so many inputs is trained in LTD's comparison; C2T as in its own paper.

    SpecDec++'s head has a quarter of the draft's width, 1024 of 4096.
    """
    heads = {
        "disco": HeadConfig(width=128, epochs=50, learning_rate=1e-4),
        "specdec": HeadConfig(width=max(inputs // 4, 1), epochs=5, learning_rate=1e-4),
        "c2t": HeadConfig(width=48, epochs=10, learning_rate=1e-3, batch=1024),
    }
    return heads[name]


def disco_examples(trace: Trace) -> Examples:
    """One per position and level but the last: does an accepted path reach beyond the level?"""
    path_PD = traces.agreeing_path(trace)
    levels = path_PD.shape[1]
    feature = _by_level(classifiers.disco_features, trace)[:, : levels - 1]
    known_PD = trace.continuation[:, 1:] >= 0
    label_PD = path_PD[:, 1:] != traces.NO_NODE
    return Examples(feature[known_PD], label_PD[known_PD])


def specdec_examples(trace: Trace) -> Examples:
    """One per row whose node has an accepted parent: is the node accepted?

    Raises:
      UserError: the trace was recorded without the draft's outputs.
    """
    if trace.hidden is None:
        raise UserError("The trace holds no outputs of the draft; record it with `with_hidden`.")
    path_PD = traces.agreeing_path(trace)
    width = trace.parent.shape[2]
    on_path_PDW = np.zeros(trace.parent.shape, bool)
    on_path_PDW[:, 0, 0] = True  # the root's row
    above_PDW = path_PD[:, :-1, None]
    on_path_PDW[:, 1:] = (trace.parent[:, 1:] == above_PDW) & (above_PDW != traces.NO_NODE)
    slot_PDW = trace.parent[:, 1:] // width
    asked_PDW = np.take_along_axis(on_path_PDW[:, :-1], slot_PDW, axis=2)
    asked_PDW &= (trace.continuation[:, :-1] >= 0)[:, :, None]
    hidden = trace.hidden[:, 1:][asked_PDW].astype(np.float32)
    return Examples(hidden, on_path_PDW[:, 1:][asked_PDW])


def c2t_examples(trace: Trace) -> Examples:
    """One per node: is it accepted?"""
    feature = _by_level(classifiers.node_features, trace)
    is_known, label = node_labels(trace)
    return Examples(feature[is_known], label[is_known])


EXAMPLES = {"disco": disco_examples, "specdec": specdec_examples, "c2t": c2t_examples}


def node_labels(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Of every node slot [P, D, W, W] bool: is its label known, and is it accepted?"""
    path_PD = traces.agreeing_path(trace)
    known_PD = trace.continuation >= 0
    index_WW = np.arange(trace.log_prob[0, 0].size).reshape(trace.log_prob.shape[2:])
    label = path_PD[:, :, None, None] == index_WW
    return (trace.log_prob > NO_NODE) & known_PD[:, :, None, None], label


def _by_level(features: Callable[..., jax.Array], trace: Trace) -> np.ndarray:
    """What a classifier reads at every position and level [P, D, ...] of a trace."""
    level_D = jnp.arange(1, trace.log_prob.shape[1] + 1)
    by_position = jax.vmap(jax.vmap(features), in_axes=(0, 0, None))
    return np.asarray(jax.jit(by_position)(trace.log_prob, trace.entropy, level_D))


def balanced(examples: Examples, most: int, seed: int) -> Examples:
    """As many yes as no, drawn without repetition, at most `most` in all.

    Raises:
      UserError: all labels are the same.
    """
    random = np.random.default_rng(seed)
    yes, no = np.flatnonzero(examples.label), np.flatnonzero(~examples.label)
    count = min(len(yes), len(no), most // 2)
    if count == 0:
        raise UserError("All examples have the same label; record more or longer texts.")
    rows = np.concatenate([random.choice(rows, count, replace=False) for rows in (yes, no)])
    rows = random.permutation(rows)
    return Examples(examples.feature[rows], examples.label[rows])


def fit_classifier(network: nn.Module, examples: Examples, config: HeadConfig, seed: int) -> Any:
    """Linen variables of a network, trained on as many yes as no.

    Raises:
      UserError: all labels are the same, or what was learned is NaN or infinite.
    """
    chosen = balanced(examples, config.examples, seed)
    mean, scale = chosen.feature.mean(axis=0), chosen.feature.std(axis=0) + 1e-6
    feature = jnp.asarray((chosen.feature - mean) / scale, jnp.float32)
    label = jnp.asarray(chosen.label, jnp.float32)
    key_init, key_order = jax.random.split(jax.random.key(seed))
    variables = network.init(key_init, feature[0])
    trained = _train(network, config, variables, feature, label, key_order)
    learned = jax.device_get(folded(trained, mean, scale))
    what = "A classifier has gone wrong in training"
    require_finite(what, learned, remedy="record the trace again, or learn more slowly")
    return learned


@partial(jax.jit, static_argnames=("network", "config"))
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

    shuffle = partial(jax.random.permutation, x=label.shape[0])
    order = jax.vmap(shuffle)(jax.random.split(key, config.epochs))[:, : batches * batch]
    start = (variables, optimiser.init(variables))
    return jax.lax.scan(step, start, order.reshape(-1, batch))[0][0]


def folded(variables: Any, mean: np.ndarray, scale: np.ndarray) -> Any:
    """The same network for features that are not standardised."""
    layers, last = dict(variables["params"]), layers_of(variables)[-1]
    for name, layer in layers.items():
        if layer["kernel"].shape[0] == len(mean) and name != last:
            kernel = layer["kernel"] / scale[:, None]
            layers[name] = {"kernel": kernel, "bias": layer["bias"] - mean @ kernel}
    return {"params": layers}


def classifier_quality(network: nn.Module, variables: Any, examples: Examples) -> Quality:
    """How well a classifier tells yes from no, on examples as they come."""
    logits = np.concatenate(
        [
            np.asarray(output(network, variables, jnp.asarray(part)))
            for part in np.array_split(examples.feature, max(len(examples.label) // 65536, 1))
        ]
    )
    says_yes, label = logits > 0, examples.label
    if label.all() or not label.any():
        return Quality(None, None, len(label), float(label.any()))
    accuracy = (says_yes[label].mean() + (~says_yes[~label]).mean()) / 2
    return Quality(auc(logits, label), float(accuracy), len(label), float(label.mean()))


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a yes scores above a no; ties count half."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[place]  # mean rank of equal scores, from 1
    yes = int(label.sum())
    no = len(label) - yes
    return float((rank[label].sum() - yes * (yes + 1) / 2) / (yes * no))


def fit_calibration(trace: Trace, seed: int = 0) -> np.ndarray:
    """The power of every level, f32 [D], by cross-entropy; 1 where a level has no node."""
    by_level = _nodes_by_level(trace, seed)
    return np.asarray([best_power(log_prob, label) for log_prob, label in by_level], np.float32)


def calibration_error(trace: Trace, power_D: np.ndarray, seed: int = 0) -> float:
    """Expected calibration error: mean over nodes of |said - happened| of their tenth."""
    by_level = _nodes_by_level(trace, seed)
    said = np.concatenate(
        [np.exp(power * log_prob) for power, (log_prob, _) in zip(power_D, by_level, strict=True)]
    )
    happened = np.concatenate([label for _, label in by_level])
    tenth = np.minimum((said * BINS).astype(int), BINS - 1)
    count = np.bincount(tenth, minlength=BINS)
    gap = np.bincount(tenth, said, BINS) - np.bincount(tenth, happened, BINS)
    return float(np.abs(gap).sum() / count.sum())


def best_power(log_prob: np.ndarray, label: np.ndarray) -> float:
    """The power of `POWERS` under which some nodes' labels are likeliest."""
    if not len(log_prob):
        return 1.0
    losses = []
    for power in POWERS:
        chance = np.clip(np.exp(power * log_prob), LEAST_CHANCE, 1 - LEAST_CHANCE)
        losses.append(-np.where(label, np.log(chance), np.log1p(-chance)).mean())
    return float(POWERS[int(np.argmin(losses))])


def _nodes_by_level(trace: Trace, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per level: log-probabilities of its nodes and whether they are accepted."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(trace.length))[:MOST_POSITIONS])
    known, label = (block[rows] for block in node_labels(trace))
    log_prob = trace.log_prob[rows]
    return [
        (log_prob[:, level][known[:, level]].astype(np.float64), label[:, level][known[:, level]])
        for level in range(log_prob.shape[1])
    ]
