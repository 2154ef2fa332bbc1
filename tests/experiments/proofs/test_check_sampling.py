"""The check of sampling in a small size: which methods take part, and what its rows say."""

import pytest

from experiments.proofs import distribution, sampling
from ltd_jax.baselines import catalogue
from ltd_jax.config import CycleConfig
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import ResumableStore
from ltd_jax.policies import policy as policy_module


def test_all_compared_methods_take_part():
    methods = {method.name: method for method in sampling.all_methods(16)}
    others = {family.name for family in catalogue.METHODS} - {"c2t-as-run"}  # EAGLE-3's constants
    assert others | {"ltd"} < set(methods)
    fixed = [name for name, each in methods.items() if each.controller is policy_module.constant()]
    assert len(fixed) == len(sampling.SHAPES) and not others & set(fixed)


def test_rows_of_one_setting(monkeypatch, tmp_path):
    cycle = CycleConfig(beam_width=2, max_levels=1, sizes=(2,), context=24, prefill_chunk=8)
    rule, params = policy_module.constant(), policy_module.constant_params(1, 2, cycle)
    one = [Method("constant", rule, params)]
    monkeypatch.setattr(sampling, "all_methods", lambda hidden_size: one)
    pair = distribution.random_pair(6, cycle, seed=0)
    started = sampling.rows(pair, "all", 4096, ResumableStore(tmp_path / "rows.json", {}))
    first = [next(started), next(started)]  # and then it is stopped
    found = list(sampling.rows(pair, "all", 4096, ResumableStore(tmp_path / "rows.json", {})))
    assert found[:2] == first
    monkeypatch.setattr(distribution, "drawn", None)  # nothing is left to draw
    again = sampling.rows(pair, "all", 4096, ResumableStore(tmp_path / "rows.json", {}))
    assert list(again) == found
    assert [row["rule"] for row in found] == ["plain", "coupled", "sequential"]
    assert [row["draws"] for row in found] == [4096, 410, 4096]
    assert [row["plain_texts"] == 1 for row in found] == [True, True, False]
    summary = sampling.summary(found)
    assert summary["least_share_of_plain_texts_when_coupled"] == 1
    assert summary["least_p_value"] == min(found[0]["p_value"], found[2]["p_value"]) > 1e-3
    assert summary["most_variation_over_plain"] == pytest.approx(
        max(row["total_variation"] / row["plain_total_variation"] for row in found)
    )
