"""The compared methods that learn a classifier: Disco, SpecDec++ and C2T, as controllers.

Networks are small Linen modules over the features that `features` makes here, once, for training
and decoding alike. Their weights and thresholds are traced: one compiled cycle per method. Where
the sources leave a choice open it is ours and named in the docstring.

    Disco       the W best new probabilities, the entropy, the level   -> does one more level help?
    SpecDec++   the draft's output after a node                        -> is the node accepted?
    C2T         a node's path probability, entropy, level              -> is the node accepted?
"""
# DOC """Trained classifiers on disk, and the draft's calibration: right for one pair, on any device."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from ltd_jax import checkpoint
from ltd_jax.baselines.cost_aware import Costs
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.networks import output
from ltd_jax.policies.policy import Controller, LevelView, TreeView

LEVEL_SCALE = 10.0  # levels enter as level / 10 (LTD)
Aggregate = Literal["sum", "any"]


class Parts(NamedTuple):
    """What some methods need beside their numbers; None = not given."""

    heads: dict[str, Any] | None = None  # by classifier: Linen variables
    widths: dict[str, int] | None = None  # by classifier
    power: np.ndarray | None = None  # [D] calibration of path probabilities
    costs: Costs | None = None


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


@struct.dataclass
class DiscoParams:
    """Stop if the chance that one more level helps is below the threshold."""

    network: Any  # Linen variables of a `Perceptron`
    threshold: jax.Array  # f32 []
    most: jax.Array  # i32 [] levels
    size: jax.Array  # i32 [] index into config.sizes


@struct.dataclass
class SurvivalParams:
    """SpecDec++: stop if the chance that nothing drafted is accepted is above the threshold."""

    network: Any  # Linen variables of a `Residual`
    threshold: jax.Array  # f32 []
    least: jax.Array  # i32 [] levels
    most: jax.Array  # i32 []
    size: jax.Array  # i32 []


@struct.dataclass
class NodeParams:
    """C2T: nodes below the threshold, and all behind them, are left out."""

    network: Any  # Linen variables of a `Perceptron`
    threshold: jax.Array  # f32 []
    most_nodes: jax.Array  # i32 [] per level, the surest ones
    most: jax.Array  # i32 [] levels


def disco_features(view: LevelView) -> jax.Array:
    """f32 [W + 2]: the W best path probabilities of the newest level, falling; entropy; level."""
    width = view.score.shape[0]
    best_W = jax.lax.top_k(view.score.reshape(-1), width)[0]
    entropy = view.entropy[jnp.argmax(view.score) // width]
    scalars = jnp.stack([entropy, view.levels / LEVEL_SCALE]).astype(jnp.float32)
    return jnp.concatenate([jnp.exp(best_W), scalars])


@functools.cache
def disco(width: int) -> Controller:
    """Disco (arXiv 2405.04304) over a tree; params are `DiscoParams`.

    The question is put as "will any accepted path reach beyond the newest level?".
    """
    network = Perceptron(width)

    def keep_drafting(params: DiscoParams, state: tuple[()], view: LevelView) -> jax.Array:
        chance = jax.nn.sigmoid(output(network, params.network, disco_features(view)))
        return (view.levels < params.most) & (chance >= params.threshold)

    return Controller(
        init=lambda: (),
        keep_drafting=keep_drafting,
        choose_size=lambda params, state, view: params.size,
        update=lambda state, outcome: state,
    )


@functools.cache
def survival(config: CycleConfig, width: int, aggregate: Aggregate) -> Controller:
    """SpecDec++ (arXiv 2405.19715) over a tree; params are `SurvivalParams`.

    Row r of a level was drafted after reading a node of the level above; the head says whether that
    node is accepted if its parent is. The product along its path is the row's survival; at level 1
    all is the root's, which is never rejected.

      "sum": the drafted rows survive with min(1, sum of their survivals); with one row per level
             this is the paper's rule
      "any": stop unless some row's own chance is at least 1 - threshold (as LTD seems to have it)
    """
    network = Residual(width)

    def notice(params: SurvivalParams, state: jax.Array, view: LevelView) -> jax.Array:
        assert view.hidden is not None  # its examples have them
        hidden_WE = view.hidden.astype(jnp.float32)
        chance_W = jax.nn.sigmoid(output(network, params.network, hidden_WE))
        before_W = state[view.parent // config.beam_width] if aggregate == "sum" else 1.0
        root_W = jnp.zeros(config.beam_width, jnp.float32).at[0].set(1.0)
        return jnp.where(view.levels == 1, root_W, before_W * chance_W)

    def keep_drafting(params: SurvivalParams, state: jax.Array, view: LevelView) -> jax.Array:
        alive = state.sum() if aggregate == "sum" else state.max()
        stop = 1 - jnp.minimum(alive, 1.0) > params.threshold
        return (view.levels < params.most) & ((view.levels < params.least) | ~stop)

    return Controller(
        init=lambda: jnp.zeros(config.beam_width, jnp.float32),
        keep_drafting=keep_drafting,
        choose_size=lambda params, state, view: params.size,
        update=lambda state, outcome: state,
        notice=notice,
    )


def node_features(score_WW: jax.Array, entropy_W: jax.Array, levels: jax.Array) -> jax.Array:
    """f32 [W, W, 3] of a level's nodes: path probability, entropy of the row, level."""
    entropy_WW = jnp.broadcast_to(entropy_W[:, None], score_WW.shape)
    level_WW = jnp.full(score_WW.shape, levels / LEVEL_SCALE, jnp.float32)
    return jnp.stack([jnp.exp(score_WW), entropy_WW, level_WW], axis=-1)


@functools.cache
def node_classifier(config: CycleConfig, width: int) -> Controller:
    """C2T (arXiv 2502.13652): one verdict per node gives size, depth and topology.

    Drafting goes on while a node of the newest level survives, and all survivors are verified. The
    frontier is the decoder's: the W nodes of highest probability, where C2T's own takes survivors
    only; what is expanded behind a node that was left out is left out, too. Level 1 keeps its best.
    The state [D, W, W] bool says which nodes survive.
    """
    network = Perceptron(width)
    D, W = config.max_levels, config.beam_width

    def notice(params: NodeParams, state: jax.Array, view: LevelView) -> jax.Array:
        feature = node_features(view.score, view.entropy, view.levels)
        chance_WW = jax.nn.sigmoid(output(network, params.network, feature))
        above_N = state[jnp.maximum(view.levels - 2, 0)].reshape(-1)
        has_parent_W = (view.levels == 1) | above_N[view.parent]
        lives_WW = (view.score > -jnp.inf) & has_parent_W[:, None]
        lives_WW &= chance_WW >= params.threshold
        lives_WW &= _is_among_best(jnp.where(lives_WW, chance_WW, -1.0), params.most_nodes)
        forced_WW = jnp.zeros((W, W), bool).at[0, 0].set(view.levels == 1)
        later = jnp.arange(D)[:, None, None] >= view.levels  # of the cycle before
        return jnp.where(later, False, state).at[view.levels - 1].set(lives_WW | forced_WW)

    def keep_drafting(params: NodeParams, state: jax.Array, view: LevelView) -> jax.Array:
        return (view.levels < params.most) & jnp.any(state[view.levels - 1])

    def choose_size(params: NodeParams, state: jax.Array, view: TreeView) -> jax.Array:
        fitting = jnp.sum(jnp.asarray(config.sizes) < state.sum())
        return jnp.minimum(fitting, len(config.sizes) - 1).astype(jnp.int32)

    return Controller(
        init=lambda: jnp.zeros((D, W, W), bool),
        keep_drafting=keep_drafting,
        choose_size=choose_size,
        update=lambda state, outcome: state,
        notice=notice,
        rank=lambda params, state, view: jnp.where(state, view.score, -jnp.inf),
    )


def _is_among_best(chance_WW: jax.Array, most: jax.Array) -> jax.Array:
    """bool [W, W]: the `most` highest ones and what equals the last of them."""
    falling_N = jax.lax.top_k(chance_WW.reshape(-1), chance_WW.size)[0]
    return chance_WW >= falling_N[jnp.minimum(most, chance_WW.size) - 1]


AGAIN = "train them by experiments.train_classifiers."


@dataclasses.dataclass(frozen=True)
class SavedHeads:
    """What a folder holds."""

    folder: Path
    parts: Parts  # heads, widths and power
    provenance: dict[str, Any]


def head_network(name: str, width: int) -> nn.Module:
    """The network of a classifier: "disco", "specdec" or "c2t"."""
    return Residual(width) if name == "specdec" else Perceptron(width)


def feature_width(name: str, cycle: CycleConfig, hidden_size: int) -> int:
    """Length O of what a classifier reads."""
    return {"disco": cycle.beam_width + 2, "specdec": hidden_size, "c2t": 3}[name]


def save_heads(
    folder: Path, parts: Parts, cycle: CycleConfig, hidden_size: int, provenance: dict[str, Any]
) -> None:
    """Writes heads and calibration.

    Args:
      hidden_size: width of the draft's output.
      provenance: must hold "fingerprint" (of the weights).
    """
    shapes = {"cycle": dataclasses.asdict(cycle), "hidden": hidden_size, "widths": parts.widths}
    state = {"heads": parts.heads, "power": jnp.asarray(parts.power)}
    with checkpoint.manager(folder, keep=1) as checkpoints:
        step = (checkpoints.latest_step() or 0) + 1
        checkpoint.save(checkpoints, step, state, {**provenance, **shapes})


def load_heads(folder: Path) -> SavedHeads:
    """Reads the newest classifiers of a folder.

    Raises:
      UserError: there are none, or they are damaged or of another version.
    """
    if not folder.is_dir():
        raise UserError(f"There are no classifiers in {folder}; {AGAIN}")
    with checkpoint.manager(folder) as checkpoints:
        found = checkpoint.newest_provenance(checkpoints)
        if found is None:
            if checkpoints.all_steps():
                raise UserError(f"The classifiers in {folder} are damaged; {AGAIN}")
            raise UserError(f"There are no classifiers in {folder}; {AGAIN}")
        try:
            abstract = jax.eval_shape(lambda: _blank(found))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The classifiers in {folder} are of another version ({error}); {AGAIN}"
            ) from error
        restored = checkpoint.restore(checkpoints, abstract)
    assert restored is not None  # there was a provenance
    heads = checkpoint.unbound(restored.state["heads"])
    parts = Parts(heads, found["widths"], np.asarray(restored.state["power"]))
    return SavedHeads(folder, parts, found)


def cycle_of(heads: SavedHeads) -> CycleConfig:
    """The cycle that the classifiers were trained with."""
    return CycleConfig(**heads.provenance["cycle"])


def _blank(provenance: dict[str, Any]) -> dict[str, Any]:
    """Heads of the recorded shapes, with random weights."""
    cycle, hidden_size = CycleConfig(**provenance["cycle"]), provenance["hidden"]
    heads = {
        name: head_network(name, width).init(
            jax.random.key(0), jnp.zeros(feature_width(name, cycle, hidden_size))
        )
        for name, width in provenance["widths"].items()
    }
    return {"heads": heads, "power": jnp.zeros(cycle.max_levels)}


def check_heads(heads: SavedHeads, fingerprint: str, cycle: CycleConfig) -> None:
    """Raises UserError unless the classifiers belong to a pair and see trees of these shapes.

    Args:
      fingerprint: of the pair's weights.
    """
    trained = heads.provenance
    if trained.get("fingerprint") != fingerprint:
        raise UserError(
            f"The classifiers in {heads.folder} were trained for pair "
            f"{trained.get('fingerprint')}, not {fingerprint}; train them again for this one."
        )
    shapes = [(trained["cycle"][key], getattr(cycle, key)) for key in ("beam_width", "max_levels")]
    for there, here in shapes:
        if there != here:
            raise UserError(
                f"The classifiers in {heads.folder} were trained with beam width {shapes[0][0]} "
                f"and {shapes[1][0]} levels, not {shapes[0][1]} and {shapes[1][1]}; {AGAIN}"
            )
