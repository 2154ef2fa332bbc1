"""`ltd` in this process: what a subcommand prints, and the one sentence that it refuses with."""

import re
import sys

import pytest

from ltd_jax import cli

ARGUMENT = re.compile(r"`[a-z_.]+`")  # as the library writes them, and a command does not


def run(command, monkeypatch, capsys, *arguments):
    """What a subcommand prints on stdout and on stderr."""
    monkeypatch.setattr(sys, "argv", ["ltd", command, *map(str, arguments)])
    cli.main()
    return capsys.readouterr()


def refusal(command, monkeypatch, capsys, *arguments):
    """The sentence of a subcommand that ends with exit code 2, without the leading "error: "."""
    with pytest.raises(SystemExit) as end:
        run(command, monkeypatch, capsys, *arguments)
    printed = capsys.readouterr()
    lines = printed.err.rstrip().splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert end.value.code == 2 and "Traceback" not in printed.err and printed.out == ""
    assert errors == [len(lines) - 1], printed.err
    assert lines[-1].endswith(".") and not ARGUMENT.search(lines[-1]), lines[-1]
    return lines[-1].removeprefix("error: ")
