"""Examples for the compared classifiers from recorded traces: features as decoding sees them.

A trace holds the full tree of most levels at every position, so no label is cut short by a setting
that was decoded with. A label is left out where the text ends before it is known.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.errors import UserError
from ltd_jax.policies import classifiers
from ltd_jax.policies.controller import LevelView
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace


@struct.dataclass
class Examples:
    """Of one classifier (numpy, on the host)."""

    feature: np.ndarray  # [examples, O] f32
    label: np.ndarray  # [examples] bool


def disco(trace: Trace) -> Examples:
    """One per position and level but the last: does an accepted path reach beyond the level?"""
    path_PD = traces.agreeing_path(trace)
    levels = path_PD.shape[1]
    feature = np.asarray(_disco_features(trace.score, trace.entropy))[:, : levels - 1]
    known_PD = trace.continuation[:, 1:] >= 0
    label_PD = path_PD[:, 1:] != traces.NO_NODE
    return Examples(feature[known_PD], label_PD[known_PD])


def specdec(trace: Trace) -> Examples:
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


def c2t(trace: Trace) -> Examples:
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
