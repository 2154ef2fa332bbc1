"""Every compiled stage gives what its operations give one by one: finite, and the same numbers.

    python -m experiments.proofs.check_stages --out experiments/results/stages
    python -m experiments.proofs.check_stages --target DIR --draft DIR --contexts 256 1024 4096

A compiler may be wrong where all its parts are right, for some shapes and not for others. So every
program that records, decodes, measures and trains drafts runs once compiled and once operation by
operation (`jax.disable_jit`), on random tokens of a real pair, at several contexts. Expected: no
stage is wrong; exit code 1 otherwise. On 2 cores a model of 135 M parameters takes a minute at 256
tokens, two at 1,024 and ten at 4,096, and 14 GB of memory. Writes OUT/stages.json after every
context.

What made this program necessary, in one line:

    jax.jit(lambda x: jnp.max(x @ jnp.zeros((64, 80)), axis=-1))(jnp.ones((96, 64)))

gives garbage instead of zeros on CPUs (jax 0.10.2 to 0.12.0). XLA puts the product and the maximum
into one call of its YNNPACK library, and the constant array, which is one number and strides of 0,
is read as if all of it were in memory. `constant_product` in the results counts the wrong numbers
here. Attention to a cache known to be empty was such a product; tests/system/test_stages.py keeps
all stages free of them.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax import files, flags
from ltd_jax.config import DraftConfig
from ltd_jax.cycle import prefill, step
from ltd_jax.draft_training import pack, texts
from ltd_jax.draft_training.loss import DraftLoss, Frozen
from ltd_jax.files import UserError
from ltd_jax.flags import PairFlags
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import profile, record, sampled

MOST_ERROR = {"float32": 2e-3, "bfloat16": 0.2, "float16": 0.1}  # of an array's largest number
BEHIND = 48  # tokens of the context that are not filled before a cycle
POSITIONS = 4  # of trees that are recorded
LONGEST_WINDOW = 512  # of draft training, which keeps 8 attention maps


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to compare."""

    out: Path = Path("runs/stages")
    contexts: tuple[int, ...] = (256, 384, 512, 1024, 2048, 4096)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A compiled program and what it is asked."""

    name: str
    program: Callable[..., Any]
    args: Callable[[], tuple[Any, ...]]  # anew for every call, for some are donated


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of a stage's results, compiled and one by one."""

    context: int
    stage: str
    numbers: int  # floating point numbers compared
    not_finite: int  # of the compiled program's, where the other one's are
    error: float  # largest difference, as a share of its array's largest number
    integers_differing: int  # near ties of tokens
    is_right: bool


def main() -> None:
    config = flags.parse(lambda preset: Config())
    if min(config.contexts) < 2 * BEHIND:
        raise UserError(f"`contexts` must be at least {2 * BEHIND}.")
    flags.writable(config.out)
    rows: list[Comparison] = []
    for context in config.contexts:
        cycle = dataclasses.replace(config.cycle, context=context)
        pair = flags.load_pair(config, cycle)
        for stage in stages(pair):
            rows.append(row := compare(pair, stage))
            flags.say(
                f"{context} {stage.name}: {'right' if row.is_right else 'WRONG'} "
                f"(error {row.error:.1e}, {row.not_finite} not finite)"
            )
        written = {
            "stages": [dataclasses.asdict(row) for row in rows],
            "constant_product": constant_product(),
            "environment": config.environment,
        }
        files.write_json(config.out / "stages.json", written)
    sys.exit(not all(row.is_right for row in rows))


def stages(pair: Pair) -> Iterator[Stage]:
    """All of a pair at its context, in the order of a user's way."""
    cycle, model = pair.config.cycle, pair.model
    tokens_S = tokens_of(pair, cycle.context)
    chunk_T, left = jnp.asarray(tokens_S[: cycle.prefill_chunk]), pair.put(jnp.int32(1))
    count, prompt = jnp.int32(len(chunk_T)), jnp.int32(cycle.context)
    whole = (chunk_T, jnp.int32(0), count, prompt, jnp.bool_(True))
    empty = lambda: prefill.empty_state(pair.config, pair.dtype)
    yield Stage("prefill", prefill.prefill_chunk, lambda: (model, empty(), *whole))
    filled = prefill.prefill(pair, tokens_S[: cycle.context - BEHIND])
    copied = lambda: jax.tree.map(jnp.copy, filled)
    yield Stage("prefill, late", prefill.prefill_chunk, lambda: (model, late(pair, filled), *whole))
    plain = lambda: step.plain_of(copied())
    yield Stage("plain step", step.run_plain, lambda: (model, pair.stops, plain(), left))
    for levels, size in sorted({(1, cycle.sizes[0]), (cycle.max_levels, cycle.sizes[-1])}):
        policy = pair.put(Constant(levels, size).traced())
        run = lambda policy=policy: (model, policy, pair.stops, copied(), left)
        yield Stage(f"cycle {levels}, {size}", step.run_cycles, run)
    yield from _recording(pair, tokens_S, filled)
    yield from _training(pair, tokens_S)


def _recording(pair: Pair, tokens_S: np.ndarray, filled: step.CycleState) -> Iterator[Stage]:
    cycle, model = pair.config.cycle, pair.model
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), step.plain_of(filled))
    texts_of = partial(record._continue, new_tokens=2)
    yield Stage("record, texts", texts_of, lambda: (model, batch))
    text = (jnp.asarray(tokens_S), jnp.int32(len(tokens_S) // 2))  # half of it a prompt
    yield Stage("record, one pass", record._text_states, lambda: (model, *text))
    states = record._text_states(model, *text)
    length_P = jnp.linspace(1, cycle.context - 1, POSITIONS).astype(jnp.int32)
    draft = partial(record._draft, with_hidden=False)
    yield Stage("record, trees", draft, lambda: (model, states, length_P))
    yield Stage("judge, one pass", sampled._read_text, lambda: (model, *text))
    cache, tree = sampled._read_text(model, *text), draft(model, states, length_P)
    judged = (pair.stops, jnp.asarray(tokens_S), cache, length_P, tree.tree, length_P)
    yield Stage("judge, trees", sampled._of_trees, lambda: (model, *judged))
    one = Constant(cycle.max_levels, cycle.sizes[0]).traced()
    drafted = (filled.root, model, one, filled)
    yield Stage("profile, draft", profile._draft_rounds, lambda: drafted)
    tree, size = profile._draft_rounds(*drafted), jnp.int32(len(cycle.sizes) - 1)
    verified = (filled.root, model, tree, size, filled)
    yield Stage("profile, verify", profile._verify_rounds, lambda: verified)


def _training(pair: Pair, tokens_S: np.ndarray) -> Iterator[Stage]:
    """Of texts, and of an EAGLE-3 draft that has the target's embedding."""
    model, config = pair.model, pair.config
    prompt_BP = jnp.asarray(np.stack([tokens_S[:-8], tokens_S[8:]]))
    asked = {"config": config.target, "prompt_BP": prompt_BP, "new_tokens": 2}
    write = partial(texts.continue_greedily, **asked)
    yield Stage("own texts", write, lambda: (model.target,))
    is_wider = config.draft.hidden_size != config.target.hidden_size
    if is_wider or not isinstance(config.draft, DraftConfig) or config.draft.sliding_layers:
        return
    loss = DraftLoss(config.draft, config.target)
    windows = pack.one_text_each(tokens_S[None, : min(len(tokens_S), LONGEST_WINDOW)])
    windows = jax.tree.map(jnp.asarray, windows)
    ones = jnp.ones((config.target.feature_size,), jnp.float32)
    frozen = Frozen(model.target, model.draft.target_token, ones)
    draft: Any = model.draft
    learned = draft.replace(embedding=None, target_token=None)
    gradient = jax.jit(jax.value_and_grad(loss))
    yield Stage("draft training", gradient, lambda: (learned, frozen, windows))


def tokens_of(pair: Pair, count: int) -> np.ndarray:
    """Random tokens i32, none of which ends a text."""
    random = np.random.default_rng(0)
    known = np.setdiff1d(np.arange(pair.config.target.vocab_size), pair.stop_tokens)
    return random.choice(known, count).astype(np.int32)


def late(pair: Pair, filled: step.CycleState) -> step.CycleState:
    """A copy of a filled state in the middle of a prompt, with room for a chunk."""
    most = filled.target_cache.length - pair.config.cycle.prefill_chunk
    length = jnp.maximum(most, 1)
    shorter = filled.replace(
        target_cache=filled.target_cache.replace(length=length),
        draft_cache=filled.draft_cache.replace(length=length),
    )
    return jax.tree.map(jnp.copy, shorter)


def compare(pair: Pair, stage: Stage) -> Comparison:
    """Runs a stage both ways."""
    found = jax.device_get(stage.program(*stage.args()))
    with jax.disable_jit():
        wanted = jax.device_get(stage.program(*stage.args()))
    numbers = not_finite = differing = 0
    error = 0.0
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if not jnp.issubdtype(one.dtype, jnp.floating):
            differing += int(np.sum(one != other)) if one.dtype.kind in "iub" else 0
            continue
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        counts = np.isfinite(other)
        numbers += int(counts.sum())
        not_finite += int(np.sum(counts & ~np.isfinite(one)))
        gap = np.abs(np.where(counts, one, 0) - np.where(counts, other, 0))
        error = max(error, float(np.max(gap, initial=0) / np.max(np.abs(other[counts]), initial=1)))
    is_right = not not_finite and error <= MOST_ERROR[jnp.dtype(pair.dtype).name]
    context = pair.config.cycle.context
    error = error if np.isfinite(error) else 0.0  # which `not_finite` tells
    return Comparison(context, stage.name, numbers, not_finite, error, differing, is_right)


def constant_product() -> dict[str, int]:
    """How many maxima of a product with zeros are not 0 in this XLA, and of how many."""
    largest = jax.jit(lambda x: jnp.max(x @ jnp.zeros((64, 80)), axis=-1))(jnp.ones((96, 64)))
    return {"wrong": int(np.sum(np.asarray(largest) != 0)), "of": largest.size}


if __name__ == "__main__":
    flags.run(main, resumes=False)
