"""The compared methods (Sec. 5) as policies whose fields are their settings.

DDD stops drafting below a mean log-probability, SVIP above an entropy, GammaTune follows a mean of
what was accepted, DISCO, SpecDec++ and C2T ask a trained classifier, Tiers and CostAware choose the
size too. `catalogue` knows their names, sources and published settings.
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
