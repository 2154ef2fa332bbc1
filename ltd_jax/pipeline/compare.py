"""The comparison: which methods, on which prompts, decoded in turns; runs are kept as they come."""

import dataclasses
import json
from pathlib import Path

from rich.console import Console

from ltd_jax import presets
from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding import benchmark, comparison
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.errors import UserError
from ltd_jax.pipeline import questions, stages
from ltd_jax.pipeline.stages import Recording
from ltd_jax.pipeline.training import Trained
from ltd_jax.policies import controller, networks
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.trace import replacing


def methods_of(pair: Pair, trained: Trained) -> list[Method]:
    """What is compared: the four methods of the report, and two constants that test the replay."""
    cycle, constant, best = pair.config.cycle, controller.constant(), trained.best
    levels, size = presets.of(pair.folder).eagle3
    probes = {
        "eagle3": (min(levels, cycle.max_levels), nearest(cycle.sizes, size)),
        "best_constant": (best.levels, best.size),
        "constant:levels=1": (1, cycle.sizes[1]),
        "constant:most": (cycle.max_levels, cycle.sizes[-1]),
    }
    fixed = [
        Method(name, constant, controller.constant_params(*setting, cycle))
        for name, setting in probes.items()
    ]
    policies = trained.policies
    learned = Method("ltd", networks.learned(cycle, policies.widths), policies.params)
    return [Method(comparison.PLAIN), *fixed, learned]


def nearest(sizes: tuple[int, ...], wanted: int) -> int:
    """The compiled size nearest to one that may not be compiled."""
    return min(sizes, key=lambda size: abs(size - wanted))


def runs_of(
    pair: Pair, methods: list[Method], found: list[Prompt], settings: Recording, console: Console
) -> list[Run]:
    """Decodes all prompts with all methods in turns; prompts that were measured before are kept."""
    path = settings.out / "runs.jsonl"
    kept = _kept(path, pair, found)
    skip = frozenset(run.prompt for run in kept)
    with stages.bar(console, "decode and compare") as advance:

        def done(batch: list[Run]) -> None:
            kept.extend(batch)
            rows = [json.dumps(dataclasses.asdict(run)) for run in kept]
            with replacing(path) as temporary:
                head = json.dumps(
                    {"fingerprint": pair.fingerprint, "prompts": questions.digest_of(found)}
                )
                temporary.write_text("\n".join([head, *rows]) + "\n")
            advance(len({run.prompt for run in kept}) / len(found))

        benchmark.interleaved(pair, methods, found, settings.asked.new_tokens, skip=skip, done=done)
    return kept


def _kept(path: Path, pair: Pair, found: list[Prompt]) -> list[Run]:
    if not path.exists():
        return []
    try:
        head, *rows = [json.loads(line) for line in path.read_text().splitlines()]
        runs = [
            Run(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()})
            for row in rows
        ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to measure again.") from error
    stages.must_equal(path, "fingerprint", head.get("fingerprint"), pair.fingerprint)
    stages.must_equal(path, "prompts", head.get("prompts"), questions.digest_of(found))
    return runs
