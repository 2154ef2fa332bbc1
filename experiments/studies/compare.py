"""The comparison: which methods, on which prompts, decoded in turns; runs are kept as they come."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from ltd_jax import presets, workflow
from ltd_jax.config import describe_sampling
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.files import UserError, replacing
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay.record import Prompt
from ltd_jax.workflow import Recording, Trained


def methods_of(pair: Pair, trained: Trained) -> list[Method]:
    """What is compared: the four methods of the report, and a constant that tests the replay."""
    cycle, constant, best = pair.config.cycle, policy_module.constant(), trained.best
    levels, size = presets.of(pair.folder).eagle3
    probes = {
        "eagle3": (min(levels, cycle.max_levels), nearest(cycle.sizes, size)),
        "best_constant": (best.levels, best.size),
        "constant:middle": ((cycle.max_levels + 1) // 2, cycle.sizes[len(cycle.sizes) // 2]),
    }
    fixed = [
        Method(name, constant, policy_module.constant_params(*setting, cycle))
        for name, setting in probes.items()
    ]
    policies = trained.policies
    learned = Method("ltd", networks.learned(cycle, policies.widths), policies.params)
    return [Method(benchmark.PLAIN), *fixed, learned]


def nearest(sizes: tuple[int, ...], wanted: int) -> int:
    """The compiled size nearest to one that may not be compiled."""
    return min(sizes, key=lambda size: abs(size - wanted))


def runs_of(
    pair: Pair, methods: list[Method], found: list[Prompt], settings: Recording, console: Console
) -> list[Run]:
    """Decodes all prompts with all methods in turns; prompts that were measured before are kept.

    Raises:
      UserError: what was measured before is damaged, or of another pair, device or methods.
    """
    path = settings.out / "runs.jsonl"
    head = head_of(pair, methods, found, settings.asked.new_tokens)
    kept = kept_runs(path, head, [method.name for method in methods])
    skip = frozenset(run.prompt for run in kept)
    with workflow.bar(console, "decode and compare") as advance:

        def done(batch: list[Run]) -> None:
            kept.extend(batch)
            rows = [json.dumps(row) for row in (head, *map(dataclasses.asdict, kept))]
            with replacing(path) as temporary:
                temporary.write_text("\n".join(rows) + "\n")
            advance(len({run.prompt for run in kept}) / len(found))

        benchmark.interleaved(pair, methods, found, settings.asked.new_tokens, skip=skip, done=done)
    return kept


def head_of(
    pair: Pair, methods: list[Method], found: list[Prompt], new_tokens: int
) -> dict[str, Any]:
    """What runs must share to be compared, as JSON values."""
    digest = hashlib.sha256()
    for method in methods:
        digest.update(method.name.encode())
        for leaf in jax.tree.leaves(method.params):
            digest.update(np.asarray(leaf).tobytes())
    return {
        "fingerprint": pair.fingerprint,
        "dtype": jnp.dtype(pair.dtype).name,
        "device": pair.device,
        "prompts": workflow.digest_of(found),
        "new_tokens": new_tokens,
        "methods": digest.hexdigest()[:12],
        "sampling": describe_sampling(pair.config.sampling, pair.seed),
        "cycle": workflow.as_json(dataclasses.asdict(pair.config.cycle)),
    }


def kept_runs(path: Path, head: dict[str, Any], names: list[str]) -> list[Run]:
    """The runs of a file with this head; [] where there is no file.

    Raises:
      UserError: the file is damaged, or was made for another head.
    """
    if not path.exists():
        return []
    try:
        before, *rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        fields: list[dict[str, Any]] = [
            {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows
        ]
        runs = [Run(**row) for row in fields]
        there = {key: before.get(key) for key in head}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to measure again.") from error
    for name, value in head.items():
        workflow.must_equal(path, name, there[name], value)
    done: dict[int, list[str]] = {}
    for run in runs:
        done.setdefault(run.prompt, []).append(run.method)
    if any(sorted(methods) != sorted(names) for methods in done.values()):
        raise UserError(f"{path} is damaged: a prompt lacks a method; delete it to measure again.")
    return runs
