"""Train the embedded pair: the target on Python's standard library, then the draft on the target.

    python -m experiments.train_pair --out runs/pair

Stopped at any point, the same command goes on. Writes OUT/target and OUT/draft, two Hugging Face
style folders in bfloat16; copied to ltd_jax/assets they are the pair that ships.
"""

import dataclasses
import shutil
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tyro

from ltd_jax import prompts
from ltd_jax.cycle.pair import ASSETS
from ltd_jax.models import weights
from ltd_jax.presets import EMBEDDED_DRAFT, EMBEDDED_TARGET
from ltd_jax.pretrain import corpus, train_draft, train_target
from ltd_jax.pretrain.trainer import TrainConfig

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
    main()
