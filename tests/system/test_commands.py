"""Every command explains itself."""

import importlib
import sys
from pathlib import Path

import pytest

import experiments

FOLDER = Path(experiments.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef main()" in path.read_text())


def test_all_commands_are_found():
    assert {"quickstart", "generate", "train_classifiers", "leaderboard"} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "all_tables"])
def test_help(name, monkeypatch, capsys):
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out
