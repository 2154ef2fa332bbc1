"""Is sampling lossless? Rows of a check over settings, rules and methods, on a random pair.

For every row: the chi-square p-value of the first tokens' joint law (uniform over all rows if
sampling is lossless) and the total variation, beside that of as many plainly decoded texts. Under
the coupled rule texts must even be plain decoding's, token by token. Methods are the compared ones
with random weights, on settings under which what they choose differs between places.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.proofs import distribution
from ltd_jax.baselines import catalogue, classifiers
from ltd_jax.baselines.catalogue import Setting
from ltd_jax.baselines.classifiers import Parts
from ltd_jax.config import CycleConfig, PolicyConfig, Rule, SamplingConfig
from ltd_jax.decoding import benchmark, methods
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import ResumableStore
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay import latency
from ltd_jax.replay.record import Prompt

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 8), context=24, prefill_chunk=8)
PROMPT = np.array([3, 1, 4, 1, 5])
TEXTS = 4  # in which choices are counted
SETTINGS = {
    "temperature 0.7": SamplingConfig(temperature=0.7),
    "temperature 1": SamplingConfig(temperature=1.0),
    "temperature 1.3": SamplingConfig(temperature=1.3),
    "top-p 0.9": SamplingConfig(temperature=1.0, top_p=0.9),
    "top-k 5": SamplingConfig(temperature=1.0, top_k=5),
    "penalty 1.3": SamplingConfig(temperature=1.0, repetition_penalty=1.3),
    "all": SamplingConfig(temperature=1.3, top_p=0.9, top_k=5, repetition_penalty=1.3),
}
TABLE = "a100-vicuna-13b-paper"  # what the cost-aware tree reckons with
POLICIES = 33  # key of random policies that choose two levels and two sizes here
WAVERING: dict[str, Setting] = {  # numbers under which a method's decisions differ between places
    "ddd": {"checks": (1.0, 2.0)},
    "svip": {"threshold": (0.55,)},
    "disco": {"threshold": (0.66,)},
    "specdec++": {"threshold": (0.5,)},
    "c2t": {"threshold": (0.2,)},
    "tiers": {"every": (1.0,), "warm_up": (0.0,)},
}
NUMBERS = ("p_value", "total_variation", "plain_total_variation", "plain_texts")  # of a row
SHAPES = ((1, 2), (2, 8), (3, 8), (3, 0))  # levels and size of constant trees


def pair_of(vocabulary: int) -> Pair:
    """The random pair that is checked."""
    return distribution.random_pair(vocabulary, CYCLE, seed=0)


def all_methods(hidden_size: int) -> list[Method]:
    """Trees of several shapes, the compared methods, and policies; weights are random.

    Args:
      hidden_size: of the draft, which SpecDec++ reads.
    """
    constants = [
        Method(
            f"constant:levels={levels},size={size}",
            policy_module.constant(),
            policy_module.constant_params(levels, size, CYCLE),
        )
        for levels, size in SHAPES
    ]
    widths = PolicyConfig((8,), (8,), (8,), (8,))
    drawn = networks.init_learned(jax.random.key(POLICIES), CYCLE, widths)
    learned = Method("ltd", networks.learned(CYCLE, widths), drawn)
    return [*constants, learned, *_rivals(hidden_size)]


def _rivals(hidden_size: int) -> list[Method]:
    """The compared methods, but for those that are constants."""
    parts, made = _parts(hidden_size), []
    for family in catalogue.METHODS:
        setting = catalogue.setting_of(family, CYCLE, WAVERING.get(family.name, {}))
        made.append(Method(family.name, *family.build(CYCLE, setting, parts)))
    return [method for method in made if method.controller is not policy_module.constant()]


def _parts(hidden_size: int) -> Parts:
    """Random classifiers and a shipped table, for the methods that need them."""
    key, widths = jax.random.key(1), dict.fromkeys(("disco", "specdec", "c2t"), 8)
    heads = {
        name: classifiers.head_network(name, width).init(
            jax.random.fold_in(key, place),
            jnp.zeros(classifiers.feature_width(name, CYCLE, hidden_size)),
        )
        for place, (name, width) in enumerate(widths.items())
    }
    table = latency.fit(latency.find(TABLE), CYCLE)
    power = np.ones(CYCLE.max_levels, np.float32)
    return Parts(heads, widths, power, methods.costs_of(table))


def choices(pair: Pair) -> dict[str, dict[str, int]]:
    """How often each method chose which "levels, size" in some texts at temperature 1."""
    prompt = Prompt(PROMPT.astype(np.int32), 0)
    room = CYCLE.context - len(PROMPT) - CYCLE.path_length
    found = {}
    for method in all_methods(pair.config.draft.hidden_size):
        runs = [
            benchmark.decode(pair.sampled(SETTINGS["temperature 1"], seed), method, prompt, 0, room)
            for seed in range(TEXTS)
        ]
        chosen = Counter(
            f"{levels}, {size}"
            for run in runs
            for levels, size in zip(run.levels, run.sizes, strict=True)
        )
        found[method.name] = dict(sorted(chosen.items()))
    return found


def rows(pair: Pair, name: str, draws: int, kept: ResumableStore) -> Iterator[dict[str, Any]]:
    """A setting by plain decoding, and by both rules with every method.

    Rows of the sequential rule are independent of one another. Under the coupled rule texts are
    compared one by one, and a tenth of them is drawn.

    Args:
      kept: where the numbers of rows are kept, of this setting alone.
    """
    setting, found = SETTINGS[name], all_methods(pair.config.draft.hidden_size)
    plain_seed = list(SETTINGS).index(name) * (len(found) + 1)
    pair = pair.sampled(setting, plain_seed)

    @functools.cache
    def plainly() -> tuple[np.ndarray, np.ndarray]:
        return distribution.exact(pair, PROMPT), distribution.drawn(pair, PROMPT, draws)

    def row(rule: Rule, method: Method, seed: int, count: int) -> list[float]:
        law, plain = plainly()
        ruled = pair.sampled(dataclasses.replace(setting, rule=rule), seed)
        texts = distribution.drawn(ruled, PROMPT, count, method.controller, method.params)
        return _numbers(texts, plain[:count], law)

    numbers = kept.entry("plain", lambda: _numbers(plainly()[1], *plainly()[::-1]))
    yield _row(name, "plain", "autoregressive", draws, numbers)
    rules: tuple[tuple[Rule, int], ...] = (("coupled", -(-draws // 10)), ("sequential", draws))
    for place, method in enumerate(found, 1):
        for rule, count in rules:
            seed = plain_seed + (place if rule == "sequential" else 0)
            made = partial(row, rule, method, seed, count)
            yield _row(name, rule, method.name, count, kept.entry(f"{rule} {method.name}", made))


def _numbers(texts: np.ndarray, plain: np.ndarray, law: np.ndarray) -> list[float]:
    """Of some texts and as many plainly decoded ones, in the order of NUMBERS."""
    fit, noise = distribution.fit(texts, law), distribution.fit(plain, law)
    equal = float((texts == plain).all(axis=1).mean())
    return [fit.p_value, fit.total_variation, noise.total_variation, equal]


def _row(
    setting: str, rule: str, method: str, draws: int, numbers: Sequence[float] | np.ndarray
) -> dict[str, Any]:
    head = {"setting": setting, "rule": rule, "method": method, "draws": draws}
    return head | dict(zip(NUMBERS, map(float, numbers), strict=True))


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
