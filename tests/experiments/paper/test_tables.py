"""Tables and figures on learning, in their smallest size, from one folder of recorded texts."""

import json

import numpy as np
import pytest

from experiments.paper import (
    all_tables,
    figure3_curves,
    figure6_interaction,
    table2_rewards,
    table4_components,
    table7_8_iterations,
    table9_overhead,
)
from experiments.report import paper
from experiments.studies import retarget
from tests.experiments import study_folder


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return study_folder.make(tmp_path_factory.mktemp("studies"))


@pytest.fixture
def result(out, monkeypatch, capsys):
    """Runs an experiment and reads what it wrote; its name must be its module's."""

    def run(module, *arguments):
        where = ("--out", str(out), *study_folder.ARGUMENTS, *arguments)
        study_folder.run(module, monkeypatch, *where)
        name = module.__name__.split(".")[-1]
        found = json.loads((out / "results" / f"{name}.json").read_text())
        assert found["experiment"] == name and found["schema"] == 1
        assert found["ground"]["device"] == "synthetic" and found["environment"]["jax"]
        assert str(found["ground"]["fingerprint"]) != "unsaved"
        return found, capsys.readouterr().out

    return run


def by_method(found):
    return {row["method"]: row for row in found["rows"]}


def check_rows(found):
    """What holds of every table of methods."""
    rows = by_method(found)
    assert rows["best_constant"]["over_best_constant"] == pytest.approx(1)
    for row in rows.values():
        assert set(row["tasks"]) == set(study_folder.TASKS)
        mean = np.mean([task["speedup"] for task in row["tasks"].values()])
        assert row["speedup"] == pytest.approx(mean)
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["over_best_constant"] <= rows["optimum"]["over_best_constant"] + 1e-6
    return rows


def test_components(result):
    found, printed = result(table4_components)
    rows = check_rows(found)
    assert list(rows)[3:] == list(table4_components.METHODS)
    assert {rows[name]["seeds"] for name in table4_components.METHODS} == {2}
    assert "4.32x, 7.00" in printed  # the paper's LTD
    assert len(found["paper"]) == len(paper.TABLE4.rows)


def test_iterations_from_the_same_trainings(result, out):
    found, _ = result(table7_8_iterations)
    rows = check_rows(found)
    assert list(rows)[3:] == ["iter0", "iter1"]
    components = json.loads((out / "results" / "table4_components.json").read_text())
    assert rows["iter1"]["speedup"] == by_method(components)["ltd"]["speedup"]
    iter0 = by_method(components)["without_iterative_training"]
    assert rows["iter0"]["tasks"] == iter0["tasks"]
    assert {row["table"] for row in found["paper"]} == {"Table 7", "Table 8"}


def test_rewards(result, out):
    found, printed = result(table2_rewards, "--rewards", "time", "average")
    rows = check_rows(found)
    assert list(rows)[3:] == ["time", "average"]
    components = json.loads((out / "results" / "table4_components.json").read_text())
    alone = by_method(components)["without_depth_policy"]  # the same training
    assert rows["average"]["speedup"] == alone["speedup"]
    assert "3.45x, 5.66" in printed


def test_overhead(result):
    found, printed = result(table9_overhead)
    (row,) = found["rows"]
    milliseconds = row["size_milliseconds"] + row["depth_milliseconds"]
    assert row["share"] == pytest.approx(milliseconds / 1e3 / row["total_seconds"], rel=1e-3)
    assert 0 < row["share_low"] <= row["share"] <= row["share_high"] < 1
    assert "Llama-3.1-8B" in printed


def test_curves(result, out):
    found, _ = result(figure3_curves)
    stages = ["size-alone", "depth-alone", "iter1-size"]
    assert list(dict.fromkeys(row["stage"] for row in found["rows"])) == stages
    decisions = [row["decisions"] for row in found["rows"] if row["stage"] == "size-alone"]
    assert decisions == [0, 256, 512]
    for row in found["rows"]:
        assert row["validation_low"] <= row["validation"] <= row["validation_high"]
        assert (row["reward"] is None) == (row["decisions"] == 0)
    assert (out / "results" / "figure3_curves.png").read_bytes().startswith(b"\x89PNG")


def test_interaction(result, out):
    found, _ = result(figure6_interaction)
    assert [(row["policies"], row["accepted"]) for row in found["rows"]] == [
        (policies, accepted) for policies in ("iter0", "ltd") for accepted in ("few", "many")
    ]
    for row in found["rows"]:
        places = sum(row[place] for place in paper.PLACES)
        assert places == pytest.approx(1 if row["cycles"] else 0)
        assert 0 <= row["levels_entropy"] <= np.log(study_folder.CYCLE.max_levels) + 1e-9
    assert found["paper"] == paper.FIGURE6
    assert (out / "results" / "figure6_interaction.png").exists()


def test_retarget(result, out):
    name = "a100-vicuna-13b-paper"
    own = str(out / "latency.json")  # is no other hardware
    found, printed = result(retarget, "--seeds", "1", "--tables", name, own)
    ratio = {(row["made"], row["made_for"], row["run_on"]): row for row in found["rows"]}
    both = ("here", name)
    assert {key for key in ratio if key[0] == "policies"} == {
        ("policies", one, other) for one in both for other in both
    }
    for table in both:
        assert ratio["constant", table, table]["ratio"] == 1
        assert ratio["policies", table, table]["seconds"] > 0
        assert ratio["observing", table, table]["ratio"] > 0
    moved, stayed = (ratio["policies", "here", other]["ratio"] for other in (name, "here"))
    assert moved > 0 and stayed > 0
    assert f"observing, not {name}"[:12] in printed
    assert (out / "results" / "retarget.png").read_bytes().startswith(b"\x89PNG")


def test_one_command_runs_them_all(monkeypatch, capsys):
    ran = []
    for module in all_tables.EXPERIMENTS:
        monkeypatch.setattr(module, "main", lambda name=module.__name__: ran.append(name))
    all_tables.main()
    assert ran == [module.__name__ for module in all_tables.EXPERIMENTS]
    assert f"[{len(ran)}/{len(ran)}] Policies on other hardware" in capsys.readouterr().err
