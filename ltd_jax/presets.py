"""Named settings: the embedded pair's, and the paper's for all others."""

import dataclasses
from pathlib import Path

from ltd_jax.config import (
    CycleConfig,
    DraftConfig,
    ExactConfig,
    LearningConfig,
    ObservationConfig,
    PolicyConfig,
    PPOConfig,
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


# Exact gradients, and PPO in batches that keep two cores busy.
EMBEDDED_LEARNING = LearningConfig(
    algorithm="exact",
    size=PPOConfig(400_000, environments=128, rollout=8192, minibatch=1024, epochs=4, gamma=0.9),
    depth=PPOConfig(
        800_000, environments=256, rollout=16384, minibatch=2048, epochs=4, gamma=0.999
    ),
    joint=PPOConfig(500_000, environments=256, rollout=4096, minibatch=1024, epochs=4, gamma=0.5),
    reward="average",
    validate_every=5,
)
QUICK_LEARNING = dataclasses.replace(
    EMBEDDED_LEARNING,
    size=dataclasses.replace(EMBEDDED_LEARNING.size, total_steps=80_000),
    depth=dataclasses.replace(EMBEDDED_LEARNING.depth, total_steps=160_000),
    joint=dataclasses.replace(EMBEDDED_LEARNING.joint, total_steps=200_000),
    exact=ExactConfig(updates=100, steps=16, minibatch=512),
)  # all ways of learning in a size that five seeds under every table take minutes on two cores
PAPER_CYCLE = CycleConfig(
    beam_width=10, max_levels=12, sizes=tuple(range(0, 241, 20)), context=2048, prefill_chunk=256
)  # A.2: V = 20..240, W = 10, D at most 12; 0 added


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
