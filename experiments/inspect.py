"""Look at a pair before using it: how its folders are read, what it needs, what is doubtful.

    python -m experiments.inspect --target DIR --draft DIR
    python -m experiments.inspect --target DIR --draft DIR --no-weights      reads config.json only

Exit code 0 also with doubts; `--json` prints one object.
"""

import dataclasses
import json
from typing import Any

import jax.numpy as jnp
from rich.console import Console

from experiments import command
from experiments.command import PairFlags
from ltd_jax import files, presets, workflow
from ltd_jax.config import PairConfig
from ltd_jax.models.hf import inspect
from ltd_jax.models.hf.inspect import Memory


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """Which pair, and how closely to look."""

    context: int = 2048  # tokens that the caches are to hold
    weights: bool = True  # load them, check them, and decode a probe text
    json: bool = False


def main() -> None:
    config = command.parse(lambda preset: Config())
    cycle = command.with_cycle(
        presets.EMBEDDED_CYCLE,
        max_levels=workflow.PROBE_LEVELS,
        sizes=(0, workflow.PROBE_SIZE),
        context=config.context,
    )
    pair, remarks = inspect.read_pair_config(
        config.target, config.draft, cycle, config.feature_layers, config.draft_rope_theta
    )
    memory = inspect.estimate_memory(pair, jnp.dtype(config.dtype), config.devices)
    doubts = inspect.tokenizer_doubts(config.target, config.draft, pair.target.vocab_size)
    accepted = None
    if config.weights:
        accepted = workflow.probe(command.load_pair(config, cycle))
        doubts += inspect.acceptance_doubts(accepted)
    if config.json:
        print(json.dumps(as_json(pair, memory, config.devices, remarks, accepted, doubts)))
    else:
        show(pair, memory, config.devices, (*remarks,), accepted, doubts)


def as_json(
    pair: PairConfig,
    memory: Memory,
    devices: int,
    remarks: tuple[str, ...],
    accepted: float | None,
    doubts: list[str],
) -> dict[str, Any]:
    """Everything that was found."""
    return {
        "device": files.device_name(),
        "target": dataclasses.asdict(pair.target),
        "draft": dataclasses.asdict(pair.draft),
        "context": pair.cycle.context,
        "devices": devices,
        "bytes": dataclasses.asdict(memory),
        "remarks": list(remarks),
        "accepted_per_cycle": accepted,
        "doubts": doubts,
    }


def show(
    pair: PairConfig,
    memory: Memory,
    devices: int,
    remarks: tuple[str, ...],
    accepted: float | None,
    doubts: list[str],
) -> None:
    """The same for a person."""
    console = Console()
    mebi = lambda count: f"{count / 2**20:,.0f} MiB"
    console.print(f"target: {pair.target}")
    console.print(f"draft: {pair.draft}")
    for remark in remarks:
        console.print(remark)
    each = "memory" if devices == 1 else f"memory on each of {devices} devices"
    console.print(
        f"{each}: target {mebi(memory.target)}, draft {mebi(memory.draft)}, caches of "
        f"{pair.cycle.context} tokens {mebi(memory.caches)}, together {mebi(memory.needed)}"
    )
    if memory.device is not None:
        share = memory.needed / memory.device
        console.print(
            f"{files.device_name()} has {mebi(memory.device)}: {share:.0%} of it is needed"
            + ("" if share < 1 else "; the pair does not fit")
        )
    if accepted is not None:
        console.print(f"probe text: {accepted:.2f} drafted tokens accepted per cycle")
    for doubt in doubts:
        console.print(f"doubt: {doubt}", style="yellow")
    if not doubts:
        console.print("no doubts")


if __name__ == "__main__":
    command.run(main, resumes=False)
