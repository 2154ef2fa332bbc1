"""Random but valid traces and latency tables: beams as the draft grows them, and texts."""

import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.replay.latency import LatencyTable, additive
from ltd_jax.replay.trace import Trace

VOCABULARY = 20


def trace(
    config: CycleConfig,
    *,
    seed: int = 0,
    text_tokens: tuple[int, ...] = (9, 5, 12),
    agreement: float = 0.8,
    steps: tuple[float, ...] | None = None,
    absent: float = 0.0,
) -> Trace:
    """A trace of texts with `text_tokens` tokens after their first one; texts alternate two tasks.

    Args:
      agreement: chance that a node on the agreeing path has the next token among its children.
      steps: log-probabilities (<= 0) that children draw from; None = continuous. Few values, or
        zero among them, make ties, also between parents and children.
      absent: chance that a child is no node.
    """
    random = np.random.default_rng(seed)
    rows = [
        _position(random, config, tokens[place:], agreement, steps, absent)
        for tokens in (random.integers(0, VOCABULARY, count + 1) for count in text_tokens)
        for place in range(len(tokens) - 1)
    ]
    log_prob, token, parent, continuation = (np.stack(column) for column in zip(*rows, strict=True))
    text = np.repeat(np.arange(len(text_tokens)), text_tokens).astype(np.int32)
    place = np.concatenate([np.arange(count) for count in text_tokens]).astype(np.int32)
    left = (np.asarray(text_tokens)[text] - place).astype(np.int32)
    provenance = {"tasks": ["code", "docs"], "device": "none", "prompts": "synthetic"}
    length, task = (7 + 3 * text + place).astype(np.int32), (text % 2).astype(np.int32)
    entropy = random.uniform(0, 3, parent.shape).astype(np.float32)
    root_entropy = random.uniform(0, 3, len(text)).astype(np.float32)
    places = (left, length, text, task)
    return Trace(
        log_prob, token, parent, continuation, *places, entropy, root_entropy, provenance=provenance
    )


def table(
    config: CycleConfig, *, seed: int = 0, contexts: tuple[int, ...] = (8, 32)
) -> LatencyTable:
    """A table in which levels, nodes and context cost random, rising amounts of time."""
    random = np.random.default_rng(seed)
    rows, levels, sizes = len(contexts), config.max_levels, len(config.sizes)
    draft = np.cumsum(random.uniform(0.5, 1.5, (rows, levels)), axis=1) * 1e-3
    verify = 2e-3 + np.cumsum(random.uniform(0.0, 0.4, (rows, sizes)), axis=1) * 1e-3
    growth = 1 + 0.1 * np.arange(rows)[:, None]
    return additive(
        contexts=contexts,
        sizes=config.sizes,
        draft_seconds=draft * growth,
        verify_seconds=verify * growth,
        plain_seconds=verify[:, 0] * growth[:, 0],
        decision_seconds=(2e-5, 5e-5),
        provenance={"device": "synthetic", "dtype": "float32"},
    )


def _position(random, config, tokens, agreement, steps, absent):
    depth, width = config.max_levels, config.beam_width
    log_prob = np.full((depth, width, width), -np.inf, np.float32)
    token = np.zeros((depth, width, width), np.int32)
    parent = random.integers(0, width**2, (depth, width)).astype(np.int32)  # level 1: anything
    continuation = np.full(depth, -1, np.int32)
    known = tokens[1 : depth + 1]
    continuation[: len(known)] = known
    frontier, agreeing = np.zeros(1, np.float32), 0  # agreeing: its slot in the frontier, -1 = lost
    for level in range(depth):
        slots = len(frontier)
        log_prob[level, :slots] = frontier[:, None] + _steps(random, (slots, width), steps, absent)
        token[level] = _tokens(random, width, agreeing, continuation[level])
        child = min(int(random.geometric(0.6)) - 1, width - 1)
        hit = agreeing >= 0 and continuation[level] >= 0 and random.random() < agreement
        if hit:
            token[level, agreeing, child] = continuation[level]
        if level + 1 < depth:
            best = np.argsort(-log_prob[level].reshape(-1), kind="stable")[:width]
            parent[level + 1], frontier = best, log_prob[level].reshape(-1)[best]
            found = np.flatnonzero(best == agreeing * width + child)
            agreeing = int(found[0]) if hit and found.size else -1
    return log_prob, token, parent, continuation


def _steps(random, shape, steps, absent):
    drawn = -random.exponential(1.0, shape) if steps is None else random.choice(steps, shape)
    ordered = -np.sort(-drawn, axis=1)
    return np.where(random.random(shape) < absent, -np.inf, ordered).astype(np.float32)


def _tokens(random, width, agreeing, next_token):
    """Distinct tokens in every row; only the agreeing row surely lacks the next one."""
    every = np.arange(VOCABULARY)
    others = np.setdiff1d(every, [next_token])
    pools = [others if slot == agreeing else every for slot in range(width)]
    return np.stack([random.choice(pool, width, replace=False) for pool in pools])
