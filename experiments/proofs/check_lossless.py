"""Speculative decoding says what plain decoding says, token by token, in f32: every family.

    python -m experiments.proofs.check_lossless --out experiments/results/lossless
    python -m experiments.proofs.check_lossless --target DIR --draft DIR --tokens 500 --out runs/lossless

Without `--target` and `--draft`: small random pairs of every known family (Llama-1 to 3.2, Vicuna,
Qwen2, Qwen3, tied and untied; EAGLE-3 drafts with and without d2t, and Griffin), with drafts that
are fitted so that cycles accept nothing, something and everything. 2,000 tokens each; 3 minutes.
Expected: no mismatch. Writes OUT/lossless.json; exit code 1 when a text differs.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from experiments import command
from experiments.command import PairFlags
from experiments.proofs import promise, random_pairs
from experiments.proofs.promise import Kept
from ltd_jax import files
from ltd_jax.files import ASSETS, UserError
from ltd_jax.presets import EMBEDDED_CYCLE

FLAGS = {
    "target": "--target",
    "draft": "--draft",
    "devices": "--devices",
    "feature_layers": "--feature-layers",
    "draft_rope_theta": "--draft-rope-theta",
    "sampling": "the sampling flags",
}


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to compare."""

    out: Path = Path("runs/lossless")
    families: tuple[str, ...] = ()  # () = all
    tokens: int = 2000  # of each pair
    new_tokens: int = 200  # of each text


def main() -> None:
    config = command.parse(lambda preset: Config())
    command.at_least_one(config, "tokens", "new_tokens")
    command.writable(config.out)
    found = {}
    for name in names(config):
        found[name] = kept = check(config, name)
        command.say(
            f"{name}: {kept.tokens} tokens, {kept.mismatches} mismatches, {kept.near_ties} near "
            f"ties, {kept.accepted_mean:.2f} accepted per cycle"
        )
    rows = {name: dataclasses.asdict(kept) for name, kept in found.items()}
    here = config.environment if is_own(config) else files.environment("float32")
    written = {"pairs": rows, "environment": here}
    (config.out / "lossless.json").write_text(json.dumps(written, indent=1) + "\n")
    sys.exit(any(kept.mismatches for kept in found.values()))


def names(config: Config) -> tuple[str, ...]:
    """The random families, or the folders' pair.

    Raises:
      UserError: a family is not known, or a flag is for the other kind of pair.
    """
    if is_own(config):
        if config.families:
            raise UserError("--families are random pairs; leave it out with --target and --draft.")
        return (f"{config.target.name} with {config.draft.name}",)
    for name, value in vars(PairFlags()).items():
        if name != "dtype" and getattr(config, name) != value:
            raise UserError(f"Random pairs decode greedily as they are; leave out {FLAGS[name]}.")
    for family in config.families:
        if family not in random_pairs.FAMILIES:
            raise UserError(
                f"--families has {family!r}; known: {', '.join(random_pairs.FAMILIES)}."
            )
    return config.families or tuple(random_pairs.FAMILIES)


def is_own(config: Config) -> bool:
    """Whether folders are named: else the pairs are random."""
    return config.target.parent != ASSETS or config.draft.parent != ASSETS


def check(config: Config, name: str) -> Kept:
    """Both texts of enough prompts of one pair."""
    count = -(-config.tokens // config.new_tokens)
    if name in random_pairs.FAMILIES:
        pair, prompts = random_pairs.pair(name), random_pairs.prompts(name, count)
    else:
        pair = command.load_pair(config, EMBEDDED_CYCLE)
        random = np.random.default_rng(0)
        draw = lambda: random.integers(0, pair.config.target.vocab_size, 16).astype(np.int32)
        prompts = [draw() for _ in range(4 * count)]  # texts may stop early
    return promise.check(pair, prompts, config.new_tokens, config.tokens)


if __name__ == "__main__":
    command.run(main, resumes=False)
