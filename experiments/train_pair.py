"""Train the embedded pair: the target on Python's standard library, then the draft on the target.

    python -m experiments.train_pair --out runs/pair

Stopped at any point, the same command goes on. Writes OUT/target and OUT/draft, two Hugging Face
style folders in bfloat16; copied to ltd_jax/assets they are the pair that ships. OUT/quality.json
says how good they are on held-out text.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tyro

from experiments import command
from ltd_jax import prompts, provenance
from ltd_jax.cycle import pair as pairs
from ltd_jax.cycle.pair import ASSETS
from ltd_jax.models import weights
from ltd_jax.pipeline import pair_quality, stages
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_DRAFT, EMBEDDED_TARGET
from ltd_jax.pretrain import corpus, train_draft, train_target
from ltd_jax.pretrain.trainer import TrainConfig
from ltd_jax.replay import record

NEW_TOKENS = 128  # per test prompt, for the quality
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train, for how long, and where to."""

    out: Path = Path("runs/pair")
    target: TrainConfig = TrainConfig(tokens=10_000_000)
    draft: TrainConfig = TrainConfig(tokens=3_000_000, learning_rate=1e-3, long_share=0.0)


def kind_streams(split: str) -> list[np.ndarray]:
    """One token stream per kind of the corpus, in the order of `corpus.KINDS`."""
    documents = corpus.find_documents()
    tokenizer = prompts.load_tokenizer(ASSETS / "target")
    return [
        corpus.token_stream([d for d in documents if d.kind == kind], tokenizer, split)
        for kind in corpus.KINDS
    ]


def main() -> None:
    config = tyro.cli(Config)
    command.writable(config.out)
    train(config)
    found = quality_of(config.out)
    (config.out / "quality.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def quality_of(out: Path) -> dict[str, Any]:
    """Held-out loss by kind; committed tokens and repetition on the test prompts by task."""
    pair = pairs.load(EMBEDDED_CYCLE, out / "target", out / "draft")
    found = stages.embedded_prompts("test", 24, EMBEDDED_CYCLE.context - NEW_TOKENS)
    origin = provenance.environment("float32") | {"tasks": list(prompts.TASKS)}
    parts = out / f"quality-{pair.fingerprint}"
    trace = record.record(pair, found, NEW_TOKENS, origin, parts, lambda texts: None)
    losses = [
        train_target.held_out_loss(pair.params.target, EMBEDDED_TARGET, stream, 256, 32)
        for stream in kind_streams("validation")
    ]
    return {
        "environment": origin,
        "fingerprint": pair.fingerprint,
        "levels": pair_quality.LEVELS,
        "size": pair_quality.SIZE,
        "held_out_loss": dict(zip(corpus.KINDS, losses, strict=True)),
        "tasks": [row._asdict() for row in pair_quality.by_task(trace, EMBEDDED_CYCLE)],
    }


def train(config: Config) -> None:
    """Both trainings, or what is left of them."""
    streams = kind_streams("train")
    params = train_target.train_target(
        EMBEDDED_TARGET, config.target, streams, config.out / "target-training"
    )
    folder = config.out / "target"
    weights.save_target(folder, EMBEDDED_TARGET, params, ml_dtypes.bfloat16)
    for name in TOKENIZER_FILES:
        shutil.copy(ASSETS / "target" / name, folder / name)
    _, params = weights.load_target(folder, jnp.float32)  # rounded, as users will load it
    draft = train_draft.train_draft(
        EMBEDDED_DRAFT,
        EMBEDDED_TARGET,
        params,
        config.draft,
        streams,
        config.out / "draft-training",
    )
    weights.save_draft(config.out / "draft", EMBEDDED_DRAFT, draft, ml_dtypes.bfloat16)


if __name__ == "__main__":
    command.run(main)
