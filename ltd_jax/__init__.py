"""Adaptive speculative decoding in JAX: a draft proposes, the target verifies, policies decide.

    import ltd_jax as ltd

    pair = ltd.load()                                     # the pair that ships, or two folders
    shown = pair.stream()                                 # holds back what is no whole character
    for step in ltd.generate(pair, ltd.Constant(levels=4, size=8), "def add(a, b):", 64):
        print(shown.add(step.tokens), end="")             # the tokens of ltd.generate_plain

    trace = ltd.record(pair, prompts, new_tokens=128)     # what every (levels, size) would accept
    table = ltd.profile(pair)                             # what every (levels, size) costs here
    trained = ltd.train(ltd.Simulator.of(trace, table))   # both policies, in seconds
    ltd.save_policy(trained.policy, "policy.safetensors", table)

"Learning to Draft" (LTD, ICLR 2026), and where each of its parts is:

    3.2  draft, select, verify, commit    cycle/
    4    state and observation            policies/observe
    4    action, reward                   learning/environment
    4    the order of learning            learning/alternate
    5    the compared methods             baselines/
    A.2  the policies' networks           policies/networks
    A.3  PPO                              learning/ppo
    tables and figures                    experiments/paper/

Imports go one way: config, files; text, questions; models; policies; cycle; replay; learning;
baselines, decoding, draft_training; workflow, tune; cli.

Dimension key (suffixes of local arrays; scalars have none):
    B sequences or environments under vmap   T query tokens   S cache slots   P trace positions
    D draft levels   W beam width            N tree nodes     V sizes         A actions
    O observation features                   E embedding      H query heads   K kv heads
    C head channels  F feed-forward          X target vocabulary              Y draft vocabulary

Words:
    levels      node levels below the root = draft passes in the cycle
    size        drafted nodes that the target verifies, root not counted; `size_index` its place in
                CycleConfig.sizes
    beam_width  nodes that each draft pass starts from, and children kept of each
    accepted    drafted tokens that the target agreed with in a cycle
    committed   accepted + 1: the target's own next token is always gained
    root        the last token that the target produced; its own keys are not cached yet
    cycle       one round of drafting and verifying
    policy      whatever chooses levels and size: a constant, a rule, a classifier, LTD's networks
    trace       what draft and target would have said at every position of a text
    throughput  committed tokens / seconds, both summed over cycles before dividing
"""

import sys

try:
    from ltd_jax import baselines
except ModuleNotFoundError as error:
    if sys.argv[0] != "-m" or str(error.name).startswith("ltd_jax"):
        raise
    sys.exit(
        f"error: {sys.executable} lacks {error.name}, which ltd_jax needs; use the Python that it "
        "was installed with, .venv/bin/python after `make quickstart`, or `pip install .` here."
    )
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig, SamplingConfig
from ltd_jax.decoding.benchmark import benchmark
from ltd_jax.decoding.generate import Step, generate, generate_plain, warm_up
from ltd_jax.decoding.lossless import check_lossless
from ltd_jax.files import VERSION as __version__
from ltd_jax.files import UserError
from ltd_jax.learning import train
from ltd_jax.models.pair import Pair, load
from ltd_jax.policies.networks import Learned
from ltd_jax.policies.policy import Constant, Policy
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import best_constant
from ltd_jax.replay.optimum import clairvoyant as optimum
from ltd_jax.replay.profile import profile
from ltd_jax.replay.record import record
from ltd_jax.replay.simulate import Simulator
from ltd_jax.replay.trace import Trace
from ltd_jax.workflow import load_policy, save_policy

__all__ = [
    "Constant",
    "CycleConfig",
    "LatencyTable",
    "Learned",
    "LearningConfig",
    "Pair",
    "Policy",
    "PolicyConfig",
    "SamplingConfig",
    "Simulator",
    "Step",
    "Trace",
    "UserError",
    "__version__",
    "baselines",
    "benchmark",
    "best_constant",
    "check_lossless",
    "generate",
    "generate_plain",
    "load",
    "load_policy",
    "optimum",
    "profile",
    "record",
    "save_policy",
    "train",
    "warm_up",
]
