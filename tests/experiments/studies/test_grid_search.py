"""The best constant by replay, and what it gives live."""

import shutil

import pytest

from experiments.studies import grid_search
from ltd_jax.files import UserError
from tests.system import tiny_pair


def test_grid_search_checks_the_best_live(run_tiny, tiny_trained, tmp_path):
    shutil.copy(tiny_trained / "latency.json", tmp_path)
    flags = ("--split", "all", "--few", 2, *tiny_pair.FLAGS)
    written, printed = run_tiny(grid_search, tmp_path, *flags)
    rates = [row["predicted_tokens_per_second"] for row in written["rows"]]
    assert len(rates) == 4 and rates == sorted(rates, reverse=True)
    assert len(written["checked"]) == 2
    assert 0 <= written["agreement"]["lost"] < 1
    assert "the best 2 of 4 constant settings" in printed
    with pytest.raises(UserError, match="`nodes` 5 is not one of"):
        run_tiny(grid_search, tmp_path, *flags, "--nodes", 5)
