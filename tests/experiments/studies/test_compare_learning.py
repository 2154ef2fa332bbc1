"""The experiments that compare ways of learning, in their smallest size, from recorded texts."""

import contextlib
import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import pytest

from experiments.paper import table6_observations, table10_widths
from experiments.studies import compare_learning, seeds
from ltd_jax.config import PolicyConfig
from ltd_jax.files import UserError
from ltd_jax.learning import environment
from ltd_jax.policies import networks
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable
from tests.experiments import study_folder
from tests.learning import small

SMALL = (
    "--learning.joint.total-steps 256 --learning.joint.environments 32 "
    "--learning.joint.rollout 128 --learning.joint.minibatch 64 --learning.joint.epochs 1 "
    "--learning.exact.updates 2 --learning.exact.environments 16 --learning.exact.cycles 2 "
    "--learning.exact.steps 2 --learning.exact.minibatch 16 --learning.alternations 0"
).split()
ROW = {
    *("latency", "learning", "reward", "over_best_constant", "low", "high", "share_of_gap"),
    *("decisions", "seconds", "levels_entropy", "sizes_entropy"),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return study_folder.make(tmp_path_factory.mktemp("compared"))


def run(module, out, monkeypatch, *arguments):
    where = ("--out", str(out), *study_folder.ARGUMENTS, *SMALL, *arguments)
    study_folder.run(module, monkeypatch, *where)


def test_ways_of_learning(out, monkeypatch, capsys) -> None:
    table, mine = "a100-vicuna-13b-paper", out / "mine.json"
    paper = LatencyTable.find(table)
    latency.save(dataclasses.replace(paper, plain_seconds=2 * paper.plain_seconds), mine)
    path = out / "compared" / "ways.json"
    arguments = ("--json", str(path), "--tables", table, str(mine))
    before = seeds._compile.cache_info().misses
    run(compare_learning, out, monkeypatch, *arguments, "--rewards", "average")
    rows = json.loads(path.read_text())["rows"]
    ways = [(row["latency"], row["learning"]) for row in rows]
    tables = (table, str(mine))
    assert ways == [(name, way) for name in tables for way in ("alternate", "joint", "exact")]
    assert seeds._compile.cache_info().misses == before + 2  # both tables share two programs
    for row in rows:
        assert set(row) >= ROW
        assert row["low"] <= row["over_best_constant"] <= row["high"]
        assert row["over_best_constant"] > 0
        assert row["share_of_gap"] < 1 and (row["share_of_gap"] > 0) == (
            row["over_best_constant"] > 1
        )
        assert row["seconds"] > 0 and row["decisions"] > 0 and row["seeds"] == 2
        assert 0 <= row["levels_entropy"] <= math.log(study_folder.CYCLE.max_levels) + 1e-6
        assert 0 <= row["sizes_entropy"] <= math.log(len(study_folder.CYCLE.sizes)) + 1e-6
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "exact" in capsys.readouterr().out


def test_observations(out, monkeypatch, capsys) -> None:
    seen = ("P+D+L",)
    run(table6_observations, out, monkeypatch, "--seeds", "1", "--seen", *seen)
    found = json.loads((out / "results" / "table6_observations.json").read_text())
    names = [row["method"] for row in found["rows"]]
    assert names == ["eagle3", "best_constant", "optimum", *seen]
    assert "4.13x, 6.84" in capsys.readouterr().out  # the paper's P+D+L
    with pytest.raises(UserError, match="no observation 'smell'; choose P.L"):
        run(table6_observations, out, monkeypatch, "--seen", "smell")


class Killed(Exception):
    """Stands for a signal."""


def test_a_stopped_comparison_goes_on(out, monkeypatch) -> None:
    path, trained, original = out / "stopped" / "ways.json", [], seeds.train
    flags = ("--json", str(path), "--tables", "a100-vicuna-13b-paper", "--rewards", "average")

    def train(ground, learning, *others):
        if learning.algorithm == "exact" and "exact" not in trained:
            trained.append("exact")
            raise Killed
        trained.append(learning.algorithm)
        return original(ground, learning, *others)

    monkeypatch.setattr(seeds, "train", train)
    for _ in range(2):
        with contextlib.suppress(Killed):
            run(compare_learning, out, monkeypatch, *flags, "--ways", "joint", "exact")
    assert trained == ["joint", "exact", "exact"]
    rows = json.loads(path.read_text())["rows"]
    assert [row["learning"] for row in rows] == ["joint", "exact"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["ways.json", "ways.png"]


@pytest.mark.parametrize("name", table6_observations.SEEN)
def test_both_policies_take_every_observation(name) -> None:
    widths = PolicyConfig((8,), (8,), (8,), (8,), table6_observations.SEEN[name])
    simulator = small.simulator(0)

    def decide(policy):
        observations = environment.observe_all(simulator, widths.observation)
        start = environment.draw_state(simulator, widths.observation, jax.random.key(0))
        return environment.act(policy, observations, start, None)

    policy = networks.init(jax.random.key(0), small.CYCLE, widths)
    assert jax.eval_shape(decide, policy).size_index.dtype == jnp.int32


def test_widths(out, monkeypatch, capsys) -> None:
    run(
        table10_widths,
        out,
        monkeypatch,
        "--no-time-policies",
        "--layers",
        "linear",
        "--seeds",
        "1",
    )
    found = json.loads((out / "results" / "table10_widths.json").read_text())
    assert [row["method"] for row in found["rows"]][3:] == ["linear"]
    assert "1024-256 3.92x" in capsys.readouterr().out
