"""From a pair to advice: record a little, measure the device, learn, compare, check live.

Everything is left in the output folder as train_policies leaves it (traces, latency.json,
policies), so evaluate can go on from there.
"""

import dataclasses
import time
from typing import Any

from rich.console import Console

from experiments.report.advice import Advice, AtContext, Found
from experiments.studies import ground as grounds
from experiments.studies import scores, settings_file
from experiments.studies.ground import Ground
from experiments.studies.scores import Score
from experiments.studies.settings_file import DecodeSettings
from ltd_jax import workflow
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.workflow import Settings, Trained

PLAIN = benchmark.PLAIN
CANDIDATES = (PLAIN, "best_constant", "ltd")  # of these one is chosen


def advise(pair: Pair, config: Settings, live_prompts: int, console: Console) -> Advice:
    """All of it; writes OUT/settings.json.

    Args:
      live_prompts: test prompts that are decoded live, per task; 0 = none.
    """
    started = time.monotonic()
    trained = workflow.train_policies(pair, config, console)
    here = grounds.ground(pair, config, None, console)
    replayed = replay_scores(here, trained)
    runs = decoded_live(pair, here, trained, config, live_prompts, console)
    methods = [found(name, here, replayed[name], runs) for name in replayed]
    chosen = choose(methods)
    rates = [replayed[name].tokens_per_second for name in ("ltd", "best_constant", "optimum")]
    advice = Advice(
        schema=1,
        environment=pair.environment,
        ground=here.origin,
        methods=methods,
        contexts=[at_context(here, row) for row in range(len(here.table.contexts))],
        chosen=chosen,
        share_of_gap=optimum.share_gained(*rates) if rates[2] > rates[1] else 0.0,
        seconds=time.monotonic() - started,
    )
    settings_file.save(settings_of(pair, here, config, chosen), advice["environment"])
    return advice


def replay_scores(here: Ground, trained: Trained) -> dict[str, Score]:
    """Every way to decode on the test texts, by name."""
    return {
        PLAIN: scores.of_plain(here),
        "eagle3": scores.of_constant(here, *here.eagle3),
        "best_constant": scores.of_constant(here, here.best.levels, here.best.size),
        "ltd": scores.of_policies(here, trained.policies.params),
        "optimum": scores.of_optimum(here),
    }


def decoded_live(
    pair: Pair,
    here: Ground,
    trained: Trained,
    config: Settings,
    live_prompts: int,
    console: Console,
) -> list[Run]:
    """The methods in turns on a few test prompts of every task."""
    every = workflow.load_prompts(pair, config.asked, "test", config.out / "traces").prompts
    few = [
        prompt
        for task in range(len(here.tasks))
        for prompt in [each for each in every if each.task == task][:live_prompts]
    ]
    if not few:
        return []
    cycle, fixed = here.cycle, policy_module.constant()
    constants = {"eagle3": here.eagle3, "best_constant": (here.best.levels, here.best.size)}
    methods = [Method(PLAIN)] + [
        Method(name, fixed, policy_module.constant_params(*setting, cycle))
        for name, setting in constants.items()
    ]
    learned = networks.learned(cycle, trained.policies.widths)
    methods.append(Method("ltd", learned, trained.policies.params))
    with workflow.bar(console, "check live") as advance:
        done: list[Run] = []

        def report(batch: list[Run]) -> None:
            done.extend(batch)
            advance(len(done) / (len(few) * len(methods)))

        return benchmark.interleaved(pair, methods, few, config.asked.new_tokens, done=report)


def found(name: str, here: Ground, score: Score, runs: list[Run]) -> Found:
    """One method's numbers."""
    settings_by_name = {"eagle3": here.eagle3, "best_constant": tuple(here.best[:2])}
    levels, size = settings_by_name.get(name, (None, None))
    live: tuple[Any, Any, Any] = (None, None, None)
    by_task = benchmark.ratios(runs, name, PLAIN)
    if by_task:
        live = benchmark.interval(by_task)
    plain = scores.of_plain(here).tokens_per_second
    return Found(
        method=name,
        levels=levels,
        size=size,
        tokens_per_second=score.tokens_per_second,
        speedup=score.tokens_per_second / plain,
        live=live[0],
        live_low=live[1],
        live_high=live[2],
    )


def choose(methods: list[Found]) -> str:
    """The fastest by replay; plain decoding where it measured live as surely slower than that."""
    candidates = [each for each in methods if each["method"] in CANDIDATES]
    best = max(candidates, key=lambda each: each["tokens_per_second"])
    slower = best["live_high"] is not None and best["live_high"] < 1
    return PLAIN if slower else best["method"]


def at_context(here: Ground, row: int) -> AtContext:
    """The best constant setting if all texts stood behind as many tokens as one of the contexts."""
    table = at(here.table, row)
    best = optimum.best_constant(
        simulate.with_latency(here.validation, table, here.cycle), here.cycle
    )
    speedup = best.tokens_per_second * float(table.plain_seconds[0])
    return AtContext(
        context=int(table.contexts[0]), levels=best.levels, size=best.size, speedup=speedup
    )


def at(table: LatencyTable, row: int) -> LatencyTable:
    """The table of one of its contexts."""
    names = ("contexts", "cycle_seconds", "draft_seconds", "verify_seconds", "plain_seconds")
    return dataclasses.replace(
        table, **{name: getattr(table, name)[row : row + 1] for name in names}
    )


def settings_of(pair: Pair, here: Ground, config: Settings, chosen: str) -> DecodeSettings:
    """The settings file of a choice."""
    names = {
        "best_constant": f"constant:levels={here.best.levels},size={here.best.size}",
        "ltd": "ltd",
    }
    return DecodeSettings(
        path=config.out / "settings.json",
        controller=names.get(chosen, chosen),
        policies=config.out / "policies" if chosen == "ltd" else None,
        cycle=pair.config.cycle,
        **{name: here.origin[name] for name in ("fingerprint", "device", "dtype", "latency")},
    )
