"""Speculative decoding says what plain decoding says, token by token, in f32: every family.

    python -m experiments.proofs.check_lossless --out experiments/results/lossless
    python -m experiments.proofs.check_lossless --target DIR --draft DIR --tokens 500

Without `--target` and `--draft`: small random pairs of every known family (Llama-1 to 3.2, Vicuna,
Qwen2, Qwen3, tied and untied; EAGLE-3 drafts with and without d2t, and Griffin), with drafts that
are fitted so that cycles accept nothing, something and everything. 2,000 tokens each; 3 minutes.
Expected: no mismatch. Writes OUT/lossless.json; exit code 1 when a text differs.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.proofs import random_pairs
from ltd_jax import files, flags
from ltd_jax.config import CycleConfig
from ltd_jax.decoding import benchmark, lossless
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import ASSETS, UserError
from ltd_jax.flags import PairFlags
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant
from ltd_jax.presets import EMBEDDED_CYCLE
from ltd_jax.replay.record import Prompt

GROUPS = {"sampling": "the sampling flags", "shapes": "the flags of a cycle's shapes"}
SPECULATIVE = "speculative"  # all constants together


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to compare."""

    out: Path = Path("runs/lossless")
    families: tuple[str, ...] = ()  # () = all
    tokens: int = 2000  # of each pair
    new_tokens: int = 200  # of each text


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was compared of one pair, and whether drafting had a say in it."""

    distinct: int  # different tokens in the plain texts
    tokens: int  # compared, up to the first difference of each text
    mismatches: int
    near_ties: int
    cycles: int
    accepted_mean: float  # drafted tokens per cycle
    accepting: float  # share of cycles that accepted any


def main() -> None:
    config = flags.parse(lambda preset: Config())
    flags.at_least_one(config, "tokens", "new_tokens")
    flags.writable(config.out)
    compared = {}
    for name in pair_names(config):
        compared[name] = row = check(config, name)
        flags.say(
            f"{name}: {row.tokens} tokens, {row.mismatches} mismatches, {row.near_ties} near "
            f"ties, {row.accepted_mean:.2f} accepted per cycle"
        )
    rows = {name: dataclasses.asdict(row) for name, row in compared.items()}
    environment = config.environment if is_own(config) else files.environment("float32")
    written = {"pairs": rows, "environment": environment}
    files.write_json(config.out / "lossless.json", written)
    sys.exit(any(row.mismatches for row in compared.values()))


def pair_names(config: Config) -> tuple[str, ...]:
    """The random families, or the folders' pair.

    Raises:
      UserError: a family is not known, or a flag is for the other kind of pair.
    """
    if is_own(config):
        if config.families:
            raise UserError("`families` are random pairs; leave it out with `target` and `draft`.")
        return (f"{config.target.name} with {flags.drafted(config).name}",)
    for name, value in vars(PairFlags()).items():
        if name not in ("dtype", "draft") and getattr(config, name) != value:
            named = GROUPS.get(name, f"`{name}`")
            raise UserError(f"Random pairs decode greedily as they are; leave out {named}.")
    for family in config.families:
        if family not in random_pairs.FAMILIES:
            raise UserError(
                f"`families` has {family!r}; known: {', '.join(random_pairs.FAMILIES)}."
            )
    return config.families or tuple(random_pairs.FAMILIES)


def is_own(config: Config) -> bool:
    """Whether folders are named: else the pairs are random."""
    return config.target.parent != ASSETS or config.draft not in (None, ASSETS / "draft")


def check(config: Config, name: str) -> Comparison:
    """Compares texts of enough prompts of one pair."""
    count = -(-config.tokens // config.new_tokens)
    if name in random_pairs.FAMILIES:
        pair, prompts = random_pairs.pair(name), random_pairs.prompts(name, count)
    else:
        pair = flags.load_pair(config, config.shapes.of(EMBEDDED_CYCLE))
        random = np.random.default_rng(0)
        draw = lambda: random.integers(0, pair.config.target.vocab_size, 16).astype(np.int32)
        prompts = [draw() for _ in range(4 * count)]  # texts may stop early
    return compare(pair, prompts, new_tokens=config.new_tokens, tokens=config.tokens)


def compare(
    pair: Pair, prompts: Sequence[np.ndarray], *, new_tokens: int, tokens: int
) -> Comparison:
    """Decodes prompts both ways, in turn with each constant, until enough tokens are compared.

    Args:
      new_tokens: of each text.
      tokens: of all texts.
    """
    constants, plain = spanning_constants(pair.config.cycle), Method(benchmark.PLAIN)
    rows = [Prompt(token_T, 0) for token_T in prompts]
    runs, decoded = [], 0
    for index, prompt in enumerate(rows):
        speculative = Method(SPECULATIVE, constants[index % len(constants)])
        texts = [
            benchmark.decode(pair, method, prompt, index, new_tokens)
            for method in (plain, speculative)
        ]
        runs += texts
        decoded += len(texts[0].tokens)
        if decoded >= tokens:
            break
    counts = lossless.compare(pair, runs, rows, benchmark.PLAIN)
    speculative_runs = [run for run in runs if run.method == SPECULATIVE]
    committed = benchmark.per_cycle(speculative_runs, "committed")
    said = {token for run in runs if run.method == benchmark.PLAIN for token in run.tokens}
    return Comparison(
        distinct=len(said),
        tokens=int(counts["tokens_compared"]),
        mismatches=int(counts["mismatches"]),
        near_ties=int(counts["near_ties"]),
        cycles=len(committed),
        accepted_mean=float(np.mean(committed - 1)),
        accepting=float(np.mean(committed > 1)),
    )


def spanning_constants(config: CycleConfig) -> list[Constant]:
    """Constants from one node on one level to all nodes on all levels."""
    most, sizes = config.max_levels, config.sizes
    middle = sizes[len(sizes) // 2]
    chosen = {(1, sizes[0]), (1, middle), ((most + 1) // 2, middle), (most, sizes[-1])}
    return [Constant(levels, size) for levels, size in sorted(chosen)]


if __name__ == "__main__":
    flags.run(main, resumes=False)
