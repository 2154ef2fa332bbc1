"""docs/first-hour.md: its quick commands run as printed and print what it shows."""

import io
import re
import shlex
import sys

import jax
import pytest
import tyro

from experiments.proofs import first_hour
from experiments.proofs.first_hour import Typed
from ltd_jax import cli
from ltd_jax.config import PolicyConfig
from ltd_jax.models import pair as pairs
from ltd_jax.policies import networks, saved

COMMANDS = first_hour.blocks(first_hour.PAGE.read_text(encoding="utf-8"))
NUMBER = re.compile(r"\d[\d.,]*")


def command(word: str) -> Typed:
    """The only command of the page that begins with some words."""
    (found,) = [typed for typed in COMMANDS if typed.command.startswith(word)]
    return found


def ltd(line: str, monkeypatch, capsys) -> str:
    """What an `ltd` command line prints on stdout, in this process."""
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    cli.main()
    return capsys.readouterr().out


def shape(output: str) -> str:
    """An output without its numbers and line breaks, which terminals place differently."""
    return " ".join(NUMBER.sub("#", output).split())


@pytest.fixture
def there(tmp_path, monkeypatch):
    """An empty folder, in a terminal as wide as the page's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", first_hour.COLUMNS)
    return tmp_path


def test_the_page_has_ten_commands_and_their_output():
    assert len(COMMANDS) == 10
    assert all(typed.output for typed in COMMANDS), "python -m experiments.proofs.first_hour"
    page = first_hour.PAGE.read_text(encoding="utf-8")
    assert all(f"console\n{typed.block}```" in page for typed in COMMANDS)


def test_a_prompt_and_a_chat(there, monkeypatch, capsys):
    generate = command("ltd generate")
    printed = ltd(generate.command, monkeypatch, capsys)
    last = lambda output: output.rstrip().rsplit("\n", 1)[1]
    assert shape(last(printed)) == shape(last(generate.output)) and len(printed) > 60
    typed, chat = command("printf").command.split(" | ")
    lines = shlex.split(typed)[1].replace("\\n", "\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    printed = ltd(chat, monkeypatch, capsys)
    spoken = [line for line in printed.splitlines() if line.startswith("[")]
    shown = [line for line in command("printf").output.splitlines() if line.startswith("[")]
    assert list(map(shape, spoken)) == list(map(shape, shown)) and len(spoken) == 1


def test_from_a_pair_of_ones_own_to_restored_policies(there, monkeypatch, capsys):
    """Tuning, which takes minutes, is stood in for by random policies of its shapes."""
    export = command("ltd export")
    ltd(export.command.partition(" && ")[0], monkeypatch, capsys)
    for name in ("target", "draft"):
        files = {path.name for path in (there / "runs" / "pair" / name).iterdir()}
        assert files <= set(export.output.split())
    inspect = command("ltd inspect")
    printed = ltd(inspect.command, monkeypatch, capsys)
    device = lambda line: " has " in line  # the machine's, not the pair's
    kept = lambda output: shape("\n".join(line for line in output.splitlines() if not device(line)))
    assert kept(printed) == kept(inspect.output)

    tuning = shlex.split(command("ltd tune").command.replace("\\\n", ""))[2:]
    start = cli.COMMANDS["tune"].start(pairs.preset_of(there / "runs/pair/target"))
    asked = tyro.cli(type(start), args=tuning, default=start)
    pair = pairs.load(asked.target, asked.draft, cycle=asked.cycle)
    policy = networks.init(jax.random.key(0), asked.cycle, PolicyConfig((4,), (4,), (4,), (4,)))
    origin = {"fingerprint": pair.fingerprint, "device": pair.device}
    saved.save(policy, asked.out / "policy.safetensors", asked.cycle, origin)
    show = command("ltd policies show")
    printed = ltd(show.command, monkeypatch, capsys)
    heads = lambda output: [line for line in output.splitlines() if line.startswith("#")]
    assert heads(printed) == heads(show.output) and pair.fingerprint in printed
    restore = command("python -c '\nimport ltd_jax")
    exec(shlex.split(restore.command)[2], {})  # as printed
    printed = capsys.readouterr().out
    assert "cycles, levels and sizes" in printed and "cycles, levels and sizes" in restore.output
