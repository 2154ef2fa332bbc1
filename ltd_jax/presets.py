"""Named settings: the embedded pair's, and the paper's for all others."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from ltd_jax.config import (
    CycleConfig,
    DraftConfig,
    ExactConfig,
    LearningConfig,
    ObservationConfig,
    PolicyConfig,
    PPOConfig,
    RopeScaling,
    TargetConfig,
)
from ltd_jax.files import ASSETS

# The pair that ships with the package (ltd_jax/assets): deep and narrow, for cheap draft levels.
EMBEDDED_TARGET = TargetConfig(
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=640,
    layer_count=12,
    head_count=8,
    kv_head_count=2,
    head_dim=32,
)
EMBEDDED_DRAFT = DraftConfig(
    vocab_size=2048,
    draft_vocab_size=1280,
    hidden_size=256,
    target_hidden_size=256,
    intermediate_size=512,
    head_count=8,
    kv_head_count=2,
    head_dim=32,
)
EMBEDDED_CYCLE = CycleConfig(
    beam_width=4,
    max_levels=6,
    sizes=(0, 1, 2, 3, 4, 6, 8, 12, 16, 24),
    context=384,
    cycles_per_call=8,
    short_catch_ups=(2, 4),
)  # no more than pays on a small target: unused levels would still cost rows in every cycle
# The best nodes and what they promise say what all nodes say, in a tenth of the numbers.
SORTED = ObservationConfig(node_probs=False, top_k_probs=8, expected_tokens=True, length=False)
EMBEDDED_POLICY = PolicyConfig(
    size_actor=(32,),
    size_critic=(64, 64),
    depth_actor=(32,),
    depth_critic=(64, 64),
    observation=SORTED,
)  # a thousandth of the paper's weights: the target is a thousand times smaller, too


def _learning(*, size: int, depth: int, joint: int) -> LearningConfig:
    """Exact gradients, and PPO for so many steps in batches that keep two cores busy."""
    return LearningConfig(
        algorithm="exact",
        size=PPOConfig(size, environments=128, rollout=8192, minibatch=1024, epochs=4, gamma=0.9),
        depth=PPOConfig(
            depth, environments=256, rollout=16384, minibatch=2048, epochs=4, gamma=0.999
        ),
        joint=PPOConfig(joint, environments=256, rollout=4096, minibatch=1024, epochs=4, gamma=0.5),
        reward="average",
        validate_every=5,
    )


EMBEDDED_LEARNING = _learning(size=400_000, depth=800_000, joint=500_000)
STUDY_LEARNING = dataclasses.replace(
    _learning(size=200_000, depth=400_000, joint=500_000),
    algorithm="alternate",
    joint=LearningConfig().joint,
)  # the paper's schedule in a size that five seeds of it take minutes on two cores
QUICK_LEARNING = dataclasses.replace(
    _learning(size=80_000, depth=160_000, joint=200_000),
    exact=ExactConfig(updates=100, steps=16, minibatch=512),
)  # all ways of learning in a size that five seeds under every table take minutes on two cores
PAPER_WIDTHS = PolicyConfig()
PAPER_CYCLE = CycleConfig(
    beam_width=10, max_levels=12, sizes=tuple(range(0, 241, 20)), context=2048, prefill_chunk=256
)  # A.2: V = 20..240, W = 10, D at most 12; 0 added


class ConstantSetting(NamedTuple):
    """The same levels and size in every cycle."""

    levels: int
    size: int  # drafted nodes that are verified


PAPER_EAGLE3 = ConstantSetting(levels=8, size=60)  # Sec. 5
EMBEDDED_EAGLE3 = ConstantSetting(levels=5, size=16)  # scaled to the embedded pair, not tuned


def eagle3_default(cycle: CycleConfig) -> ConstantSetting:
    """EAGLE-3's fixed levels and size, the nearest ones that a cycle has.

    The paper's where the cycle has as many levels, else the embedded pair's; of two sizes that are
    equally near the smaller.

    Example:
      >>> eagle3_default(PAPER_CYCLE)
      ConstantSetting(levels=8, size=60)
    """
    is_full = cycle.max_levels >= PAPER_EAGLE3.levels
    levels, size = PAPER_EAGLE3 if is_full else EMBEDDED_EAGLE3
    nearest = min(cycle.sizes, key=lambda known: (abs(known - size), known))
    return ConstantSetting(min(levels, cycle.max_levels), nearest)


@dataclasses.dataclass(frozen=True)
class Preset:
    """What the commands start from for one kind of pair."""

    cycle: CycleConfig
    policy: PolicyConfig
    learning: LearningConfig


EMBEDDED = Preset(EMBEDDED_CYCLE, EMBEDDED_POLICY, EMBEDDED_LEARNING)
PAPER = Preset(PAPER_CYCLE, PolicyConfig(observation=SORTED), EMBEDDED_LEARNING)


def of(target: Path) -> Preset:
    """The preset of a target's folder: the embedded pair's own, the paper's for any other.

    The schedule of learning is the same: replayed decisions are as cheap for a large model.
    """
    return EMBEDDED if target == ASSETS / "target" else PAPER


# One of the paper's targets, as its config.json has it (Sec. 5); `eagle3_draft` gives its draft.
LLAMA_3_1_8B = TargetConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    layer_count=32,
    head_count=32,
    kv_head_count=8,
    head_dim=128,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
)


def eagle3_draft(target: TargetConfig, draft_vocab_size: int = 32000) -> DraftConfig:
    """A target's published EAGLE-3 draft: one of its layers, without q/k norms."""
    return DraftConfig(
        vocab_size=target.vocab_size,
        draft_vocab_size=draft_vocab_size,
        hidden_size=target.hidden_size,
        target_hidden_size=target.hidden_size,
        intermediate_size=target.intermediate_size,
        head_count=target.head_count,
        kv_head_count=target.kv_head_count,
        head_dim=target.head_dim,
        rms_norm_eps=target.rms_norm_eps,
    )
