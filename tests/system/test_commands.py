"""Every command explains itself."""

import importlib
import sys
from pathlib import Path

import pytest

import experiments
from experiments import command, quickstart

FOLDER = Path(experiments.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef main()" in path.read_text())


def test_all_commands_are_found():
    assert {"quickstart", "generate", "train_classifiers", "autotune"} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "all_tables"])
def test_help(name, monkeypatch, capsys):
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out


def test_other_flags_change_what_smoke_starts_from(monkeypatch):
    start = lambda preset: quickstart.Config(**command.stage_settings(preset))
    small = ("quickstart", "--smoke", "--cycle.max-levels", "1", "--new-tokens", "9")
    monkeypatch.setattr(sys, "argv", [*small, "--measure.visits", "4"])
    found = command.parse(start, quickstart.smoke)
    assert (found.cycle.max_levels, found.asked.new_tokens, found.measure.visits) == (1, 9, 4)
    tiny = quickstart.smoke(quickstart.Config())
    assert found.learning == tiny.learning and found.cycle.sizes == tiny.cycle.sizes
    monkeypatch.setattr(sys, "argv", ["quickstart"])
    assert command.parse(start, quickstart.smoke).cycle == quickstart.Config().cycle
