"""The beam width as a third choice: unions of action spaces, rules over entropy, walks by hand."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.studies import scores, study_widths
from experiments.studies.ground import Ground
from experiments.studies.study_widths import Cycles
from ltd_jax.files import UserError
from ltd_jax.policies import networks
from ltd_jax.replay import optimum, simulate
from tests.experiments import study_folder
from tests.learning import small
from tests.replay import synthetic

NETWORKS = dataclasses.replace(
    small.POLICY, observation=dataclasses.replace(small.POLICY.observation, acceptance_ema=False)
)
WIDTHS = (2, 3)


def ground(width: int, plain: float = 1.0, texts: tuple[int, ...] = (24, 17, 20)) -> Ground:
    cycle = dataclasses.replace(small.CYCLE, beam_width=width)
    table = synthetic.table(cycle, seed=width)
    table = dataclasses.replace(table, plain_seconds=plain * table.plain_seconds)
    made = [synthetic.trace(cycle, seed=seed, text_tokens=texts) for seed in (0, 1)]
    learn, test = (simulate.build(trace, table, cycle) for trace in made)
    return Ground(learn, learn, test, table, NETWORKS, ("code", "docs"), {})


@pytest.fixture(scope="module")
def grounds():
    return [ground(width) for width in WIDTHS]


@pytest.fixture(scope="module")
def params(grounds):
    """Of every width, the policies of two seeds."""
    return [
        [networks.init(jax.random.key(seed), here.config, NETWORKS) for seed in (0, 1)]
        for here in grounds
    ]


def test_several_widths_give_the_optimum_more_to_choose_from(grounds):
    tests = [here.test for here in grounds]
    alone = [optimum.clairvoyant(each) for each in tests]
    together = optimum.clairvoyant(study_widths.join(tests))
    assert together.tokens_per_second > max(each.tokens_per_second for each in alone)
    twice = optimum.clairvoyant(study_widths.join([tests[0], tests[0]]))
    assert twice.tokens_per_second == alone[0].tokens_per_second


def test_a_text_is_walked_as_by_hand(grounds):
    replay = ground(2, texts=(5, 2)).test
    committed = np.array([[2, 1], [1, 1], [1, 3], [1, 1], [1, 1], [1, 2], [1, 1]])
    seconds = np.array([[1.0, 9], [9, 9], [9, 2.0], [9, 9], [9, 9], [9, 0.5], [9, 9]])
    choice_P = np.array([0, 0, 1, 0, 0, 1, 0])  # 0 -> 2 -> end, then 5 -> end
    rate = study_widths.rate_of(replay, Cycles(committed, seconds), choice_P)
    assert rate == pytest.approx((5 + 2) / (1.0 + 2.0 + 0.5))


def test_the_rule_takes_each_width_where_it_is_better(grounds):
    replay = grounds[0].train
    remaining_P = np.asarray(replay.tokens_left)
    easy_P = np.asarray(replay.root_entropy) < np.median(replay.root_entropy)
    committed = np.stack([np.where(easy_P, 3, 1), np.full(len(easy_P), 2)], axis=1)
    committed = np.minimum(committed, remaining_P[:, None])
    found = Cycles(committed, np.ones(committed.shape))
    edges, choice = study_widths.find_rule(replay, found)
    half = study_widths.BINS // 2
    assert not choice[:half].any() and choice[half:].all()
    choice_P = choice[np.searchsorted(edges, np.asarray(replay.root_entropy))]
    rate = study_widths.rate_of(replay, found, choice_P)
    alone = [study_widths.rate_of(replay, found, np.full(len(easy_P), each)) for each in (0, 1)]
    assert rate > max(alone)


def test_one_width_is_that_widths_own_learning(grounds, params):
    rows = list(study_widths.rows("here", WIDTHS, grounds, params))
    assert [row["widths"] for row in rows] == [[2], [3], [2, 3]]
    unit = scores.best_rate(grounds[0])
    for row, here, seeds in zip(rows, grounds, params, strict=False):
        rates = [float(simulate.throughput(simulate.run(here.test, each))) for each in seeds]
        assert row["learned"] * unit == pytest.approx(np.mean(rates), rel=1e-5)
        assert row["chosen"] == [1.0]
    assert rows[0]["best_constant"] == 1.0
    assert rows[2]["best_constant"] in (rows[0]["best_constant"], rows[1]["best_constant"])
    assert rows[2]["optimum"] >= max(row["optimum"] for row in rows[:2])
    assert sum(rows[2]["chosen"]) == pytest.approx(1)


def test_a_drift_between_tables_is_taken_out():
    first, slower = study_widths.at_same_speed([ground(2), ground(3, plain=2.0)])
    assert (first.table.plain_seconds / slower.table.plain_seconds).mean() == pytest.approx(1)
    before = ground(3, plain=2.0)
    ratio = slower.table.cycle_seconds / before.table.cycle_seconds
    np.testing.assert_allclose(ratio, ratio.flat[0])
    np.testing.assert_allclose(
        np.asarray(slower.test.seconds), ratio.flat[0] * np.asarray(before.test.seconds), rtol=1e-6
    )


def test_other_texts_and_seen_recent_cycles_are_refused(grounds):
    with pytest.raises(UserError, match="texts of two beam widths differ"):
        study_widths.require_comparable([grounds[0], ground(3, texts=(24, 17, 21))])
    recent = [dataclasses.replace(here, widths=small.POLICY) for here in grounds]
    with pytest.raises(UserError, match="do not see recent cycles"):
        study_widths.require_comparable(recent)


def test_the_study_runs_from_what_is_recorded(tmp_path, monkeypatch, capsys):
    for width in WIDTHS:
        cycle = dataclasses.replace(study_folder.CYCLE, beam_width=width)
        study_folder.make(tmp_path / f"width-{width}", cycle)
    flags = ("--out", str(tmp_path), *study_folder.ARGUMENTS, "--seeds", "1")
    other = ("--tables", "a100-vicuna-13b-paper")
    study_folder.run(study_widths, monkeypatch, *flags, *other, "--beam-widths", "2", "3")
    found = json.loads((tmp_path / "results" / "study_widths.json").read_text())
    assert [row["widths"] for row in found["rows"]] == [[2], [3], [2, 3]] * 2
    here, there = found["rows"][:3], found["rows"][3:]
    assert {row["latency"] for row in here} == {"here"}
    assert {row["latency"] for row in there} == {"a100-vicuna-13b-paper"}
    assert [row["optimum"] for row in here] != [row["optimum"] for row in there]
    assert there[0]["best_constant"] == 1.0
    said = capsys.readouterr()
    assert "2, 3" in said.out and "--beam-width changes nothing here" in said.err
    for wrong in (("2", "2"), ("0",)):
        with pytest.raises(UserError, match="distinct widths of at least 1"):
            study_folder.run(study_widths, monkeypatch, *flags, "--beam-widths", *wrong)
