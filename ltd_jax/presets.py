"""Named settings: the embedded pair's, and the paper's."""

from ltd_jax.config import (
    CycleConfig,
    DraftConfig,
    LearningConfig,
    PolicyConfig,
    PPOConfig,
    TargetConfig,
)

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
    max_levels=6, sizes=(0, 1, 2, 3, 4, 6, 8, 12, 16, 24), context=384
)  # no more than pays on a small target: unused levels would still cost rows in every cycle
EMBEDDED_POLICY = PolicyConfig(
    size_actor=(64,), size_critic=(128, 64), depth_actor=(32,), depth_critic=(64, 64)
)  # a thousandth of the paper's weights: the target is a thousand times smaller, too
EMBEDDED_LEARNING = LearningConfig(
    size=PPOConfig(
        total_steps=400_000,
        environments=128,
        rollout=8192,
        minibatch=1024,
        epochs=4,
        gamma=0.9,
    ),
    depth=PPOConfig(
        total_steps=800_000,
        environments=256,
        rollout=16384,
        minibatch=2048,
        epochs=4,
        gamma=0.999,
    ),
    reward="renewal",
    validate_every=5,
)
PAPER_CYCLE = CycleConfig(
    beam_width=10, max_levels=12, sizes=tuple(range(0, 241, 20)), context=2048, prefill_chunk=256
)  # A.2: V = 20..240, W = 10, D at most 12; 0 added

# EAGLE-3's fixed setting scaled to the embedded pair, not tuned (paper: 8 levels, 60 nodes).
EAGLE3_LEVELS = 5
EAGLE3_SIZE = 16
