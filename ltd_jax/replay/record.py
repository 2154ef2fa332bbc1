"""Recording: texts, greedy or sampled with a seed, and at each position the full draft tree.

The tree of most levels contains the tree of every smaller number of levels, and the text itself is
what the target would have said, so one record serves every (levels, size) exactly. One causal pass
over a text gives the draft's state of all prefixes; the trees are then grown side by side.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import describe_sampling
from ltd_jax.cycle import expand, step
from ltd_jax.cycle.prefill import check_room, check_tokens, prefill
from ltd_jax.cycle.step import PlainState
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.files import UserError, require_finite, user_errors
from ltd_jax.models import layers, target
from ltd_jax.models import pair as pairs
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.pair import AnyPrompt, Model, Pair
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace

POSITIONS_AT_ONCE = 64
TEXTS_AT_ONCE = 16
LEAST_ROOM = 128  # tokens that a compiled pass over a text has room for, and
ROOMS = 4  # at most so many of them are compiled for a context


class Prompt(NamedTuple):
    """One prompt and the index of its task."""

    token: np.ndarray  # [T] i32
    task: int


def record(
    pair: Pair,
    prompts: Sequence[Prompt | AnyPrompt],
    new_tokens: int,
    provenance: dict[str, Any] | None = None,
    *,
    parts: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
    with_hidden: bool = False,
) -> Trace:
    """Decodes prompts and records what every (levels, size) would accept along their texts.

    Args:
      prompts: with their tasks; or texts, conversations or token ids, which are one task.
      new_tokens: most tokens of a text.
      provenance: as `provenance_of` says it, which it is by default; must hold "tasks" (names by
        index) and "fingerprint" (of the weights).
      parts: a folder where what is recorded is kept at once, for an interrupted run to go on from;
        the caller deletes it when the trace is saved.
      progress: called with the share that is done.
      with_hidden: also keep the draft's outputs, for classifiers that read them; they need
        2 * D * W * E bytes per position.

    Raises:
      UserError: a prompt does not fit, `parts` cannot be written or belongs to another recording,
        all texts end with their first token, or what a model says is NaN or infinite.

    Example:
      >>> import ltd_jax as ltd
      >>> trace = ltd.record(ltd.load(), ["import os"], new_tokens=8)
      >>> trace.tokens_left.tolist()
      [7, 6, 5, 4, 3, 2, 1]
    """
    pairs.require_draft(pair)
    tasked = [with_task(pair, prompt) for prompt in prompts]
    if provenance is None:
        provenance = provenance_of(pair, tasked, new_tokens, tasks=["all"])
    recorded, at_once = [], side_by_side(len(tasked))
    for start in range(0, len(tasked), at_once):
        path, part = None, None
        if parts is not None:
            path = parts / f"texts-{start:05d}.npz"
            part = traces.load_part(path, provenance, pair.config.cycle, with_hidden=with_hidden)
        if part is None:
            batch = tasked[start : start + at_once]
            with user_errors(
                f"Recording prompts {start + 1} to {start + len(batch)}", name_all=True
            ):
                tokens = [prompt.token for prompt in batch]
                texts = texts_of(pair, tokens, new_tokens, at_once)
                part = _record_texts(pair, batch, texts, provenance, with_hidden=with_hidden)
            if path is not None and part is not None:
                traces.save(part, path)
        recorded += [] if part is None else [part]
        progress(min(start + at_once, len(tasked)) / len(tasked))
    if not recorded:
        raise UserError(
            "All texts end with their first token; ask other questions or another `style`."
        )
    return traces.concatenate(recorded)


def provenance_of(
    pair: Pair, prompts: Sequence[Prompt], new_tokens: int, *, tasks: Sequence[str]
) -> dict[str, Any]:
    """The provenance of a recording, JSON."""
    return pair.environment | {
        "tasks": list(tasks),
        "fingerprint": pair.fingerprint,
        "prompts": digest(prompts),
        "new_tokens": new_tokens,
        "sampling": describe_sampling(pair.config.sampling, pair.seed),
    }


def digest(prompts: Sequence[Prompt]) -> str:
    """12 hex digits that name a list of prompts and which of them belong to one task."""
    parts = [prompt.token.tobytes() + prompt.task.to_bytes(4, "little") for prompt in prompts]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def with_task(pair: Pair, prompt: Prompt | AnyPrompt) -> Prompt:
    """The prompt as token ids; of the first task where it does not name one."""
    if isinstance(prompt, Prompt):
        return prompt
    return Prompt(pairs.token_ids(pair, prompt), task=0)


def side_by_side(texts: int) -> int:
    """Of so many texts, those that are decoded at once: batches as equal as can be."""
    return -(-texts // max(-(-texts // TEXTS_AT_ONCE), 1))


def _record_texts(
    pair: Pair,
    prompts: Sequence[Prompt],
    texts: Sequence[np.ndarray],
    provenance: dict[str, Any],
    *,
    with_hidden: bool,
) -> Trace | None:
    """The traces of some texts as one; None where all end with their first token."""
    recorded = [
        record_text(pair, prompt, text_T, provenance, with_hidden=with_hidden)
        for prompt, text_T in zip(prompts, texts, strict=True)
    ]
    with_positions = [trace for trace in recorded if trace is not None]
    return traces.concatenate(with_positions) if with_positions else None


def texts_of(
    pair: Pair, prompts: Sequence[np.ndarray], new_tokens: int, at_once: int | None = None
) -> list[np.ndarray]:
    """Each prompt's continuation, up to a stop token or `new_tokens`; all side by side.

    Args:
      at_once: texts that the program is compiled for, where there are fewer; None = as many.

    Raises:
      UserError: a prompt does not fit, or the target's logits are no finite numbers.
    """
    for prompt_T in prompts:
        check_room(pair, len(prompt_T), new_tokens)
    states = [step.plain_of(prefill(pair, prompt_T)) for prompt_T in prompts]
    states += states[:1] * ((at_once or 0) - len(prompts))
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    tokens = np.asarray(_continue(pair.model, batch, new_tokens))[: len(prompts)]
    texts = [_until_stop(row, pair.stop_tokens) for row in tokens]
    for text_T in texts:
        check_tokens(pair, text_T.tolist())
    return texts


@functools.partial(jax.jit, static_argnames="new_tokens")
def _continue(model: Model, states: PlainState, new_tokens: int) -> jax.Array:
    """Tokens [B, new_tokens] i32; the first ones are the roots."""
    advance = jax.vmap(lambda state: step.plain(model, state))
    next_token = lambda states, _: (advance(states), states.root)
    return jax.lax.scan(next_token, states, None, length=new_tokens)[1].T


def _until_stop(tokens: np.ndarray, stop_tokens: tuple[int, ...]) -> np.ndarray:
    stops = np.flatnonzero(np.isin(tokens, stop_tokens))
    return tokens[: stops[0] + 1] if len(stops) else tokens


@struct.dataclass
class TextStates:
    """The state of all prefixes of a text, from one pass over it; S = its room."""

    hidden: jax.Array  # [S, E] the draft's output after each prefix
    cache: KVCache  # the draft's, of all true rows
    entropy: jax.Array  # [S] f32 nats, of the target's distribution after each prefix


@struct.dataclass
class Roots:
    """Trees drafted at P positions, and what goes with them."""

    tree: DraftTree  # [P, ...]
    entropy: jax.Array  # [P, D, W] f32 nats, of the draft's distribution at each row
    hidden: jax.Array | None  # [P, D, W, E] f16, the draft's outputs; None = not asked for
    root_entropy: jax.Array  # [P] f32 nats, of the target's distribution the root came from


def record_text(
    pair: Pair,
    prompt: Prompt,
    text_T: np.ndarray,
    provenance: dict[str, Any],
    *,
    with_hidden: bool = False,
) -> Trace | None:
    """All positions of one text where a cycle can start; None where there is none.

    Raises:
      UserError: what a model says there is NaN or infinite.
    """
    count, config = len(text_T) - 1, pair.config.cycle
    if count < 1:
        return None
    whole = np.concatenate([prompt.token, text_T])
    tokens_S = np.zeros(room_for(len(whole), config.context), np.int32)
    tokens_S[: len(whole)] = whole
    states = _text_states(pair.model, jnp.asarray(tokens_S), jnp.int32(len(prompt.token)))
    length_P = len(prompt.token) + np.arange(count, dtype=np.int32)
    draft_at = functools.partial(_draft, pair.model, states, with_hidden=with_hidden)
    roots = traces.by_chunks(draft_at, POSITIONS_AT_ONCE, length_P)
    _require_finite(pair, roots)
    ahead = np.arange(count)[:, None] + 1 + np.arange(config.max_levels)[None, :]
    inside = ahead < len(text_T)
    return Trace(
        log_prob=roots.tree.log_prob,
        token=roots.tree.token,
        parent=roots.tree.parent,
        continuation=np.where(inside, text_T[np.minimum(ahead, count)], -1).astype(np.int32),
        tokens_left=np.arange(count, 0, -1, dtype=np.int32),
        length=length_P,
        text=np.zeros(count, np.int32),
        task=np.full(count, prompt.task, np.int32),
        entropy=roots.entropy,
        root_entropy=roots.root_entropy,
        provenance=provenance,
        hidden=roots.hidden,
    )


def room_for(tokens: int, context: int) -> int:
    """The length of the pass over a text: few lengths, so that few programs are compiled.

    A multiple of a quarter of the context, or of `LEAST_ROOM` where that is more.
    """
    step = max(-(-context // ROOMS), LEAST_ROOM)
    return min(-(-tokens // step) * step, context)


def _require_finite(pair: Pair, roots: Roots) -> None:
    """Raises UserError where a model's numbers are NaN or infinite, by their place [P, D, W, W]."""
    log_prob = np.where(roots.tree.log_prob == -np.inf, 0, roots.tree.log_prob)  # -inf = no node
    target_name, draft_name = pair.names
    numbers = {
        f"entropy of {target_name}": roots.root_entropy,
        f"log_prob of {draft_name}": log_prob,
        f"entropy of {draft_name}": roots.entropy,
        f"output of {draft_name} in float16": roots.hidden,
    }
    what = f"The pair cannot be recorded in {np.dtype(pair.dtype).name}"
    require_finite(what, numbers, remedy="give another `dtype`, or check its weights")


@jax.jit
def _text_states(model: Model, tokens_S: jax.Array, prompt: jax.Array) -> TextStates:
    """One causal pass of target and draft over a text.

    Row i of the draft reads token i + 1 and the target's feature of position i, as in live
    decoding.
    """
    config, S = model.config, tokens_S.shape[0]
    logits_SX, feature_SE, _ = target.causal_forward(
        model.target, config.target, tokens_S, None, prompt
    )
    hidden_SE, rows = expand.causal_rows(model, jnp.roll(tokens_S, -1), feature_SE, None)
    cache = KVCache(rows.keys, rows.values, jnp.int32(S))
    return TextStates(hidden_SE, cache, layers.entropy(jax.nn.log_softmax(logits_SX)))


@functools.partial(jax.jit, static_argnames="with_hidden")
def _draft(model: Model, states: TextStates, length_P: jax.Array, with_hidden: bool) -> Roots:
    """Full trees of roots at positions `length_P`, each seeing only what is before it."""

    def grow(length: jax.Array) -> Roots:
        before = states.cache.replace(length=length)
        hidden_E = states.hidden[length - 1]
        expansion = expand.full_expansion(model, hidden_E, before)
        hidden = expansion.hidden.astype(jnp.float16) if with_hidden else None
        return Roots(expansion.tree, expansion.entropy, hidden, states.entropy[length - 1])

    return jax.vmap(grow)(length_P)
