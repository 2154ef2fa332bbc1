"""Examples for the compared classifiers from recorded traces: features as decoding sees them.

A trace holds the full tree of most levels at every position, so no label is cut short by a setting
that was decoded with. A label is left out where the text ends before it is known.
"""
# DOC """Calibration of the draft: a node at a level is accepted with probability score ** power.
# DOC
# DOC One power per level; the order of the nodes within a level stays. Fitted by binary cross-entropy
# DOC over all nodes of a trace.
# DOC """
# DOC """Training the compared classifiers: binary cross-entropy with AdamW, and how good they are.
# DOC
# DOC Features are standardised for training; the scale is folded into the first layer afterwards, so that
# DOC decoding pays nothing for it.
# DOC """
# DOC """Training the compared classifiers for a pair: record, fit, judge on other texts, save."""
# DOC """Tuning the compared methods: settings tried on a replay, all with the same budget."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from ltd_jax import presets
from ltd_jax.baselines import catalogue, classifiers
from ltd_jax.baselines.catalogue import Family, Setting
from ltd_jax.baselines.classifiers import Parts
from ltd_jax.config import CycleConfig, HeadConfig
from ltd_jax.files import UserError
from ltd_jax.policies.networks import output
from ltd_jax.policies.policy import Controller, LevelView
from ltd_jax.replay import profile, simulate
from ltd_jax.replay import trace as traces
from ltd_jax.replay.profile import Overhead
from ltd_jax.replay.simulate import Simulator
from ltd_jax.replay.trace import Trace


@struct.dataclass
class Examples:
    """Of one classifier (numpy, on the host)."""

    feature: np.ndarray  # [examples, O] f32
    label: np.ndarray  # [examples] bool


def disco_examples(trace: Trace) -> Examples:
    """One per position and level but the last: does an accepted path reach beyond the level?"""
    path_PD = traces.agreeing_path(trace)
    levels = path_PD.shape[1]
    feature = np.asarray(_disco_features(trace.score, trace.entropy))[:, : levels - 1]
    known_PD = trace.continuation[:, 1:] >= 0
    label_PD = path_PD[:, 1:] != traces.NO_NODE
    return Examples(feature[known_PD], label_PD[known_PD])


def specdec_examples(trace: Trace) -> Examples:
    """One per row whose node has an accepted parent: is the node accepted?

    Raises:
      UserError: the trace was recorded without the draft's outputs.
    """
    if trace.hidden is None:
        raise UserError("The trace holds no outputs of the draft; record it anew in another --out.")
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
    feature = np.asarray(_node_features(trace.score, trace.entropy))
    asked, label = nodes(trace)
    return Examples(feature[asked], label[asked])


def nodes(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Of every node slot [P, D, W, W] bool: is its label known, and is it accepted?"""
    path_PD = traces.agreeing_path(trace)
    known_PD = trace.continuation >= 0
    index_WW = np.arange(trace.score[0, 0].size).reshape(trace.score.shape[2:])
    label = path_PD[:, :, None, None] == index_WW
    return (trace.score > -np.inf) & known_PD[:, :, None, None], label


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


@jax.jit
@partial(jax.vmap, in_axes=(0, 0))
def _disco_features(score_DWW: jax.Array, entropy_DW: jax.Array) -> jax.Array:
    return jax.vmap(lambda *row: classifiers.disco_features(_view(*row)))(
        score_DWW, entropy_DW, jnp.arange(1, score_DWW.shape[0] + 1)
    )


@jax.jit
@partial(jax.vmap, in_axes=(0, 0))
def _node_features(score_DWW: jax.Array, entropy_DW: jax.Array) -> jax.Array:
    levels_D = jnp.arange(1, score_DWW.shape[0] + 1)
    return jax.vmap(classifiers.node_features)(score_DWW, entropy_DW, levels_D)


def _view(score_WW: jax.Array, entropy_W: jax.Array, levels: jax.Array) -> LevelView:
    """A level's view of which only these fields are read."""
    width = score_WW.shape[0]
    none = jnp.float32(0)
    parent_W = jnp.zeros(width, jnp.int32)
    return LevelView(score_WW, levels, levels, entropy_W, jnp.zeros((width, 0)), none, parent_W)


POWERS = np.geomspace(0.25, 4.0, 81)
MOST_POSITIONS = 2000
BINS = 10
LEAST = 1e-6


def fit_calibration(trace: Trace, seed: int = 0) -> np.ndarray:
    """The power of every level, f32 [D]; 1 where a level has no node."""
    parts = _by_level(trace, seed)
    return np.asarray([_best_power(*part) for part in parts], np.float32)


def expected_error(trace: Trace, power_D: np.ndarray, seed: int = 0) -> float:
    """Expected calibration error: mean over nodes of |said - happened| of their tenth."""
    parts = _by_level(trace, seed)
    said = np.concatenate([np.exp(p * score) for p, (score, _) in zip(power_D, parts, strict=True)])
    happened = np.concatenate([label for _, label in parts])
    tenth = np.minimum((said * BINS).astype(int), BINS - 1)
    count = np.bincount(tenth, minlength=BINS)
    gap = np.bincount(tenth, said, BINS) - np.bincount(tenth, happened, BINS)
    return float(np.abs(gap).sum() / count.sum())


def _by_level(trace: Trace, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per level: scores of its nodes and whether they are accepted."""
    count = len(trace.remaining)
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(count)[:MOST_POSITIONS])
    known, label = (block[rows] for block in nodes(trace))
    score = trace.score[rows]
    return [
        (score[:, level][known[:, level]].astype(np.float64), label[:, level][known[:, level]])
        for level in range(score.shape[1])
    ]


def _best_power(score: np.ndarray, label: np.ndarray) -> float:
    if not len(score):
        return 1.0
    losses = []
    for power in POWERS:
        chance = np.clip(np.exp(power * score), LEAST, 1 - LEAST)
        losses.append(-np.where(label, np.log(chance), np.log1p(-chance)).mean())
    return float(POWERS[int(np.argmin(losses))])


class Quality(NamedTuple):
    """Of a classifier on examples that it was not trained on."""

    auc: float  # chance that a yes is ranked above a no; 0.5 = chance
    balanced_accuracy: float  # mean of both labels' shares found, at 0.5; 0.5 = chance
    examples: int
    positives: float  # share


def fit_classifier(network: nn.Module, examples: Examples, config: HeadConfig, seed: int) -> Any:
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


def classifier_quality(network: nn.Module, variables: Any, examples: Examples) -> Quality:
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


NAMES = ("disco", "specdec", "c2t")


def head_configs(hidden_size: int) -> dict[str, HeadConfig]:
    """How each classifier is trained, for a draft's width."""
    return {
        "disco": presets.DISCO,
        "specdec": presets.specdec(hidden_size),
        "c2t": presets.C2T,
    }


def examples_of(name: str, trace: Trace) -> Examples:
    """A classifier's examples in a trace."""
    make = {"disco": disco_examples, "specdec": specdec_examples, "c2t": c2t_examples}
    return make[name](trace)


class Tuned(NamedTuple):
    """A method at one setting, and what the replay that it was tried on predicts."""

    family: Family
    setting: Setting
    controller: Controller
    params: Any
    overhead: Overhead
    tokens_per_second: float


def at_published(
    replay: Simulator,
    config: CycleConfig,
    family: Family,
    parts: Parts,
    own: Callable[[str, Controller, Any], Overhead],
) -> Tuned:
    """A method at its published setting.

    Args:
      own: what the decisions of a method cost, by its name, controller and parameters.
    """
    setting = family.published(config)
    controller, params = family.build(config, setting, parts)
    cost = own(family.name, controller, params)
    rate = _rate(profile.with_overhead(replay, cost), config, controller, params)
    return Tuned(family, setting, controller, params, cost, float(rate))


def tune(replay: Simulator, config: CycleConfig, first: Tuned, parts: Parts) -> Tuned:
    """The best of a method's grid by throughput; of equal ones the first.

    Args:
      first: the method at its published setting, whose own time all settings share.
    """
    family = first.family
    settings = [first.setting | given for given in family.grid(config)]
    if len(settings) > catalogue.BUDGET:
        raise ValueError(f"{family.name} has a grid of {len(settings)} settings.")
    if not settings:
        return first
    priced = profile.with_overhead(replay, first.overhead)
    made = [family.build(config, setting, parts) for setting in settings]
    controller = made[0][0]
    rates = [float(_rate(priced, config, controller, params)) for _, params in made]
    chosen = int(np.argmax(rates))
    found = (settings[chosen], controller, made[chosen][1], first.overhead, rates[chosen])
    return Tuned(family, *found)


def _rate(replay: Simulator, config: CycleConfig, controller: Controller, params: Any) -> jax.Array:
    return simulate.throughput(simulate.run(replay, config, controller, params, learned=True))
