"""The comparisons of all methods in their smallest size: one method, a tiny pair."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.paper import table1_greedy, table5_sampling
from experiments.report import tables
from experiments.studies import leaderboard
from ltd_jax import files
from ltd_jax.baselines import classifiers
from ltd_jax.config import PolicyConfig, SamplingConfig, describe_sampling
from ltd_jax.files import UserError
from ltd_jax.models import pair as pairs
from ltd_jax.policies import networks, saved
from ltd_jax.replay import latency
from tests.models import folders
from tests.replay import synthetic
from tests.system.tiny_pair import CYCLE

WIDTHS = PolicyConfig((4,), (4,), (4,), (4,))
ROW = {"method", "task", "temperature", "tokens_per_second", "speedup", "low", "high"}
ROW |= {"over_best_constant", "committed_per_cycle", "share_of_optimum"}
METHODS = ("specdec++",)  # one: each is compiled
QUICK = ("--profiling.contexts", 16, "--profiling.cycles", 2, "--profiling.visits", 5)
QUICK += ("--profiling.policy-visits", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, whole):
    """What `ltd train` leaves, of policies and of classifiers, with random weights."""
    out = tmp_path_factory.mktemp("trained")
    table, here = synthetic.table(CYCLE), files.device_name()
    fingerprint = pairs.load(whole / "target", whole / "draft", cycle=CYCLE).fingerprint
    table.provenance.update(fingerprint=fingerprint, device=here, dtype="float32")
    latency.save(table, out / "latency.json")
    best = {"levels": 1, "size": 2, "tokens_per_second": 1.0}
    cost = {"decisions": 1, "seconds": 1.0, "positions_recorded": 1, "recording_seconds": 1.0}
    origin = {"fingerprint": fingerprint, "latency": latency.fingerprint(table), "device": here}
    origin |= {"dtype": "float32", "best": best, "learning": cost}
    save_policy(out, 0, origin | {"sampling": None})
    hot = describe_sampling(SamplingConfig(temperature=1.0))
    save_policy(out / "sampled", 1, origin | {"sampling": hot})
    hidden = folders.DRAFT.hidden_size
    drawn = classifiers.init(jax.random.key(1), CYCLE, hidden, 3, {"fingerprint": fingerprint})
    specdec = {"specdec": drawn.networks["specdec"]}
    judges = dataclasses.replace(drawn, networks=specdec, power=np.ones(2, np.float32))
    classifiers.save(judges, out / "classifiers.safetensors")
    return out


def save_policy(folder, action, origin):
    """Policies that always choose an action: the least (0) or the most levels (1)."""
    policy = networks.init(jax.random.key(0), CYCLE, WIDTHS)
    last = networks.layers_of(policy.depth)[-1]
    layers = policy.depth["params"]
    bias = layers[last]["bias"].at[action].set(100.0)
    depth = {"params": layers | {last: layers[last] | {"bias": bias}}}
    saved.save(policy.replace(depth=depth), folder / "policy.safetensors", CYCLE, origin)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("arena")


def test_the_leaderboard_and_table_1_share_one_decoding(run_tiny, trained, out):
    arguments = ("--trained", trained, "--splits", "all", "all", "--methods", *METHODS, *QUICK)
    found, said = run_tiny(leaderboard, out, *arguments, "--temperatures", 0)
    assert all(set(row) == ROW for row in found["rows"])
    names = {row["method"] for row in found["rows"]}
    tuned = {f"{name} tuned" for name in METHODS}
    assert names == {"autoregressive", "eagle3", "best constant", "ltd", *METHODS, *tuned}
    plain = next(row for row in found["rows"] if row["method"] == "autoregressive")
    assert plain["speedup"] == 1 and plain["share_of_optimum"] is None
    page = (out / "results" / "leaderboard.html").read_text()
    assert all(name in page and name in said for name in METHODS)
    rates = {(row["method"], row["task"]): row["tokens_per_second"] for row in found["rows"]}
    for row in (row for row in found["rows"] if row["task"] != "mean"):
        over = row["tokens_per_second"] / rates["best constant", row["task"]]
        assert row["over_best_constant"] == pytest.approx(over)
    for row in found["replay"]["0"]:
        assert row["measured_tokens_per_second"] == rates[row["method"], "mean"]
    assert found["lossless"]["0"]["mismatches"] == 0
    kept = json.loads((out / "temperature-0" / "decisions.json").read_text())["entries"]
    for entry in found["entries"]["0"]:
        name = entry["method"].removesuffix(" tuned")
        cost = [1e-6 * entry[f"microseconds_per_{each}"] for each in ("pass", "cycle")]
        if name != "ltd":
            assert cost == pytest.approx(kept.get(name, [0, 0]))
    assert tables.leaderboard("without a paper's table", found["rows"], 0, ())
    runs = out / "temperature-0" / "runs.jsonl"
    decoded = runs.stat().st_mtime_ns
    again, said = run_tiny(table1_greedy, out, *arguments)
    assert runs.stat().st_mtime_ns == decoded
    assert {row["method"] for row in again["rows"]} == names
    paper = [row for row in again["paper"] if row["method"] == "ltd"]
    assert [(row["table"], row["mean"]) for row in paper] == [
        ("Table 1", {"speedup": 3.92, "committed": 6.56}),
        ("Table 1", {"speedup": 4.32, "committed": 7.0}),
    ]
    assert (out / "results" / "table1_greedy.png").stat().st_size > 1000


def test_table_5_measures_and_decodes_at_temperature_1(run_tiny, trained, out):
    arguments = ("--trained", trained, "--splits", "all", "all", "--methods", "c2t-as-run")
    arguments += ("--sampled", trained / "sampled")
    found, _ = run_tiny(table5_sampling, out, *arguments, *QUICK)
    assert {row["temperature"] for row in found["rows"]} == {1.0}
    entries = {entry.pop("method"): entry for entry in found["entries"]["1"]}
    assert entries["ltd of sampled texts"] == entries["ltd"]  # but for what they learned
    levels = {row["method"]: row["levels_mean"] for row in found["replay"]["1"]}
    assert levels["ltd"] == 1 and levels["ltd of sampled texts"] == 2  # each its own policies
    assert found["lossless"]["1"]["mismatches"] == 0
    table = latency.load(out / "temperature-1" / "latency.json")
    assert table.provenance["sampling"]["temperature"] == 1
    paper = [row["mean"]["speedup"] for row in found["paper"] if row["method"] == "ltd"]
    assert paper == [3.01, 3.62]


def test_policies_of_sampled_texts_must_have_learned_from_such(run_tiny, trained, out):
    arguments = ("--trained", trained, "--splits", "all", "all", *QUICK, "--sampled")
    with pytest.raises(UserError, match="`sampled` needs a temperature above 0"):
        run_tiny(leaderboard, out, *arguments, trained / "sampled", "--temperatures", 0)
    with pytest.raises(UserError, match="did not learn from texts .*`temperature` 1 and"):
        run_tiny(table5_sampling, out, *arguments, trained)


def test_unknown_methods_and_missing_classifiers_get_one_sentence(run_tiny, trained, out):
    arguments = ("--trained", trained, "--splits", "all", "all", "--methods")
    with pytest.raises(UserError, match="no compared method 'best'; choose ddd, svip"):
        run_tiny(leaderboard, out, *arguments, "best")
    with pytest.raises(UserError, match="no classifier for c2t"):
        run_tiny(leaderboard, out, *arguments, "c2t")
