"""Recording: texts, greedy or sampled with a seed, and at each position the full draft tree.

The tree of most levels contains the tree of every smaller number of levels, and the text itself is
what the target would have said, so one record serves every (levels, size) exactly. One causal pass
over a text gives the draft's state of all prefixes; the trees are then grown side by side.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import PairConfig
from ltd_jax.cycle import expand, step
from ltd_jax.cycle import prefill as prefills
from ltd_jax.cycle.step import PlainState
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.files import UserError
from ltd_jax.models import draft, layers, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.pair import Pair, PairParams
from ltd_jax.models.target import TargetParams
from ltd_jax.policies.policy import constant
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace

POSITIONS_AT_ONCE = 64
TEXTS_AT_ONCE = 16
_CONTROLLER = constant()  # its state is empty; prefill only needs that


class Prompt(NamedTuple):
    """One prompt and the index of its task."""

    token: np.ndarray  # [T] i32
    task: int


@struct.dataclass
class TextStates:
    """What one pass over a text leaves, for all of its prefixes; S = context."""

    hidden: jax.Array  # [S, E] the draft's output after each prefix
    cache: KVCache  # the draft's, of all true rows
    entropy: jax.Array  # [S] f32 nats, of the target's distribution after each prefix


@struct.dataclass
class Roots:
    """What was drafted at P positions."""

    tree: DraftTree  # [P, ...]
    entropy: jax.Array  # [P, D, W] f32 nats, of the draft's distribution at each row
    hidden: jax.Array | None  # [P, D, W, E] f16, the draft's outputs; None = not asked for
    root_entropy: jax.Array  # [P] f32 nats, of the target's distribution the root came from


def texts_of(pair: Pair, prompts: Sequence[np.ndarray], new_tokens: int) -> list[np.ndarray]:
    """Each prompt's continuation, up to a stop token or `new_tokens`; all side by side."""
    for prompt_T in prompts:
        prefills.check_room(pair, len(prompt_T), new_tokens)
    states = [step.plain_of(prefills.prefill(pair, _CONTROLLER, each_T)) for each_T in prompts]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    tokens = _continue(pair.params.target, pair.config, batch, new_tokens)
    return [_until_stop(row, pair.stop_tokens) for row in np.asarray(tokens)]


@functools.partial(jax.jit, static_argnames=("pair", "new_tokens"))
def _continue(
    params: TargetParams, pair: PairConfig, states: PlainState, new_tokens: int
) -> jax.Array:
    """Tokens [B, new_tokens] i32; the first ones are the roots."""
    advance = jax.vmap(lambda state: step.plain(params, pair, state))
    next_token = lambda states, _: (advance(states), states.root)
    return jax.lax.scan(next_token, states, None, length=new_tokens)[1].T


def _until_stop(tokens: np.ndarray, stop_tokens: tuple[int, ...]) -> np.ndarray:
    stops = np.flatnonzero(np.isin(tokens, stop_tokens))
    return tokens[: stops[0] + 1] if len(stops) else tokens


def record_text(
    pair: Pair,
    prompt: Prompt,
    text_T: np.ndarray,
    provenance: dict[str, Any],
    with_hidden: bool = False,
) -> Trace | None:
    """All positions of one text where a cycle can start; None where there is none."""
    count, config = len(text_T) - 1, pair.config.cycle
    if count < 1:
        return None
    tokens_S = np.zeros(config.context, np.int32)
    whole = np.concatenate([prompt.token, text_T])
    tokens_S[: len(whole)] = whole
    states = _text_states(pair.params, pair.config, jnp.asarray(tokens_S))
    length_P = len(prompt.token) + np.arange(count, dtype=np.int32)
    pieces = [
        _drafted(
            pair.params, pair.config, states, jnp.asarray(_padded(length_P, start)), with_hidden
        )
        for start in range(0, count, POSITIONS_AT_ONCE)
    ]
    roots: Any = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *pieces)
    ahead = np.arange(count)[:, None] + 1 + np.arange(config.max_levels)[None, :]
    inside = ahead < len(text_T)
    return Trace(
        score=roots.tree.score,
        token=roots.tree.token,
        parent=roots.tree.parent,
        continuation=np.where(inside, text_T[np.minimum(ahead, count)], -1).astype(np.int32),
        remaining=np.arange(count, 0, -1, dtype=np.int32),
        length=length_P,
        text=np.zeros(count, np.int32),
        task=np.full(count, prompt.task, np.int32),
        entropy=roots.entropy,
        root_entropy=roots.root_entropy,
        provenance=provenance,
        hidden=roots.hidden,
    )


def _padded(length_P: np.ndarray, start: int) -> np.ndarray:
    piece = length_P[start : start + POSITIONS_AT_ONCE]
    return np.pad(piece, (0, POSITIONS_AT_ONCE - len(piece)), mode="edge")


@functools.partial(jax.jit, static_argnames="pair")
def _text_states(params: PairParams, pair: PairConfig, tokens_S: jax.Array) -> TextStates:
    """One causal pass of target and draft over a text.

    Row i of the draft reads token i + 1 and the target's feature of position i, as in live
    decoding.
    """
    S = tokens_S.shape[0]
    logits_SX, feature_SE, _ = target.forward(
        params.target,
        pair.target,
        tokens_S,
        jnp.arange(S),
        jnp.tril(jnp.ones((S, S), bool)),
        None,
    )
    hidden_SE, cache = expand.causal_pass(
        params.draft,
        pair,
        jnp.roll(tokens_S, -1),
        draft.fuse(params.draft, pair.draft, feature_SE),
        jnp.int32(S),
        draft.empty_cache(pair.draft, S, feature_SE.dtype),
    )
    return TextStates(hidden_SE, cache, layers.entropy(jax.nn.log_softmax(logits_SX)))


@functools.partial(jax.jit, static_argnames=("pair", "with_hidden"))
def _drafted(
    params: PairParams,
    pair: PairConfig,
    states: TextStates,
    length_P: jax.Array,
    with_hidden: bool,
) -> Roots:
    """Full trees of roots at positions `length_P`, each seeing only what is before it."""

    def grow(length: jax.Array) -> Roots:
        before = states.cache.replace(length=length)
        grown = expand.full_expansion(params.draft, pair, states.hidden[length - 1], before)
        hidden = grown.hidden.astype(jnp.float16) if with_hidden else None
        return Roots(grown.tree, grown.entropy, hidden, states.entropy[length - 1])

    return jax.vmap(grow)(length_P)


def record(
    pair: Pair,
    prompts: Sequence[Prompt],
    new_tokens: int,
    provenance: dict[str, Any],
    parts: Path | None = None,
    progress: Callable[[int], None] = lambda texts: None,
    with_hidden: bool = False,
) -> Trace:
    """Records all prompts; with a folder `parts`, what an interrupted run recorded is kept there.

    Args:
      provenance: must hold "tasks" (names by index) and "fingerprint" (of the weights).
      progress: called with the number of texts that are done.
      with_hidden: also keep the draft's outputs, for classifiers that read them; they need
        2 * D * W * E bytes per position.

    Raises:
      UserError: a prompt does not fit, `parts` cannot be written or belongs to another recording,
        or all texts end with their first token.
    """
    recorded = []
    for start in range(0, len(prompts), TEXTS_AT_ONCE):
        path = None if parts is None else parts / f"texts-{start:05d}.npz"
        wanted = (pair.config.cycle, provenance, with_hidden)
        part = None if path is None else traces.read_part(path, *wanted)
        if part is None:
            batch = prompts[start : start + TEXTS_AT_ONCE]
            part = _record_batch(pair, batch, new_tokens, provenance, with_hidden)
            if path is not None and part is not None:
                traces.save(part, path)
        recorded += [] if part is None else [part]
        progress(min(start + TEXTS_AT_ONCE, len(prompts)))
    if not recorded:
        raise UserError("All texts end with their first token; ask other questions or try --style.")
    return traces.concatenate(recorded)


def _record_batch(
    pair: Pair,
    prompts: Sequence[Prompt],
    new_tokens: int,
    provenance: dict[str, Any],
    with_hidden: bool,
) -> Trace | None:
    """The traces of some texts as one; None where all end with their first token."""
    texts = texts_of(pair, [prompt.token for prompt in prompts], new_tokens)
    found = [
        record_text(pair, prompt, text_T, provenance, with_hidden)
        for prompt, text_T in zip(prompts, texts, strict=True)
    ]
    longer = [trace for trace in found if trace is not None]
    return traces.concatenate(longer) if longer else None
