"""The check of sampling in a small size: which methods take part, and what its rows say."""

import pytest

from experiments.proofs import check_sampling, distribution
from ltd_jax.baselines import catalogue
from ltd_jax.config import CycleConfig
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import ResumableStore
from ltd_jax.policies.policy import Constant


def test_all_compared_methods_take_part():
    methods = {method.name: method for method in check_sampling.make_methods(16)}
    others = {baseline.name for baseline in catalogue.BASELINES} - {"c2t-as-run"}  # constants
    assert others | {"ltd"} < set(methods)
    fixed = {name for name, method in methods.items() if method.policy.is_constant}
    assert len(fixed) == len(check_sampling.SHAPES) and not others & fixed


def test_rows_of_one_setting(monkeypatch, tmp_path):
    cycle = CycleConfig(beam_width=2, max_levels=1, sizes=(2,), context=24, prefill_chunk=8)
    one = [Method("constant", Constant(levels=1, size=2))]
    monkeypatch.setattr(check_sampling, "make_methods", lambda hidden_size: one)
    pair = distribution.random_pair(6, cycle, seed=0)
    make_rows = lambda: check_sampling.make_rows(
        pair, "all", 4096, ResumableStore(tmp_path / "rows.json", {})
    )
    started = make_rows()
    first = [next(started), next(started)]  # and then it is stopped
    rows = list(make_rows())
    assert rows[:2] == first
    monkeypatch.setattr(distribution, "drawn", None)  # nothing is left to draw
    again = make_rows()
    assert list(again) == rows
    assert [row["rule"] for row in rows] == ["plain", "coupled", "sequential"]
    assert [row["draws"] for row in rows] == [4096, 410, 4096]
    assert [row["plain_texts"] == 1 for row in rows] == [True, True, False]
    summary = check_sampling.summarize(rows)
    assert summary["least_share_of_plain_texts_when_coupled"] == 1
    assert summary["least_p_value"] == min(rows[0]["p_value"], rows[2]["p_value"]) > 1e-3
    assert summary["most_variation_over_plain"] == pytest.approx(
        max(row["total_variation"] / row["plain_total_variation"] for row in rows)
    )
