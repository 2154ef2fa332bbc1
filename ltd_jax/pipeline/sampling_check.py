"""Is sampling lossless? Rows of a check over settings, rules and methods, on a random pair.

For every row: the chi-square p-value of the first tokens' joint law (uniform over all rows if
sampling is lossless) and the total variation, beside that of as many plainly decoded texts. Under
the coupled rule texts must even be plain decoding's, token by token.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding import distribution
from ltd_jax.decoding.benchmark import Method
from ltd_jax.policies import controller, networks
from ltd_jax.sampling import SamplingConfig

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 8), context=24, prefill_chunk=8)
PROMPT = np.array([3, 1, 4, 1, 5])
SETTINGS = {
    "temperature 0.7": SamplingConfig(temperature=0.7),
    "temperature 1": SamplingConfig(temperature=1.0),
    "temperature 1.3": SamplingConfig(temperature=1.3),
    "top-p 0.9": SamplingConfig(temperature=1.0, top_p=0.9),
    "top-k 5": SamplingConfig(temperature=1.0, top_k=5),
    "penalty 1.3": SamplingConfig(temperature=1.0, repetition_penalty=1.3),
    "all": SamplingConfig(temperature=1.3, top_p=0.9, top_k=5, repetition_penalty=1.3),
}
SHAPES = ((1, 2), (2, 8), (3, 8), (3, 0))  # levels and size of constant trees


def methods() -> list[Method]:
    """Trees of several shapes, and policies that change the shape from cycle to cycle."""
    constants = [
        Method(
            f"constant:levels={levels},size={size}",
            controller.constant(),
            controller.constant_params(levels, size, CYCLE),
        )
        for levels, size in SHAPES
    ]
    widths = PolicyConfig((8,), (8,), (8,), (8,))
    drawn = networks.init_learned(jax.random.key(0), CYCLE, widths)
    louder = jax.tree.map(lambda leaf: 5 * leaf, drawn)  # decisions that differ between places
    return [*constants, Method("ltd", networks.learned(CYCLE, widths), louder)]


def rows(pair: Pair, draws: int) -> Iterator[dict[str, Any]]:
    """Every setting by plain decoding, and by both rules with every method."""
    seed = 0
    for name, setting in SETTINGS.items():
        seed = plain_seed = seed + 1
        pair = pair.sampled(setting, plain_seed)
        law, plain = distribution.exact(pair, PROMPT), distribution.drawn(pair, PROMPT, draws)
        yield _row(name, "plain", "autoregressive", plain, plain, law)
        for method in methods():
            seed += 1  # rows of the sequential rule are independent of one another
            for rule, own_seed in (("coupled", plain_seed), ("sequential", seed)):
                ruled = pair.sampled(dataclasses.replace(setting, rule=rule), own_seed)
                texts = distribution.drawn(ruled, PROMPT, draws, method.controller, method.params)
                yield _row(name, rule, method.name, texts, plain, law)


def _row(
    setting: str, rule: str, method: str, texts: np.ndarray, plain: np.ndarray, law: np.ndarray
) -> dict[str, Any]:
    fit, noise = distribution.fit(texts, law), distribution.fit(plain, law)
    return {
        "setting": setting,
        "rule": rule,
        "method": method,
        "p_value": fit.p_value,
        "total_variation": fit.total_variation,
        "plain_total_variation": noise.total_variation,
        "plain_texts": float((texts == plain).all(axis=1).mean()),
    }


def summary(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of all rows; coupled ones repeat plain decoding's texts, so their p-values count once."""
    free = [row["p_value"] for row in found if row["rule"] != "coupled"]
    return {
        "least_p_value": min(free),
        "uniformity_p_value": distribution.uniformity(free),
        "most_variation_over_plain": max(
            row["total_variation"] / row["plain_total_variation"] for row in found
        ),
        "least_share_of_plain_texts_when_coupled": min(
            row["plain_texts"] for row in found if row["rule"] == "coupled"
        ),
    }
