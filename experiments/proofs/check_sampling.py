"""Is sampling lossless? The law of a text's first three tokens, drawn by the compiled cycle.

    python -m experiments.proofs.check_sampling --draws 200000 --processes 2
    python -m experiments.proofs.check_sampling --draws 4000          shows that it runs

A random pair of a small vocabulary, whose exact law is computed from the target alone; 7 settings,
14 methods, both rules. Methods are the compared ones with random weights, on settings under which
what they choose differs between places. A row has the chi-square p-value of the law and the total
variation, beside that of as many plainly decoded texts. Expected: p-values uniform over the rows,
total variation that of plain decoding, and every coupled text plain decoding's own. Writes
OUT/sampling.json. About 40 minutes on 2 CPU cores, most of it drawing. Stopped, the same command
goes on.
"""

import dataclasses
import functools
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments.proofs import distribution
from ltd_jax import files, flags
from ltd_jax.baselines import catalogue, classifiers, cost_aware
from ltd_jax.baselines.catalogue import Needs
from ltd_jax.config import CycleConfig, PolicyConfig, Rule, SamplingConfig
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import ResumableStore
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.policies.policy import Constant
from ltd_jax.replay.latency import LatencyTable
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
CLASSIFIER_WIDTH = 8
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))
POLICIES = 33  # key of random policies that choose two levels and two sizes here
WAVERING: dict[str, dict[str, Any]] = {  # settings under which decisions differ between places
    "ddd": {"checks": (1, 2)},
    "svip": {"threshold": 0.55},
    "disco": {"threshold": 0.66},
    "specdec++": {"threshold": 0.5},
    "c2t": {"threshold": 0.2},
    "tiers": {"every": 1, "warm_up": 0},
}
SHAPES = ((1, 2), (2, 8), (3, 8), (3, 0))  # levels and size of constant trees
NUMBERS = ("p_value", "total_variation", "plain_total_variation", "plain_texts")  # of a row


@dataclasses.dataclass(frozen=True)
class Config:
    """How much to draw."""

    draws: int = 200_000  # texts per row
    vocabulary: int = 10
    processes: int = 1  # that share the settings
    out: Path = Path("runs/sampling")


def main() -> None:
    config = tyro.cli(Config)
    flags.at_least_one(config, "draws", "processes")
    path = flags.writable(config.out) / "sampling.json"
    flags.writable(config.out / "rows")
    choices = count_choices(make_pair(config.vocabulary))
    print("levels, size and how often:")
    for name, counts in choices.items():
        print(name, counts)
    spawning = multiprocessing.get_context("spawn")
    unheard = (signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches all processes; this one ends them
    with ProcessPoolExecutor(config.processes, spawning, signal.signal, unheard) as pool:
        try:
            checked = pool.map(partial(check_setting, config), SETTINGS)
            rows = [row for setting_rows in checked for row in setting_rows]
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    summary = summarize(rows)
    head = {"draws": config.draws, "environment": files.environment("float32")}
    content = head | summary | {"choices": choices, "rows": rows}
    files.write_json(path, content)
    print(summary)
    print(f"Written: {path}")


def make_pair(vocabulary: int) -> Pair:
    """The random pair that is checked."""
    return distribution.random_pair(vocabulary, CYCLE, seed=0)


def make_methods(hidden_size: int) -> list[Method]:
    """Trees of several shapes, random policies, and the compared methods that are no constants.

    Args:
      hidden_size: of the draft, which SpecDec++ reads.
    """
    constants = [
        Method(f"constant:levels={levels},size={size}", Constant(levels, size))
        for levels, size in SHAPES
    ]
    learned = networks.init(jax.random.key(POLICIES), CYCLE, WIDTHS)
    needs = Needs(
        classifiers=classifiers.init(
            jax.random.key(1), CYCLE, hidden_size, CLASSIFIER_WIDTH, provenance={}
        ),
        costs=cost_aware.costs_of(LatencyTable.find(TABLE, CYCLE)),
    )
    policies: dict[str, Any] = {
        baseline.name: baseline.published(CYCLE, needs) for baseline in catalogue.BASELINES
    }
    compared = [
        Method(name, policy.replace(**WAVERING.get(name, {})))
        for name, policy in policies.items()
        if not policy.is_constant
    ]
    return [*constants, Method(benchmark.LEARNED, learned), *compared]


def count_choices(pair: Pair) -> dict[str, dict[str, int]]:
    """How often each method chose which "levels, size" in some texts at temperature 1."""
    prompt = Prompt(PROMPT.astype(np.int32), 0)
    room = CYCLE.context - len(PROMPT) - CYCLE.path_length
    choices = {}
    for method in make_methods(pair.config.draft.hidden_size):
        runs = [
            benchmark.decode(pair.sampled(SETTINGS["temperature 1"], seed), method, prompt, 0, room)
            for seed in range(TEXTS)
        ]
        counts = Counter(
            f"{levels}, {size}"
            for run in runs
            for levels, size in zip(run.levels, run.sizes, strict=True)
        )
        choices[method.name] = dict(sorted(counts.items()))
    return choices


def check_setting(config: Config, setting: str) -> list[dict[str, Any]]:
    """All rows of one setting; prints them as they come."""
    origin = {"draws": config.draws, "vocabulary": config.vocabulary, "jax": jax.__version__}
    path = config.out / "rows" / f"{setting.replace(' ', '-')}.json"
    rows = []
    for row in make_rows(
        make_pair(config.vocabulary), setting, config.draws, ResumableStore(path, origin)
    ):
        rows.append(row)
        print(
            f"{row['setting']:<16} {row['rule']:<10} {row['method']:<26} p {row['p_value']:.3f}  "
            f"variation {row['total_variation']:.4f} (plain {row['plain_total_variation']:.4f})",
            flush=True,
        )
    return rows


def make_rows(pair: Pair, name: str, draws: int, store: ResumableStore) -> Iterator[dict[str, Any]]:
    """A setting by plain decoding, and by both rules with every method.

    Rows of the sequential rule are independent of one another. Under the coupled rule texts are
    compared one by one, and a tenth of them is drawn.

    Args:
      store: keeps the numbers of rows, of this setting alone.
    """
    setting, methods = SETTINGS[name], make_methods(pair.config.draft.hidden_size)
    plain_seed = list(SETTINGS).index(name) * (len(methods) + 1)
    pair = pair.sampled(setting, plain_seed)
    counts = {"plain": draws, "coupled": -(-draws // 10), "sequential": draws}
    law = functools.cache(lambda: distribution.exact(pair, PROMPT))
    plain = functools.cache(lambda: distribution.drawn(pair, PROMPT, draws))

    def make_row(rule: str, method: Method, texts: Callable[[], np.ndarray]) -> dict[str, Any]:
        """A row whose texts are drawn where the store has no numbers of them."""
        numbers = store.entry(
            "plain" if rule == "plain" else f"{rule} {method.name}",
            lambda: compare(texts(), plain(), law()),
        )
        head = {"setting": name, "rule": rule, "method": method.name, "draws": counts[rule]}
        return head | dict(zip(NUMBERS, map(float, numbers), strict=True))

    def draw(rule: Rule, method: Method, seed: int) -> np.ndarray:
        ruled = pair.sampled(dataclasses.replace(setting, rule=rule), seed)
        return distribution.drawn(ruled, PROMPT, counts[rule], method.policy)

    yield make_row("plain", Method(benchmark.PLAIN), plain)
    for place, method in enumerate(methods, 1):
        yield make_row("coupled", method, partial(draw, "coupled", method, plain_seed))
        seed = plain_seed + place
        yield make_row("sequential", method, partial(draw, "sequential", method, seed))


def compare(texts: np.ndarray, plain: np.ndarray, law: np.ndarray) -> list[float]:
    """NUMBERS, in their order, of some texts beside as many plainly decoded ones."""
    plain = plain[: len(texts)]
    fit, noise = distribution.fit(texts, law), distribution.fit(plain, law)
    equal = float((texts == plain).all(axis=1).mean())
    return [fit.p_value, fit.total_variation, noise.total_variation, equal]


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of all rows; coupled ones repeat plain decoding's texts, so their p-values count once."""
    free = [row["p_value"] for row in rows if row["rule"] != "coupled"]
    return {
        "least_p_value": min(free),
        "uniformity_p_value": distribution.uniformity(free),
        "most_variation_over_plain": max(
            row["total_variation"] / row["plain_total_variation"] for row in rows
        ),
        "least_share_of_plain_texts_when_coupled": min(
            row["plain_texts"] for row in rows if row["rule"] == "coupled"
        ),
    }


if __name__ == "__main__":
    flags.run(main)
