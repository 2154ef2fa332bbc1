"""Recording: greedy texts, and at each of their positions the full draft tree.

The tree of most levels contains the tree of every smaller number of levels, and the text itself is
what the target would have said, so one record serves every (levels, size) exactly. One causal pass
over a text gives the draft's state of all prefixes; the trees are then grown side by side.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PairConfig
from ltd_jax.cycle import expand, step
from ltd_jax.cycle import prefill as prefills
from ltd_jax.cycle.pair import Pair, PairParams
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.errors import UserError
from ltd_jax.models import draft, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.target import TargetParams
from ltd_jax.policies.controller import constant
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace

POSITIONS_AT_ONCE = 64
TEXTS_AT_ONCE = 16
_CONTROLLER = constant()  # its state is empty; prefill only needs that


class Prompt(NamedTuple):
    """One prompt and the index of its task."""

    token: np.ndarray  # [T] i32
    task: int


def greedy_texts(pair: Pair, prompts: Sequence[np.ndarray], new_tokens: int) -> list[np.ndarray]:
    """Each prompt's greedy continuation, up to a stop token or `new_tokens`; all side by side."""
    for prompt_T in prompts:
        prefills.check_room(pair, len(prompt_T), new_tokens)
    states = [prefills.prefill(pair, _CONTROLLER, prompt_T) for prompt_T in prompts]
    caches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s.target_cache for s in states])
    roots_B = jnp.stack([state.root for state in states])
    tokens = _continue(pair.params.target, pair.config, caches, roots_B, new_tokens)
    return [_until_stop(row, pair.stop_tokens) for row in np.asarray(tokens)]


@functools.partial(jax.jit, static_argnames=("pair", "new_tokens"))
def _continue(
    params: TargetParams, pair: PairConfig, caches: KVCache, roots_B: jax.Array, new_tokens: int
) -> jax.Array:
    """Greedy tokens [B, new_tokens] i32; the first ones are the roots."""
    advance = jax.vmap(lambda cache, root: step.plain(params, pair, cache, root))

    def next_token(carry, _):
        caches, roots_B = carry
        return advance(caches, roots_B), roots_B

    _, tokens = jax.lax.scan(next_token, (caches, roots_B), None, length=new_tokens)
    return tokens.T


def _until_stop(tokens: np.ndarray, stop_tokens: tuple[int, ...]) -> np.ndarray:
    stops = np.flatnonzero(np.isin(tokens, stop_tokens))
    return tokens[: stops[0] + 1] if len(stops) else tokens


def record_text(
    pair: Pair, prompt: Prompt, text_T: np.ndarray, provenance: dict[str, Any]
) -> Trace | None:
    """All positions of one greedy text where a cycle can start; None where there is none."""
    count, config = len(text_T) - 1, pair.config.cycle
    if count < 1:
        return None
    tokens_S = np.zeros(config.context, np.int32)
    whole = np.concatenate([prompt.token, text_T])
    tokens_S[: len(whole)] = whole
    hidden_SE, cache = _draft_states(pair.params, pair.config, jnp.asarray(tokens_S))
    length_P = len(prompt.token) + np.arange(count, dtype=np.int32)
    pieces = [
        _trees(pair.params, pair.config, hidden_SE, cache, jnp.asarray(_padded(length_P, start)))
        for start in range(0, count, POSITIONS_AT_ONCE)
    ]
    tree: DraftTree = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *pieces)
    ahead = np.arange(count)[:, None] + 1 + np.arange(config.max_levels)[None, :]
    inside = ahead < len(text_T)
    return Trace(
        score=tree.score,
        token=tree.token,
        parent=tree.parent,
        continuation=np.where(inside, text_T[np.minimum(ahead, count)], -1).astype(np.int32),
        remaining=np.arange(count, 0, -1, dtype=np.int32),
        length=length_P,
        text=np.zeros(count, np.int32),
        task=np.full(count, prompt.task, np.int32),
        provenance=provenance,
    )


def _padded(length_P: np.ndarray, start: int) -> np.ndarray:
    piece = length_P[start : start + POSITIONS_AT_ONCE]
    return np.pad(piece, (0, POSITIONS_AT_ONCE - len(piece)), mode="edge")


@functools.partial(jax.jit, static_argnames="pair")
def _draft_states(
    params: PairParams, pair: PairConfig, tokens_S: jax.Array
) -> tuple[jax.Array, KVCache]:
    """The draft's output [S, E] after every prefix of a text, and its cache of all true rows.

    Row i reads token i + 1 and the target's feature of position i, as in live decoding.
    """
    S = tokens_S.shape[0]
    _, feature_SE, _ = target.forward(
        params.target,
        pair.target,
        tokens_S,
        jnp.arange(S),
        jnp.tril(jnp.ones((S, S), bool)),
        None,
    )
    empty = draft.empty_cache(pair.draft, S, feature_SE.dtype)
    return expand.causal_pass(
        params.draft,
        pair,
        jnp.roll(tokens_S, -1),
        draft.fuse(params.draft, pair.draft, feature_SE),
        jnp.int32(S),
        empty,
    )


@functools.partial(jax.jit, static_argnames="pair")
def _trees(
    params: PairParams, pair: PairConfig, hidden_SE: jax.Array, cache: KVCache, length_P: jax.Array
) -> DraftTree:
    """Full trees [P, ...] of roots at positions `length_P`, each seeing only what is before it."""

    def grow(length: jax.Array) -> DraftTree:
        return expand.full_tree(
            params.draft, pair, hidden_SE[length - 1], cache.replace(length=length)
        )

    return jax.vmap(grow)(length_P)


def record(
    pair: Pair,
    prompts: Sequence[Prompt],
    new_tokens: int,
    provenance: dict[str, Any],
    parts: Path | None = None,
    progress: Callable[[int], None] = lambda texts: None,
) -> Trace:
    """Records all prompts; with a folder `parts`, what an interrupted run recorded is kept there.

    Args:
      provenance: must hold "tasks" (names by index) and "fingerprint" (of the weights).
      progress: called with the number of texts that are done.

    Raises:
      UserError: a prompt does not fit, `parts` cannot be written or belongs to another recording.
    """
    recorded = []
    for start in range(0, len(prompts), TEXTS_AT_ONCE):
        path = None if parts is None else parts / f"texts-{start:05d}.npz"
        part = None if path is None else _recorded(path, provenance)
        if part is None:
            batch = prompts[start : start + TEXTS_AT_ONCE]
            part = _record_batch(pair, batch, new_tokens, provenance)
            if path is not None:
                traces.save(part, path)
        recorded.append(part)
        progress(min(start + TEXTS_AT_ONCE, len(prompts)))
    return traces.concatenate(recorded)


def _recorded(path: Path, provenance: dict[str, Any]) -> Trace | None:
    """A part that an interrupted run left; None where there is none, or a damaged one.

    Raises:
      UserError: it belongs to another recording.
    """
    if not path.exists():
        return None
    try:
        part = traces.load(path)
    except UserError as error:
        warnings.warn(f"{error} It is recorded now.", stacklevel=2)
        return None
    for name in ("fingerprint", "prompts", "new_tokens", "dtype"):
        if part.provenance.get(name) != provenance.get(name):
            raise UserError(
                f"{path} was recorded with {name} {part.provenance.get(name)}, not "
                f"{provenance.get(name)}; delete {path.parent} or give another folder."
            )
    return part


def _record_batch(
    pair: Pair, prompts: Sequence[Prompt], new_tokens: int, provenance: dict[str, Any]
) -> Trace:
    texts = greedy_texts(pair, [prompt.token for prompt in prompts], new_tokens)
    found = [
        record_text(pair, prompt, text_T, provenance)
        for prompt, text_T in zip(prompts, texts, strict=True)
    ]
    return traces.concatenate([trace for trace in found if trace is not None])
