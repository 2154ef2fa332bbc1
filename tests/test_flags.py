"""What all commands share: mistakes become one sentence, bars say nothing of nothing."""

import contextlib
import dataclasses
import errno
import io
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import pytest
import tyro
from rich.console import Console

from ltd_jax import cli, flags, presets
from ltd_jax.files import ASSETS, UserError
from ltd_jax.flags import PairFlags, ShapeFlags

ROOT = Path(__file__).parents[1]


def test_arguments_become_flags():
    said = flags.as_flags("Give `new_tokens` or `learning.seed`; `1 + 2` and `Run` stay.")
    assert said == "Give --new-tokens or --learning.seed; `1 + 2` and `Run` stay."
    said = flags.as_flags("Run `hf download a/b`or`target`; `ltd` `x y`as`draft`.")
    assert said == "Run `hf download a/b`or--target; --ltd `x y`as--draft."


def end_of(error, capsys, **how):
    """Exit code and what is said of a command that ends with an error."""

    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        flags.run(main, **how)
    return end.value.code, capsys.readouterr().err


def test_how_commands_end(capsys):
    assert end_of(UserError("Give `out`."), capsys) == (2, "error: Give --out.\n")
    code, said = end_of(KeyboardInterrupt(), capsys)
    assert code == 130 and said.endswith("what is done is kept, the same command goes on.\n")
    code, said = end_of(KeyboardInterrupt(), capsys, resumes=False)
    assert code == 130 and said == "\nInterrupted.\n"
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.\nmore")
    code, said = end_of(full, capsys)
    assert code == 2 and "has no room for this (RESOURCE_EXHAUSTED: Out of memory)" in said
    full = OSError(errno.ENOSPC, "No space left on device")
    assert end_of(full, capsys)[1].endswith("prints or keeps: No space left on device.\n")
    full.filename = "loss.json"
    assert end_of(full, capsys) == (2, "error: Cannot write loss.json: No space left on device.\n")
    with pytest.raises(PermissionError):
        end_of(PermissionError(errno.EACCES, "Permission denied"), capsys)
    with pytest.raises(jax.errors.JaxRuntimeError):
        flags.run(lambda: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL: a fault")))


def test_warnings_are_said_in_one_line(capsys):
    before = warnings.showwarning
    try:
        flags.run(lambda: warnings.warn("Its `latency` is old.", stacklevel=1))
    finally:
        warnings.showwarning = before
    assert capsys.readouterr().err == "warning: Its --latency is old.\n"


ANSWER = "naïve 漢字 – 🎈\ud800"


@pytest.mark.parametrize(
    ("encoding", "errors", "shown"),
    [
        ("latin-1", "strict", "naïve ?? ? ??"),
        ("cp1252", "strict", "naïve ?? – ??"),
        ("cp437", "strict", "naïve ?? ? ??"),
        ("ascii", "surrogateescape", "na?ve ?? ? ??"),  # an old locale's
        ("utf-8", "strict", "naïve 漢字 – 🎈?"),
        ("ascii", "backslashreplace", None),  # as somebody asked for it
    ],
)
def test_what_a_terminal_lacks_does_not_end_an_answer(monkeypatch, encoding, errors, shown):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, errors))
    flags.run(lambda: (cli._print_now(ANSWER), Console().print(ANSWER, highlight=False)))
    shown = ANSWER.encode(encoding, errors).decode(encoding) if shown is None else shown
    assert written.getvalue().decode(encoding) == f"{shown}{shown}\n"


def test_an_output_that_is_no_text_file_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    flags.run(lambda: print(ANSWER))
    assert sys.stdout.getvalue() == f"{ANSWER}\n"


def test_a_reader_that_has_enough_ends_a_command_quietly():
    program = "from ltd_jax import flags; flags.run(lambda: print('x' * 10**7))"
    command = f'"{sys.executable}" -c "{program}" | head -c 1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "x1\n" and done.stderr == ""


def report(progress):
    """Three reports of two stages."""
    progress("record train", 0.5)
    progress("record train", 1.0)
    progress("measure latencies", 0.1)


def test_bars_of_stages_that_report(capsys):
    with flags.progress_bars(Console(force_terminal=True)):
        pass
    assert capsys.readouterr().out == ""
    with flags.progress_bars(Console(force_terminal=True, width=80)) as progress:
        report(progress)
    last = capsys.readouterr().out.split("record train")[-1]
    assert "measure latencies" in last and "left" in last


def test_in_a_log_stages_are_lines(capsys, monkeypatch):
    monkeypatch.setattr(flags, "REPORT_EVERY", 0.05)
    with flags.progress_bars(Console(force_terminal=False)) as progress:
        report(progress)
        time.sleep(0.2)
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second, third, *later = printed.err.splitlines()
    assert (first, third) == ("record train ...", "measure latencies ...")
    assert second.startswith("record train: done after ")
    assert later and all(line.startswith("measure latencies: 10% after ") for line in later)


def test_rare_flags_are_only_in_the_whole_help():
    learning = presets.QUICK_LEARNING
    default = cli.TuneConfig(out=Path("here"), learning=learning)
    shown = {everything: flags.as_shown(default, everything=everything) for everything in (0, 1)}
    texts = {}
    for everything, config in shown.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
            tyro.cli(type(config), args=["--help"], default=config)
        texts[everything] = printed.getvalue()
    for text in texts.values():
        assert "--live-prompts INT" in text and "{None}" not in text and "(default: here)" in text
        assert text.index("--out") < text.index("--target")
    for name in ("--learning.seed", "--widths.size-actor", "--prefill-chunk", "--feature-layers"):
        assert name in texts[1] and name not in texts[0]


def test_every_flag_is_described():
    of_a_pair = {name: c for name, c in cli.COMMANDS.items() if not isinstance(c.start, type)}
    assert len(of_a_pair) == 8
    for name, command in of_a_pair.items():
        config = flags.as_shown(command.start(presets.EMBEDDED), everything=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
            tyro.cli(type(config), args=["--help"], default=config)
        text = " ".join(printed.getvalue().replace("│", " ").split())
        bare = re.findall(r"(--[a-z-]+[^()]{0,40}?) \(default", text)
        assert not [flag for flag in bare if re.fullmatch(r"--\S+( [A-Z\[\]. ]+)?", flag)], name


def test_a_hub_id_gets_the_preset_of_what_was_fetched(monkeypatch):
    """Its settings are not here when the flags are read first."""
    small = dataclasses.replace(presets.EMBEDDED_POLICY, size_actor=(7,))
    known = presets.Preset(presets.CPU_CYCLE, small, most_context=512)
    unknown = presets.Preset(presets.PAPER_CYCLE, presets.PAPER_POLICY, most_context=2048)
    fetched = lambda name, argument: ASSETS / argument if str(name) == "me/model" else name
    monkeypatch.setattr(flags.hub, "folder_of", fetched)
    monkeypatch.setattr(
        presets, "of", lambda device, target=None, *rest: known if target else unknown
    )
    start = lambda preset: cli.TuneConfig(widths=preset.policy)
    found = flags.parse(start, ["--target", "me/model", "--live-prompts", "2", "--sizes", "0", "3"])
    assert found.widths == small and found.live_prompts == 2
    assert (found.target, found.draft) == (ASSETS / "target", ASSETS / "draft")
    assert found.cycle == dataclasses.replace(presets.CPU_CYCLE, sizes=(0, 3))
    there = flags.parse(start, ["--target", str(ASSETS / "target")])
    assert there.widths == small


def test_programs_are_kept_where_nothing_else_is_said(tmp_path, monkeypatch, capsys):
    before = {name: getattr(jax.config, name) for name in CACHE_SETTINGS}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        flags.keep_programs(True)
        assert jax.config.jax_compilation_cache_dir == before["jax_compilation_cache_dir"]
        jax.config.update("jax_compilation_cache_dir", None)
        for said in (f"Compiled programs are kept in {tmp_path}/ltd_jax/programs", ""):
            flags.keep_programs(True)
            assert capsys.readouterr().err.startswith(said)
            assert jax.config.jax_compilation_cache_dir == f"{tmp_path}/ltd_jax/programs"
            jax.config.update("jax_compilation_cache_dir", None)
        flags.keep_programs(False)
        assert not jax.config.jax_enable_compilation_cache
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


CACHE_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


def test_shapes_change_what_the_preset_says():
    config = PairFlags(shapes=ShapeFlags(max_levels=3, sizes=(0, 2)))
    assert (config.cycle.max_levels, config.cycle.sizes) == (3, (0, 2))
    assert config.cycle.context == config.preset.cycle.context
    with pytest.raises(UserError, match="There is no such cycle: max_levels is 0"):
        _ = PairFlags(shapes=ShapeFlags(max_levels=0)).cycle


def test_counts_and_folders(tmp_path):
    with pytest.raises(UserError, match="`devices` is 0 but must be at least 1"):
        flags.at_least_one(PairFlags(devices=0), "devices")
    assert flags.writable(tmp_path / "new" / "er").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write to .*; give another folder with `out`"):
        flags.writable(tmp_path / "file")
