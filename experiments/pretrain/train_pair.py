"""Train the embedded pair: a target on Python's standard library, then a draft for this target.

    python -m experiments.pretrain.train_pair --out runs/pair

    corpus    -> target-training        next-token prediction
              -> unlikelihood-0, 1...   a little at a time, the target unlearns its loops
              -> target/                rounded to bfloat16, as users will load it
    + texts that this target wrote
              -> draft-training         EAGLE-3's training-time test
              -> draft/

Stopped at any point, the same command goes on. Writes OUT/target and OUT/draft, two Hugging Face
style folders in bfloat16; copied to ltd_jax/assets they are the pair that ships. OUT/quality.json
says how good they are on held-out text.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tyro
from rich.console import Console

from experiments.pretrain import corpus, quality, train_target, unlikelihood
from ltd_jax import files, flags, workflow
from ltd_jax import text as texts
from ltd_jax.draft_training import pack
from ltd_jax.draft_training import texts as own_texts
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.pack import Mixture
from ltd_jax.draft_training.train import TrainConfig
from ltd_jax.files import ASSETS, UserError
from ltd_jax.models import eagle3
from ltd_jax.models import pair as pairs
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.target import TargetParams
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_DRAFT, EMBEDDED_TARGET
from ltd_jax.questions import TASKS, QuestionConfig
from ltd_jax.replay import record
from ltd_jax.workflow import StageConfig

NEW_TOKENS = 128  # per test prompt, for the quality
HELD_OUT_WINDOW, HELD_OUT_WINDOWS = 256, 32  # of every kind's validation stream
QUALITY_CYCLE = dataclasses.replace(EMBEDDED_CYCLE, beam_width=8)  # wider than what is fastest
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train, for how long, and where to."""

    out: Path = Path("runs/pair")
    target: TrainConfig = TrainConfig(tokens=10_000_000)
    rounds: int = 8  # of unlikelihood training
    round: TrainConfig = TrainConfig(
        tokens=240_000, learning_rate=3e-4, warmup_steps=10, long_share=0.0
    )
    round_texts: int = 384  # that the target writes before each round
    draft: TrainConfig = TrainConfig(tokens=6_000_000, learning_rate=1e-3, long_share=0.0)
    draft_texts: int = 6000  # that the target writes for the draft
    draft_start: Path | None = None  # folder of a draft to go on from; None = random weights


def main() -> None:
    config = tyro.cli(Config)
    flags.writable(config.out)
    with flags.progress_bars(Console(stderr=True)) as progress:
        train(config, progress)
    judged = judge(config.out)
    files.write_json(config.out / "quality.json", judged)
    print(json.dumps(judged, indent=1))


def train(config: Config, progress: workflow.Progress) -> None:
    """Both trainings, or what is left of them."""
    mixture = corpus.make_mixture(kind_streams("train"))
    folder = config.out / "target"
    params = train_target_in_rounds(config, mixture, progress)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    hf_weights.save_target(folder, EMBEDDED_TARGET, params, ml_dtypes.bfloat16, ends)
    for name in TOKENIZER_FILES:
        shutil.copy(ASSETS / "target" / name, folder / name)
    _, params = hf_weights.load_target(folder, jnp.float32)  # rounded, as users will load it
    trained = train_draft(config, mixture, params, progress)
    hf_weights.save_draft(config.out / "draft", EMBEDDED_DRAFT, trained, ml_dtypes.bfloat16)


def kind_streams(split: str) -> list[np.ndarray]:
    """One token stream per kind of the corpus, by the embedded tokenizer."""
    tokenizer = texts.load_tokenizer(ASSETS / "target")
    return corpus.kind_streams(corpus.find_documents(), tokenizer, split)


def train_target_in_rounds(
    config: Config, mixture: Mixture, progress: workflow.Progress
) -> TargetParams:
    """The target after its rounds of unlikelihood training."""
    params = train_target.train_target(
        EMBEDDED_TARGET,
        config.target,
        mixture,
        config.out / "target-training",
        progress=report("target", progress),
    )
    for number in range(config.rounds):
        stage = f"unlikelihood-{number}"
        settings = dataclasses.replace(config.round, seed=config.round.seed + number)
        params, share = unlikelihood.train_round(
            params,
            EMBEDDED_TARGET,
            settings,
            mixture,
            config.round_texts,
            config.out / stage,
            progress=report(stage, progress),
        )
        flags.say(f"Before round {number}, {share:.0%} of what the target wrote was repetition.")
    return params


def train_draft(
    config: Config, mixture: Mixture, params: TargetParams, progress: workflow.Progress
) -> Eagle3Params:
    """The draft, trained on corpus and on the target's own texts."""
    folder = config.out / "draft-training"
    new_tokens = config.draft.window + 1 - own_texts.PROMPT_TOKENS
    prompt_BP = own_texts.sample_prompts(mixture.streams, config.draft_texts, config.draft.seed)
    text_BT = own_texts.load_or_write(
        folder / "own.npy",
        params,
        EMBEDDED_TARGET,
        prompt_BP,
        new_tokens,
        progress=lambda share: progress("texts for the draft", share),
    )
    return trainer.train_draft(
        draft_start(config, mixture, params),
        EMBEDDED_DRAFT,
        EMBEDDED_TARGET,
        params,
        config.draft,
        lambda step: trainer.sample_mixed_batch(mixture, text_BT, config.draft, step),
        folder,
        progress=report("draft", progress),
    )


def draft_start(config: Config, mixture: Mixture, params: TargetParams) -> Eagle3Params:
    """Random weights with the corpus's most frequent tokens, or those of `config.draft_start`."""
    if config.draft_start is not None:
        folder = config.draft_start
        loaded = hf_weights.load_draft(folder, EMBEDDED_TARGET, params.embedding, jnp.float32)
        if not isinstance(loaded.params, Eagle3Params):
            raise UserError(f"{folder} is no EAGLE-3 draft; `draft_start` must be one.")
        return loaded.params
    vocabulary = pack.frequent_tokens(mixture.streams, EMBEDDED_DRAFT)
    key = jax.random.key(config.draft.seed)
    return eagle3.init(key, EMBEDDED_DRAFT, params.embedding, vocabulary)


def report(stage: str, progress: workflow.Progress) -> trainer.Progress:
    """What the training loop reports to, for a bar of a stage."""
    return lambda step, steps, loss: progress(stage, step / steps)


def judge(out: Path) -> dict[str, Any]:
    """Held-out loss by kind; committed tokens and repetition on the test prompts by task."""
    pair = pairs.load(out / "target", out / "draft", cycle=QUALITY_CYCLE)
    stages = StageConfig(out, QuestionConfig(new_tokens=NEW_TOKENS))
    prompts = workflow.load_prompts(pair, stages, "test").prompts
    origin = files.environment("float32") | {"tasks": list(TASKS)}
    parts = out / f"quality-{pair.fingerprint}"
    trace = record.record(pair, prompts, NEW_TOKENS, origin, parts=parts)
    losses = [
        train_target.held_out_loss(
            pair.model.target, EMBEDDED_TARGET, stream, HELD_OUT_WINDOW, HELD_OUT_WINDOWS
        )
        for stream in kind_streams("validation")
    ]
    return {
        "environment": origin,
        "fingerprint": pair.fingerprint,
        "levels": quality.LEVELS,
        "size": quality.SIZE,
        "held_out_loss": dict(zip(corpus.KINDS, losses, strict=True)),
        "tasks": [row._asdict() for row in quality.judge_tasks(trace, QUALITY_CYCLE)],
    }


if __name__ == "__main__":
    flags.run(main)
