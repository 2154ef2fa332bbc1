"""The compared methods that learn a classifier: Disco, SpecDec++ and C2T, as policies (Sec. 5).

Networks are small Linen modules over features that are made here, for training and decoding alike;
their weights are leaves. Where the sources leave a choice open it is ours and named in the
docstring.

    Disco       the W best new probabilities, the entropy, the level   -> does one more level help?
    SpecDec++   the draft's output after a node                        -> is the node accepted?
    C2T         a node's path probability, entropy, level              -> is the node accepted?

Trained ones are one safetensors file, right for one pair on any device:

    tensors    disco.Dense_0.kernel [in, out] f32 .., specdec.Dense_0 .., c2t.Dense_0 .., and
               power [D] f32, the calibration of the draft
    metadata   schema, digest (of the arrays), cycle (CycleConfig) and provenance, the last as JSON
"""

import dataclasses
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from ltd_jax.baselines.rules import FixedSize, best_row, frontier, require, scale_levels
from ltd_jax.config import CycleConfig
from ltd_jax.files import Identity, UserError, hashable_fields, require_same
from ltd_jax.policies import saved
from ltd_jax.policies.networks import check_inputs, layers_of, output
from ltd_jax.policies.policy import NO_NODE, LevelView, Policy, TreeView

LEVEL_SCALE = 10.0  # levels enter as level / 10 (LTD)


class Perceptron(nn.Module):
    """Linear, ReLU, Linear: f32 [..., O] -> logits f32 [...]."""

    width: int

    @nn.compact
    def __call__(self, feature: jax.Array) -> jax.Array:
        hidden = nn.relu(nn.Dense(self.width)(feature))
        return nn.Dense(1)(hidden)[..., 0]


class Residual(nn.Module):
    """LTD's head of SpecDec++: SiLU(Linear) + Linear, then Linear; f32 [..., E] -> logits [...]."""

    width: int

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        block = nn.silu(nn.Dense(self.width)(hidden)) + nn.Dense(self.width)(hidden)
        return nn.Dense(1)(block)[..., 0]


NETWORKS: dict[str, type[Perceptron] | type[Residual]] = {
    "disco": Perceptron,
    "specdec": Residual,
    "c2t": Perceptron,
}


def feature_width(name: str, config: CycleConfig, hidden_size: int) -> int:
    """Length O of what a classifier reads; `hidden_size` is the width of the draft's output."""
    return {"disco": config.beam_width + 2, "specdec": hidden_size, "c2t": 3}[name]


def chance(name: str, variables: Any, feature: jax.Array) -> jax.Array:
    """What a classifier says of features f32 [..., O]: probabilities f32 [...]."""
    width = variables["params"][layers_of(variables)[0]]["bias"].shape[0]
    return jax.nn.sigmoid(output(NETWORKS[name](width), variables, feature))


@struct.dataclass(kw_only=True)
class Disco(FixedSize):
    """Disco (arXiv 2405.04304) over a tree: stops where one more level is unlikely to help.

    The question is put as "will any accepted path reach beyond the newest level?".
    """

    network: Any  # Linen variables of a `Perceptron` over `disco_features`
    threshold: jax.Array | float = 0.5  # least chance to go on

    def check(self, config: CycleConfig) -> None:
        super().check(config)
        check_inputs("classifier disco", self.network, feature_width("disco", config, 0))

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        feature_O = disco_features(view.log_prob, view.entropy, view.levels)
        helps = chance("disco", self.network, feature_O)
        return (view.levels < self.most_levels) & (helps >= self.threshold)


def disco_features(log_prob_WW: jax.Array, entropy_W: jax.Array, levels: jax.Array) -> jax.Array:
    """f32 [W + 2]: the W best path probabilities of the newest level, falling; entropy; level."""
    scalars_2 = jnp.stack([entropy_W[best_row(log_prob_WW)], levels / LEVEL_SCALE])
    return jnp.concatenate([jnp.exp(frontier(log_prob_WW)), scalars_2.astype(jnp.float32)])


@struct.dataclass(kw_only=True)
class SpecDecPP(FixedSize):
    """SpecDec++ (arXiv 2405.19715) over a tree: stops where nothing drafted may be accepted.

    Row r of a level was drafted after reading a node of the level above; the network says whether
    that node is accepted if its parent is. The product along its path is the row's survival; at
    level 1 all is the root's, which is never rejected. The drafted rows survive with
    min(1, sum of their survivals); with one row per level this is the paper's rule.

    With `any_row` (as LTD seems to have it) drafting stops unless some row's own chance is at least
    1 - threshold. The history [W] f32 holds the rows' survivals, or chances.
    """

    network: Any  # Linen variables of a `Residual` over the draft's outputs
    threshold: jax.Array | float = 0.7  # most chance that nothing is accepted
    least_levels: jax.Array | int = 2
    any_row: jax.Array | bool = False

    @classmethod
    def published(cls, config: CycleConfig, **settings: Any) -> Self:
        """The paper's threshold and levels, with LTD's network."""
        return super().published(config, least_levels=scale_levels(2, config), **settings)

    def check(self, config: CycleConfig) -> None:
        super().check(config)
        require("least_levels", self.least_levels, least=0, most=config.max_levels, whole=True)

    def init_history(self, config: CycleConfig) -> jax.Array:
        return jnp.zeros(config.beam_width, jnp.float32)

    def observe_level(self, history: jax.Array, view: LevelView, config: CycleConfig) -> jax.Array:
        if view.hidden is None:
            raise UserError("The trace holds no outputs of the draft, which SpecDec++ reads.")
        chance_W = chance("specdec", self.network, view.hidden.astype(jnp.float32))
        before_W = jnp.where(self.any_row, 1.0, history[view.parent // config.beam_width])
        root_W = jnp.zeros(config.beam_width, jnp.float32).at[0].set(1.0)
        return jnp.where(view.levels == 1, root_W, before_W * chance_W)

    def keep_drafting(self, history: jax.Array, view: LevelView, config: CycleConfig) -> jax.Array:
        alive = jnp.where(self.any_row, history.max(), history.sum())
        stop = 1 - jnp.minimum(alive, 1.0) > self.threshold
        return (view.levels < self.most_levels) & ((view.levels < self.least_levels) | ~stop)


@struct.dataclass(kw_only=True)
class C2T(Policy):
    """C2T (arXiv 2502.13652): one verdict per node gives size, depth and topology.

    Nodes below the threshold, and all after them, are left out. Drafting goes on while a node of
    the newest level survives, and all survivors are verified. The frontier is the decoder's: the W
    nodes of highest probability, where C2T's own takes survivors only; what is expanded after a
    node that was left out is left out, too. Level 1 keeps its best. The history [D, W, W] bool says
    which nodes survive.
    """

    network: Any  # Linen variables of a `Perceptron` over `node_features`
    threshold: jax.Array | float = 0.5
    nodes: jax.Array | int = 15  # most per level, the surest ones
    most_levels: jax.Array | int = 10

    @classmethod
    def published(cls, config: CycleConfig, network: Any) -> Self:
        """Of its paper."""
        return cls(network=network, most_levels=scale_levels(10, config))

    def check(self, config: CycleConfig) -> None:
        require("most_levels", self.most_levels, least=1, most=config.max_levels, whole=True)
        require("nodes", self.nodes, least=1, whole=True)
        check_inputs("classifier c2t", self.network, feature_width("c2t", config, 0))

    def init_history(self, config: CycleConfig) -> jax.Array:
        return jnp.zeros((config.max_levels, config.beam_width, config.beam_width), bool)

    def observe_level(self, history: jax.Array, view: LevelView, config: CycleConfig) -> jax.Array:
        feature_WWO = node_features(view.log_prob, view.entropy, view.levels)
        chance_WW = chance("c2t", self.network, feature_WWO)
        above_N = history[jnp.maximum(view.levels - 2, 0)].reshape(-1)
        has_parent_W = (view.levels == 1) | above_N[view.parent]
        lives_WW = (view.log_prob > NO_NODE) & has_parent_W[:, None]
        lives_WW &= chance_WW >= self.threshold
        lives_WW &= _is_among_best(jnp.where(lives_WW, chance_WW, -1.0), self.nodes)
        forced_WW = jnp.zeros(lives_WW.shape, bool).at[0, 0].set(view.levels == 1)
        later = jnp.arange(config.max_levels)[:, None, None] >= view.levels  # of the cycle before
        return jnp.where(later, False, history).at[view.levels - 1].set(lives_WW | forced_WW)

    def keep_drafting(self, history: jax.Array, view: LevelView, config: CycleConfig) -> jax.Array:
        return (view.levels < self.most_levels) & jnp.any(history[view.levels - 1])

    def choose_size(self, history: jax.Array, view: TreeView, config: CycleConfig) -> jax.Array:
        smaller = jnp.sum(jnp.asarray(config.sizes) < history.sum())
        return jnp.minimum(smaller, len(config.sizes) - 1).astype(jnp.int32)

    def priority(self, history: jax.Array, view: TreeView, config: CycleConfig) -> jax.Array:
        return jnp.where(history, view.log_prob, NO_NODE)


def node_features(log_prob_WW: jax.Array, entropy_W: jax.Array, levels: jax.Array) -> jax.Array:
    """f32 [W, W, 3] of a level's nodes: path probability, entropy of the row, level."""
    entropy_WW = jnp.broadcast_to(entropy_W[:, None], log_prob_WW.shape)
    level_WW = jnp.full(log_prob_WW.shape, levels / LEVEL_SCALE, jnp.float32)
    return jnp.stack([jnp.exp(log_prob_WW), entropy_WW, level_WW], axis=-1)


def _is_among_best(chance_WW: jax.Array, most: jax.Array | int) -> jax.Array:
    """bool [W, W]: the `most` highest ones and what equals the last of them."""
    falling_N = jax.lax.top_k(chance_WW.reshape(-1), chance_WW.size)[0]
    return chance_WW >= falling_N[jnp.minimum(most, chance_WW.size) - 1]


@dataclasses.dataclass(frozen=True, eq=False)
class Classifiers:
    """Trained classifiers, and the calibration of the draft that they were trained for."""

    networks: dict[str, Any]  # Linen variables by the names of `NETWORKS`
    power: np.ndarray  # [D] f32: a node is accepted with probability exp(power * log_prob)
    cycle: CycleConfig  # that they were trained with
    provenance: dict[str, Any]  # JSON; "fingerprint" of the weights, quality ..
    path: Path | None = None  # of the file; None = not saved


def init(
    key: jax.Array, config: CycleConfig, hidden_size: int, width: int, provenance: dict[str, Any]
) -> Classifiers:
    """Random classifiers and a draft that is trusted; `hidden_size` as of `feature_width`."""
    networks = {
        name: kind(width).init(
            jax.random.fold_in(key, place), jnp.zeros(feature_width(name, config, hidden_size))
        )
        for place, (name, kind) in enumerate(NETWORKS.items())
    }
    return Classifiers(networks, np.ones(config.max_levels, np.float32), config, provenance)


def save(classifiers: Classifiers, path: Path | str) -> None:
    """Writes networks and calibration; a killed process leaves the old file or the new one.

    Raises:
      UserError: the file cannot be written.
    """
    networks = {name: variables["params"] for name, variables in classifiers.networks.items()}
    facts = {"cycle": classifiers.cycle, "provenance": classifiers.provenance}
    saved.write_tensors(Path(path), networks | {"power": classifiers.power}, facts)


def load(path: Path | str) -> Classifiers:
    """Reads a file that `save` wrote.

    Raises:
      UserError: it is missing, damaged, no such file or of another version.
    """
    path = Path(path)
    networks, facts = saved.read_tensors(path, "file of classifiers")
    with saved.another_version(path):
        power_D = np.asarray(networks.pop("power"))
        cycle, provenance = CycleConfig(**facts["cycle"]), dict(facts["provenance"])
    variables = {name: {"params": params} for name, params in networks.items()}
    return Classifiers(variables, power_D, cycle, provenance, path)


def check(classifiers: Classifiers, here: Identity) -> None:
    """Raises UserError unless classifiers belong to a pair and see trees of these shapes.

    Args:
      here: of the pair.
    """
    cycle = classifiers.cycle
    shapes = {"beam_width": cycle.beam_width, "max_levels": cycle.max_levels}
    there = Identity(pair=classifiers.provenance.get("fingerprint"), cycle=hashable_fields(shapes))
    what = f"The classifiers in {classifiers.path} were trained for"
    require_same(what, there, here, remedy=saved.AGAIN)
