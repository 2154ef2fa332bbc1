"""Every experiment explains itself."""

import importlib
import sys
from pathlib import Path

import pytest

import experiments
from experiments import quickstart
from ltd_jax import flags

FOLDER = Path(experiments.__file__).parent
NAMES = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for folder in (".", "paper", "studies")
    for path in (FOLDER / folder).glob("*.py")
    if "\ndef main()" in path.read_text(encoding="utf-8")
)


def test_all_experiments_are_found():
    assert {"quickstart", "studies.leaderboard", "paper.table1_greedy"} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "paper.all_tables"])
def test_help(name, monkeypatch, capsys):
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out


def test_other_flags_change_what_smoke_starts_from():
    parse = lambda *arguments: flags.parse(
        quickstart.start, list(arguments), small=quickstart.smoke
    )
    small = parse("--smoke", "--max-levels", "1", "--new-tokens", "9", "--profiling.visits", "4")
    assert (small.cycle.max_levels, small.asked.new_tokens, small.profiling.visits) == (1, 9, 4)
    tiny = quickstart.smoke(quickstart.Config())
    assert small.learning == tiny.learning and small.cycle.sizes == tiny.cycle.sizes
    assert parse().cycle == quickstart.Config().cycle
