"""Kill a training (kill -9) at random moments, resume it, compare with the uninterrupted one.

    python -m experiments.proofs.torture_resume --kills 50        about 40 minutes on 2 CPU cores

Records and learns with the embedded pair in a small size; only the latency table is kept between
the runs, for measured times differ. Every finished run must have the same policies and the same
last state of every stage (parameters, optimiser, random key, environments), bit for bit. Prints
every kill, writes OUT/torture.json; exit code 1 on a difference. Always starts from the beginning:
OUT/torture-runs is deleted first.
"""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
import tyro

from experiments import quickstart
from ltd_jax import checkpoint, files, flags, workflow
from ltd_jax.config import Algorithm
from ltd_jax.files import UserError
from ltd_jax.models import pair as pairs
from ltd_jax.workflow import StageConfig

SMALL = quickstart.smoke(quickstart.Config())


@dataclasses.dataclass(frozen=True)
class Config:
    """How often, and where."""

    kills: int = 50
    out: Path = Path("runs/torture")
    json: Path | None = None  # None = OUT/torture.json
    learning: Algorithm = "alternate"
    updates: int = 12  # of every stage of learning
    seed: int = 0
    child: bool = False  # only train in OUT: the process that is killed


def main() -> None:
    config = tyro.cli(Config)
    flags.writable(config.out)
    if config.child:
        workflow.train_policies(pairs.load(cycle=SMALL.cycle), stages(config))
        return
    path = config.json or config.out / "torture.json"
    flags.writable(path.parent)
    runs = config.out / "torture-runs"
    shutil.rmtree(runs, ignore_errors=True)
    whole = runs / "whole"
    whole.mkdir(parents=True)
    began = time.monotonic()
    run(config, whole, None)
    seconds = time.monotonic() - began
    flags.say(f"uninterrupted: {seconds:.0f} s")
    result = torture(config, whole, seconds)
    record = result | {
        "uninterrupted_seconds": seconds,
        "provenance": files.environment("float32"),
    }
    files.write_json(path, record)
    print(
        f"{result['kills']} kills, {result['identical']} finished runs identical, "
        f"{len(result['different'])} different"
    )
    sys.exit(1 if result["different"] else 0)


def stages(config: Config) -> StageConfig:
    """A training of seconds that still has every stage."""
    small = SMALL.learning
    budget = lambda ppo: dataclasses.replace(ppo, total_steps=config.updates * ppo.rollout)
    learning = dataclasses.replace(
        small,
        algorithm=config.learning,
        size=budget(small.size),
        depth=budget(small.depth),
        joint=budget(small.joint),
        exact=dataclasses.replace(small.exact, updates=config.updates),
    )
    return dataclasses.replace(SMALL.stages, folder=config.out, learning=learning)


def torture(config: Config, whole: Path, seconds: float) -> dict[str, Any]:
    """Kills and resumes until there were enough kills and the last run is finished."""
    moments, expected = random.Random(config.seed), digests(whole)
    kills: list[dict[str, Any]] = []
    identical, different = 0, list[str]()

    def next_limit() -> float | None:
        """Seconds to the next kill; None = no more kills."""
        return moments.uniform(0, seconds) if len(kills) < config.kills else None

    while len(kills) < config.kills:
        folder = whole.parent / f"run-{identical + len(different)}"
        folder.mkdir()
        shutil.copy(whole / "latency.json", folder)
        began, before = time.monotonic(), len(kills)
        while not run(config, folder, next_limit()):
            kills.append({"run": folder.name, "at": describe_progress(folder)})
            flags.say(f"kill {len(kills)}: {folder.name}, {kills[-1]['at']}")
        if len(kills) == before:  # ended before its kill: later ones shall come sooner
            seconds = min(seconds, time.monotonic() - began)
        same = digests(folder) == expected
        identical, different = identical + same, different + [folder.name] * (not same)
        flags.say(f"{folder.name} finished, {'identical' if same else 'DIFFERENT'}")
    return {"kills": len(kills), "identical": identical, "different": different, "moments": kills}


def run(config: Config, folder: Path, limit: float | None) -> bool:
    """One process in a folder; False where it was killed after `limit` seconds."""
    arguments = [sys.executable, "-m", "experiments.proofs.torture_resume", "--child"]
    arguments += ["--out", str(folder), "--updates", str(config.updates)]
    arguments += ["--learning", config.learning]
    log = folder.with_suffix(".log")
    with log.open("a") as output:
        child = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True)
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode:
        raise UserError(f"A resumed training failed with code {child.returncode}; see {log}.")
    return True


def digests(folder: Path) -> dict[str, str | None]:
    """By stage, and of the policies: digests of the last states that a training left."""
    by_stage: dict[str, str | None] = {}
    for stage in sorted(path for path in (folder / "learning").iterdir() if path.is_dir()):
        with checkpoint.manager(stage) as checkpoints:
            args = ocp.args.Composite(provenance=ocp.args.JsonRestore())
            record = checkpoints.restore(checkpoints.latest_step(), args=args)["provenance"]
            by_stage[stage.name] = record[checkpoint.DIGESTS]["state"]
    policy = workflow.load_policy(folder)
    by_stage["policies"] = checkpoint.digest((policy.depth, policy.size))
    return by_stage


def describe_progress(folder: Path) -> str:
    """The last checkpoint of a killed training, and whether it was saving."""
    steps = {path for path in folder.glob("learning/*/[0-9]*") if path.is_dir()}
    done = sorted((path for path in steps if path.name.isdigit()), key=os.path.getmtime)
    saving = any("tmp" in path.name for path in steps)
    newest = f"{done[-1].parent.name} {done[-1].name}" if done else "no checkpoint"
    return f"{newest}{', saving' if saving else ''}"


if __name__ == "__main__":
    flags.run(main, resumes=False)
