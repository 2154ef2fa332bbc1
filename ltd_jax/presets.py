"""Named settings, and the preset that a target has on a kind of device."""

import dataclasses

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
LEARNING = LearningConfig(
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
    LEARNING,
    size=dataclasses.replace(LEARNING.size, total_steps=80_000),
    depth=dataclasses.replace(LEARNING.depth, total_steps=160_000),
    joint=dataclasses.replace(LEARNING.joint, total_steps=200_000),
    exact=ExactConfig(updates=100, steps=16, minibatch=512),
)  # all ways of learning in a size that five seeds under every table take minutes on two cores
PAPER_CYCLE = CycleConfig(
    beam_width=10, max_levels=12, sizes=tuple(range(0, 241, 20)), context=2048, prefill_chunk=256
)  # A.2: V = 20..240, W = 10, D at most 12; 0 added
# A processor pays for every row: of a target of 135M weights on two cores a pass over 2 to 5, 7,
# 10, 13, 17 and 33 rows costs 1.2, 1.5, 1.6, 2.0, 2.4 and 3.6 passes over one. Its kernels sum five
# rows at a time, so 4, 9 and 14 nodes and the root waste none. A level of a draft costs 0.06.
CPU_CYCLE = CycleConfig(
    beam_width=4,
    max_levels=5,
    sizes=(0, 1, 2, 3, 4, 6, 9, 14),
    context=512,
    cycles_per_call=2,
    short_catch_ups=(2,),
)
PAPER_POLICY = PolicyConfig(observation=SORTED)  # the paper's widths
SMALL_TARGET = 10**9  # weights; beside fewer of them decisions of the paper's width cost too much
CACHES_SHARE = 0.25  # of a device's memory that the caches of one text may take
LEAST_CONTEXT = 64  # of a preset, whatever a target is for


@dataclasses.dataclass(frozen=True)
class Preset:
    """What the commands start from for a target on a device."""

    cycle: CycleConfig
    policy: PolicyConfig
    most_context: int  # tokens up to which the context may grow with a prompt

    def context_for(self, tokens: int) -> int:
        """The context in which so many tokens of prompt and answer fit, as far as it may grow.

        The cycle's own, or the next power of two: so few programs are compiled for many prompts.
        """
        if tokens <= self.cycle.context:
            return self.cycle.context
        return min(1 << (tokens - 1).bit_length(), self.most_context)


def of(device: str, target: TargetConfig | None = None, memory: int | None = None) -> Preset:
    """The preset of a target on a kind of device.

    The pair that ships has its own. On a processor trees and policies are small, on an accelerator
    trees are the paper's, and policies where the target is not small. The context is the cycle's,
    but no longer than the texts that the target is for, and it may grow to these as far as a
    quarter of the memory holds the caches.

    Args:
      device: "cpu", or jax's name of an accelerator.
      target: None = not known yet.
      memory: bytes of the device; None = not known.
    """
    is_cpu = device == "cpu"
    cycle, policy = (CPU_CYCLE, EMBEDDED_POLICY) if is_cpu else (PAPER_CYCLE, PAPER_POLICY)
    if target is None:
        return Preset(cycle, policy, cycle.context)
    if is_embedded(target):
        cycle, policy = EMBEDDED.cycle, EMBEDDED.policy
    elif weight_count(target) < SMALL_TARGET:
        policy = EMBEDDED_POLICY
    longest = target.longest_text or cycle.context
    if memory is not None:
        longest = min(longest, int(CACHES_SHARE * memory / cache_bytes(target, 4 if is_cpu else 2)))
    longest = max(longest, LEAST_CONTEXT)
    usual = dataclasses.replace(cycle, context=min(cycle.context, longest))
    return Preset(usual, policy, longest)


def is_embedded(target: TargetConfig) -> bool:
    """Whether a target has the shape of the one that ships, whichever layers a draft reads."""
    return dataclasses.replace(target, feature_layers=()) == dataclasses.replace(
        EMBEDDED_TARGET, feature_layers=()
    )


def weight_count(target: TargetConfig) -> int:
    """Weights of a target's maps and embeddings; norms and biases are few."""
    E, C = target.hidden_size, target.head_dim
    attention = E * C * (2 * target.head_count + 2 * target.kv_head_count)
    layer = attention + 3 * E * target.intermediate_size
    embeddings = (1 if target.tie_embeddings else 2) * target.vocab_size * E
    return target.layer_count * layer + embeddings


def cache_bytes(target: TargetConfig, itemsize: int) -> int:
    """Bytes of a target's keys and values of one token."""
    return 2 * target.layer_count * target.kv_head_count * target.head_dim * itemsize


EMBEDDED = Preset(EMBEDDED_CYCLE, EMBEDDED_POLICY, most_context=2048)
