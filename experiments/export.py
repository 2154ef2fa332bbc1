"""Write a pair as folders that transformers and EAGLE-3 stacks load.

    python -m experiments.export --target DIR --draft DIR --out DIR
    python -m experiments.export --out runs/exported --dtype float16 --dialect layers.0

Writes OUT/target (index and shards, config.json, tokenizer files) and OUT/draft. A draft is written
under EAGLE's own names, or with its layer called `layers.0` as SpecForge and vLLM do; a Griffin
draft under its authors'. Needs the memory of the weights and of one shard; minutes for an 8B pair.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import command
from experiments.command import PairFlags
from ltd_jax.files import UserError
from ltd_jax.models.hf import export
from ltd_jax.models.hf.weights import Dialect
from ltd_jax.presets import EMBEDDED_CYCLE


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """Which pair, where to, and in which form; weights are stored in `dtype`."""

    out: Path = Path("runs/exported")
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    dialect: Dialect = "eagle"
    shard_gigabytes: float = 5.0  # most of one file


def main() -> None:
    config = command.parse(lambda preset: Config())
    if config.shard_gigabytes <= 0:
        raise UserError(f"--shard-gigabytes is {config.shard_gigabytes} but must be above 0.")
    folders = config.out / "target", config.out / "draft"
    export.refuse_own_sources(folders, (config.target, config.draft))
    for folder in folders:
        command.writable(folder)
    pair = command.load_pair(config, EMBEDDED_CYCLE, in_blocks=False)
    shard_bytes = int(config.shard_gigabytes * 10**9)
    export.export_target(folders[0], pair, config.target, shard_bytes)
    for remark in export.export_draft(folders[1], pair, config.draft, config.dialect):
        command.say(remark)
    for folder in folders:
        command.say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    command.run(main, resumes=False)
