"""Commands in this process: what they print, and the one sentence that they refuse with."""

import sys

import pytest

from experiments import command


def run(module, monkeypatch, capsys, *arguments):
    """What a command prints on stdout and on stderr."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    command.run(module.main)
    return capsys.readouterr()


def refusal(module, monkeypatch, capsys, *arguments):
    """The sentence of a command that ends with exit code 2, without the leading "error: "."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        command.run(module.main)
    printed = capsys.readouterr()
    lines = printed.err.rstrip().splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert end.value.code == 2 and "Traceback" not in printed.err and printed.out == ""
    assert found == [len(lines) - 1], printed.err
    assert lines[-1].endswith("."), lines[-1]
    return lines[-1].removeprefix("error: ")
