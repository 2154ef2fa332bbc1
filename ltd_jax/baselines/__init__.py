"""The compared methods (Sec. 5) as policies whose fields are their settings.

DDD stops drafting where the frontier's probability mass is low, SVIP where the draft's entropy is
high, GammaTune after a running mean of accepted tokens; Disco, SpecDec++ and C2T ask a trained
classifier; C2T, Tiers and CostAware choose the size, too. `catalogue` knows their names, sources
and published settings.
"""

from ltd_jax.baselines.classifiers import C2T, Disco, SpecDecPP
from ltd_jax.baselines.cost_aware import CostAware
from ltd_jax.baselines.published import PublishedPolicies
from ltd_jax.baselines.rules import DDD, SVIP, GammaTune, Tiers

__all__ = [
    "C2T",
    "DDD",
    "SVIP",
    "CostAware",
    "Disco",
    "GammaTune",
    "PublishedPolicies",
    "SpecDecPP",
    "Tiers",
]
