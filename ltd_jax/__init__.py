"""Adaptive speculative decoding in JAX: a draft proposes, the target verifies, policies decide.

The pipeline (one folder each, imports go only upwards in this list):

    config, checkpoint   frozen settings; orbax checkpoints with provenance
    models               target (Llama, Qwen3) and EAGLE-3 draft as pure functions over pytrees
    cycle                expand -> observe -> select -> verify -> commit: one compiled program
    policies             controllers: constants, the two learned policies
    replay               every outcome of every choice, recorded once; time from a measured table
    learning             on the replay: PPO in the paper's order or jointly, or exact gradients
    decoding             generate with a controller; benchmark
    report               rows -> tables, plots, one HTML page

Dimension key (suffixes of local arrays; scalars have none):
    B sequences or environments under vmap   T query tokens   S cache slots   P trace positions
    D draft levels   W beam width            N tree nodes        V verified nodes  A actions
    O observation features                   E embedding         H query heads     K kv heads
    C head channels  F feed-forward          X target vocabulary Y draft vocabulary

Words:
    levels     node levels below the root = draft forward passes in the cycle
    size       drafted nodes sent to the target, root not counted (the pass reads size + 1 tokens)
    accepted   drafted tokens the target agreed with in a cycle
    committed  accepted + 1: the target's own next token is always gained
    root       the last token the target produced; its own keys are not cached yet
    throughput committed tokens / seconds, both summed over cycles before dividing
"""

from ltd_jax.files import VERSION as __version__

__all__ = ["__version__"]
