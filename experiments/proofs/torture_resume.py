"""Kill a training (kill -9) at random moments, resume it, compare with the uninterrupted one.

    python -m experiments.proofs.torture_resume --kills 50        about 40 minutes on 2 CPU cores

Runs the stages of `train_policies` in a small size on the embedded pair: recording, then learning;
only the latency table is kept between the runs, for measured times differ. Every finished run must
have the same policies and the same last state of every stage (parameters, optimiser, random key,
environments), bit for bit. Prints every kill, writes OUT/torture.json; exit code 1 on a difference.
Always starts from the beginning: OUT/torture-runs is deleted first.
"""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from experiments import command, quickstart
from ltd_jax import checkpoint, files, workflow
from ltd_jax.config import Algorithm
from ltd_jax.files import UserError


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


def settings(config: Config) -> quickstart.Config:
    """A training of seconds that still has every stage."""
    small = quickstart.smoke(command.resolved(quickstart.Config(out=config.out, smoke=True)))
    size, depth = small.learning.size, small.learning.depth
    longer = lambda ppo: dataclasses.replace(ppo, total_steps=config.updates * ppo.rollout)
    learning = dataclasses.replace(
        small.learning,
        learning=config.learning,
        size=longer(size),
        depth=longer(depth),
        joint=longer(dataclasses.replace(size, gamma=small.learning.joint.gamma)),
        exact=dataclasses.replace(small.learning.exact, updates=config.updates),
    )
    return dataclasses.replace(small, learning=learning)


def train(config: Config) -> None:
    """What is killed."""
    chosen = settings(config)
    workflow.train_policies(command.load_pair(chosen, chosen.cycle), chosen, Console(quiet=True))


def digests(folder: Path) -> dict[str, str | None]:
    """By stage, and of the policies: digests of the last states that a training left."""
    found: dict[str, str | None] = {}
    for stage in [*sorted(path for path in (folder / "learning").iterdir() if path.is_dir())]:
        with checkpoint.manager(stage) as checkpoints:
            found[stage.name] = checkpoint.newest_digest(checkpoints)
    with checkpoint.manager(folder / "policies") as checkpoints:
        found["policies"] = checkpoint.newest_digest(checkpoints)
    return found


def reached(folder: Path) -> str:
    """How far a killed training came, and whether it was saving."""
    steps = {path for path in folder.glob("learning/*/[0-9]*") if path.is_dir()}
    done = sorted((path for path in steps if path.name.isdigit()), key=os.path.getmtime)
    saving = any("tmp" in path.name for path in steps)
    newest = f"{done[-1].parent.name} {done[-1].name}" if done else "no checkpoint"
    return f"{newest}{', saving' if saving else ''}"


def run(config: Config, folder: Path, limit: float | None) -> bool:
    """One process in a folder; False where it was killed after `limit` seconds."""
    flags = ["--child", "--out", str(folder), "--updates", str(config.updates)]
    flags += ["--learning", config.learning]
    asked = [sys.executable, "-m", "experiments.proofs.torture_resume", *flags]
    log = folder.with_suffix(".log")
    with log.open("a") as said:
        child = subprocess.Popen(asked, stdout=said, stderr=said, start_new_session=True)
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


def torture(config: Config, whole: Path, seconds: float) -> dict[str, Any]:
    """Kills and resumes until there were enough kills and the last run is finished."""
    moments, expected = random.Random(config.seed), digests(whole)
    kills: list[dict[str, Any]] = []
    identical, different = 0, []
    while len(kills) < config.kills:
        folder = whole.parent / f"run-{identical + len(different)}"
        folder.mkdir()
        shutil.copy(whole / "latency.json", folder)
        began, before = time.monotonic(), len(kills)
        while not run(config, folder, limit(config, kills, moments, seconds)):
            kills.append({"run": folder.name, "at": reached(folder)})
            command.say(f"kill {len(kills)}: {folder.name}, {kills[-1]['at']}")
        if len(kills) == before:  # ended before its kill: later ones shall come sooner
            seconds = min(seconds, time.monotonic() - began)
        same = digests(folder) == expected
        identical, different = identical + same, different + [folder.name] * (not same)
        command.say(f"{folder.name} finished, {'identical' if same else 'DIFFERENT'}")
    return {"kills": len(kills), "identical": identical, "different": different, "moments": kills}


def limit(config: Config, kills: list[Any], moments: random.Random, seconds: float) -> float | None:
    """Seconds to the next kill; None = no more kills."""
    return moments.uniform(0, seconds) if len(kills) < config.kills else None


def main() -> None:
    config = tyro.cli(Config)
    command.writable(config.out)
    if config.child:
        train(config)
        return
    path = config.json or config.out / "torture.json"
    command.writable(path.parent)
    runs = config.out / "torture-runs"
    shutil.rmtree(runs, ignore_errors=True)
    whole = runs / "whole"
    whole.mkdir(parents=True)
    began = time.monotonic()
    run(config, whole, None)
    seconds = time.monotonic() - began
    command.say(f"uninterrupted: {seconds:.0f} s")
    found = torture(config, whole, seconds)
    record = found | {
        "uninterrupted_seconds": seconds,
        "provenance": files.environment("float32"),
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"{found['kills']} kills, {found['identical']} finished runs identical, "
        f"{len(found['different'])} different"
    )
    sys.exit(1 if found["different"] else 0)


if __name__ == "__main__":
    command.run(main, resumes=False)
