"""Latency tables of hardware that is not at hand: read off the paper, or modelled.

`shipped` is where the files in ltd_jax/assets/latency come from, but for those that were measured.
"""

import numpy as np

from experiments.report import paper
from ltd_jax import presets
from ltd_jax.config import PolicyConfig
from ltd_jax.replay import roofline
from ltd_jax.replay.latency import LatencyTable, additive

PAPER_SETTING = (8, 50)  # EAGLE-3's levels and size for Vicuna-13B (paper Sec. 5)
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def shipped() -> dict[str, LatencyTable]:
    """The tables that are made and not measured, by name."""
    modelled = {
        f"{name}-llama-3.1-8b-modelled": roofline.table(
            roofline.ACCELERATORS[name],
            presets.LLAMA_3_1_8B,
            presets.eagle3_draft(presets.LLAMA_3_1_8B),
            presets.PAPER_CYCLE,
            PolicyConfig(),
            LLAMA,
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
    eagle3 = paper.TABLE4.row("eagle3").mean
    overhead = next(row for row in paper.TABLE9 if row.model == figure.model)
    return additive(
        contexts=(512,),
        sizes=figure.sizes,
        draft_seconds=draft[None],
        verify_seconds=verify[None],
        plain_seconds=np.asarray([eagle3.speedup * cycle / eagle3.committed]),
        decision_seconds=(overhead.depth_share * cycle / levels, overhead.size_share * cycle),
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
