"""Latency tables of hardware that is not at hand: from a data sheet, or read off the paper.

    python -m experiments.studies.model_latency --target DIR --draft DIR --out h100.json

The command reads the two config.json only. What it writes says "modelled" in its provenance;
measure with `ltd profile` where the device is at hand. `shipped` is where the files in
ltd_jax/assets/latency come from, but for those that were measured.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from experiments.report import paper
from ltd_jax import flags
from ltd_jax.config import CycleConfig, DraftConfig, Llama3Scaling, PolicyConfig, TargetConfig
from ltd_jax.files import ASSETS, UserError
from ltd_jax.models.hf import inspect
from ltd_jax.presets import PAPER_CYCLE
from ltd_jax.replay import latency as latencies
from ltd_jax.replay import roofline
from ltd_jax.replay.latency import LatencyTable, additive

PAPER_SETTING = (8, 50)  # EAGLE-3's levels and size for Vicuna-13B (paper Sec. 5)
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LLAMA_3_1_8B = TargetConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    layer_count=32,
    head_count=32,
    kv_head_count=8,
    head_dim=128,
    rope_theta=500_000.0,
    rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192),
)  # as its config.json has it


def eagle3_draft(target: TargetConfig) -> DraftConfig:
    """A target's published EAGLE-3 draft: one of its layers, without q/k norms."""
    return DraftConfig(
        vocab_size=target.vocab_size,
        draft_vocab_size=32_000,
        hidden_size=target.hidden_size,
        target_hidden_size=target.hidden_size,
        intermediate_size=target.intermediate_size,
        head_count=target.head_count,
        kv_head_count=target.kv_head_count,
        head_dim=target.head_dim,
        rms_norm_eps=target.rms_norm_eps,
    )


def shipped() -> dict[str, LatencyTable]:
    """The tables that are made and not measured, by name."""
    target, draft = LLAMA_3_1_8B, eagle3_draft(LLAMA_3_1_8B)
    modelled = {
        f"{name}-llama-3.1-8b-modelled": roofline.table(
            roofline.ACCELERATORS[name], target, draft, PAPER_CYCLE, PolicyConfig(), LLAMA
        )
        for name in ("h100", "tpu-v6e")
    }
    return {"a100-vicuna-13b-paper": paper_a100(), **modelled}


def paper_a100() -> LatencyTable:
    """The paper's A100 with Vicuna-13B: Figure 2 (left), and what Tables 4 and 9 say of the rest.

    The figure has no plain step: it is the one that gives Table 4's speedup of EAGLE-3,

        plain = speedup * (t_draft + t_verify) / committed

    and the decisions are Table 9's shares of such a cycle, the depth policy asked at every level.
    """
    figure, (levels, size) = paper.FIGURE2, PAPER_SETTING
    verify = np.asarray(figure.verify) / 1e3
    draft = np.asarray(figure.draft) / 1e3
    cycle = draft[levels - 1] + float(np.interp(size, figure.sizes, verify))
    eagle3 = paper.TABLE4.rows["eagle3"].mean
    overhead = next(row for row in paper.TABLE9 if row["model"] == figure.model)
    return additive(
        contexts=(512,),
        sizes=figure.sizes,
        draft_seconds=draft[None],
        verify_seconds=verify[None],
        plain_seconds=np.asarray([eagle3.speedup * cycle / eagle3.committed]),
        decision_seconds=(overhead["depth_share"] * cycle / levels, overhead["size_share"] * cycle),
        provenance={
            "kind": "read off a picture",
            "device": "NVIDIA A100 (the paper's, read off a picture)",
            "dtype": "float16",
            "model": figure.model,
            "source": (
                "arXiv 2603.01639v1, Figure 2 (left) read by eye, about 3 % off; the plain step "
                "follows from Table 4, the decisions from Table 9; the context is not stated"
            ),
        },
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Which pair on which device."""

    out: Path
    device: Literal["a100", "h100", "h200", "tpu-v5p", "tpu-v6e"] = "h100"
    target: Path = ASSETS / "target"
    draft: Path = ASSETS / "draft"
    cycle: CycleConfig = PAPER_CYCLE
    widths: PolicyConfig = PolicyConfig()


def main() -> None:
    config = tyro.cli(Config)
    found = inspect.read_pair_config(config.target, config.draft, config.cycle, None, None)
    pair = found.config
    if not isinstance(pair.draft, DraftConfig):
        raise UserError("Costs can be modelled for EAGLE-3 drafts only; `draft` is another one.")
    device, name = roofline.ACCELERATORS[config.device], config.target.name
    table = roofline.table(device, pair.target, pair.draft, config.cycle, config.widths, name)
    latencies.save(table, config.out)
    print(f"{table.provenance['device']}: {config.out}, {latencies.fingerprint(table)}")


if __name__ == "__main__":
    flags.run(main)
