"""Acceptance of sampled tokens: down the verified tree as far as the draws lead (Sec. 3.2).

At every node the target says what comes next. A child with this token is accepted and the walk goes
on there; without such a child the token is committed and the walk ends. Two rules say how the token
is drawn. Both draw it from the target's own distribution, whatever children there are, so the
output is the target's for every tree that was built before the draws:

- `coupled` draws it as plain decoding would, with the random numbers of the position. The text is
  then plain decoding's, token by token, for every controller.
- `sequential` (EAGLE, LTD) tests the children one after another: child x is accepted with
  probability p[x], else p[x] := 0 and p is renormalised; if none is accepted, the token comes from
  what is left. Child x_i is reached with probability 1 - p[x_1] - .. - p[x_(i-1)] and then accepted
  with p[x_i] over the same number: p[x_i] in all.

A child x of k deterministic children therefore has the same chance under both, p[x], and a node is
reached with the product of the target's probabilities along its path.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PairConfig, SamplingConfig
from ltd_jax.cycle import sample
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.cycle.select import Candidates

NO_TOKEN = -1


@struct.dataclass
class ChildTokens:
    """The children of one node, best first; at most W of them."""

    token: jax.Array  # [W] i32
    present: jax.Array  # [W] bool


Draw = Callable[[jax.Array, ChildTokens, jax.Array, SamplingConfig], jax.Array]


@struct.dataclass
class SampledPath:
    """Where a walk has come to; rows of the path beyond `accepted` mean nothing."""

    path: jax.Array  # [D + 1] i32 candidate rows from the root to the last accepted node
    accepted: jax.Array  # i32 []
    next_token: jax.Array  # i32 [], the target's token behind the path
    sampling: SamplingState  # of the text with all of these
    going: jax.Array  # bool []


def accept_sampled(
    pair: PairConfig,
    candidates: Candidates,
    logits_TX: jax.Array,
    length: jax.Array,
    sampling: SamplingState,
    draw: Draw | None = None,
) -> SampledPath:
    """Walks one verified tree.

    Args:
      logits_TX: the target's, after each candidate row.
      length: i32, tokens before the root.
      sampling: of the text up to the root.
      draw: how the token behind a node is drawn; None = the rule of the pair's sampling.
    """
    rule = draw or (sequential if pair.sampling.rule == "sequential" else coupled)
    width = min(pair.cycle.beam_width, candidates.token.shape[0] - 1)

    def advance(walk: SampledPath) -> SampledPath:
        row = walk.path[walk.accepted]
        score_X = sample.process_logits(logits_TX[row], walk.sampling.seen, pair.sampling)
        key = jax.random.fold_in(walk.sampling.key, length + 1 + walk.accepted)
        token = rule(score_X, _child_tokens(candidates, row, width), key, pair.sampling)
        return _moved(walk, candidates, token)

    path = jnp.zeros((pair.cycle.path_length,), jnp.int32)
    start = SampledPath(path, jnp.int32(0), jnp.int32(NO_TOKEN), sampling, jnp.bool_(True))
    return jax.lax.while_loop(lambda walk: walk.going, advance, start)


def _is_child(candidates: Candidates, row: jax.Array) -> jax.Array:
    """bool [T], children of a row; the root, row 0, is nobody's."""
    below_T = jnp.arange(candidates.token.shape[0]) > 0
    return candidates.present & (candidates.parent == row) & below_T


def _child_tokens(candidates: Candidates, row: jax.Array, width: int) -> ChildTokens:
    is_child_T = _is_child(candidates, row)
    row_W = jnp.flatnonzero(is_child_T, size=width, fill_value=0)
    return ChildTokens(candidates.token[row_W], is_child_T[row_W])


def _moved(walk: SampledPath, candidates: Candidates, token: jax.Array) -> SampledPath:
    """One token on: to the child that has it, or to the end."""
    agrees_T = _is_child(candidates, walk.path[walk.accepted]) & (candidates.token == token)
    child = jnp.argmax(agrees_T).astype(jnp.int32)
    found = agrees_T[child]
    place = jnp.minimum(walk.accepted + 1, walk.path.shape[0] - 1)
    return SampledPath(
        path=jnp.where(found, walk.path.at[place].set(child), walk.path),
        accepted=walk.accepted + found,
        next_token=token,
        sampling=sample.mark_seen(walk.sampling, token[None], jnp.ones((1,), bool)),
        going=found,
    )


def coupled(
    score_X: jax.Array, children: ChildTokens, key: jax.Array, config: SamplingConfig
) -> jax.Array:
    """The token that plain decoding draws here."""
    return sample.draw(score_X, key, config)


@struct.dataclass
class _Tests:
    """Children tested so far."""

    tested: jax.Array  # i32 []
    token: jax.Array  # i32 [] the accepted child's, or NO_TOKEN
    left: jax.Array  # [X] f32, probabilities without the rejected ones; they sum to 1


def sequential(
    score_X: jax.Array, children: ChildTokens, key: jax.Array, config: SamplingConfig
) -> jax.Array:
    """The first child that passes its test, or a token of what the rejected ones leave.

    A test is `u < p` with u in [0, 1), so that a token of probability 0 never passes.
    """
    width = children.token.shape[0]
    if width == 0:
        return sample.draw(score_X, key, config)
    key_tests, key_rest = jax.random.split(key)
    uniform_W = jax.random.uniform(key_tests, (width,))

    def test(tests: _Tests) -> _Tests:
        token = children.token[tests.tested]
        without_X = tests.left.at[token].set(0.0)
        rest = jnp.sum(without_X)
        passes = (uniform_W[tests.tested] < tests.left[token]) | (rest == 0)
        return _Tests(
            tested=tests.tested + 1,
            token=jnp.where(passes, token, NO_TOKEN),
            left=jnp.where(passes, tests.left, without_X / jnp.where(rest == 0, 1.0, rest)),
        )

    count = jnp.sum(children.present)
    start = _Tests(jnp.int32(0), jnp.int32(NO_TOKEN), sample.probabilities(score_X))
    going = lambda tests: (tests.token == NO_TOKEN) & (tests.tested < count)
    tests = jax.lax.while_loop(going, test, start)
    rest = sample.draw(jnp.log(tests.left), key_rest, config)
    return jnp.where(tests.token == NO_TOKEN, rest, tests.token)
