"""docs/first-hour.md again: its commands typed as printed, their output written under them.

    python -m experiments.proofs.first_hour              all commands, about half an hour
    python -m experiments.proofs.first_hour --only 3 9   the third and the ninth

A command stands in a block of kind `console` after "$ ", its further lines after ">"; the lines
below it are what it printed on stdout. Commands run in a shell in this folder, one after another;
one that fails ends the run, and the page keeps what came before it.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import tyro

from ltd_jax import flags
from ltd_jax.files import UserError, replacing

PAGE = Path(__file__).parents[2] / "docs" / "first-hour.md"
BLOCK = re.compile(r"^(`{3,})console\n(\$ .*?)^\1$", re.MULTILINE | re.DOTALL)
COLUMNS = "90"  # that tables are printed in


@dataclasses.dataclass(frozen=True)
class Typed:
    """A command of the page and what it printed there."""

    command: str  # may have several lines
    output: str  # with its last line's end, or empty

    @property
    def block(self) -> str:
        """As it stands on the page."""
        first, *rest = self.command.split("\n")
        return "\n".join([f"$ {first}", *(f"> {line}".rstrip() for line in rest), self.output])


@dataclasses.dataclass(frozen=True)
class Config:
    """Which commands."""

    only: tuple[int, ...] = ()  # their numbers on the page, from 1; none = all


def blocks(page: str) -> list[Typed]:
    """The commands of a page; every block has one."""
    found = []
    for _, block in BLOCK.findall(page):
        lines = block.removeprefix("$ ").splitlines(keepends=True)
        end = next(
            (at for at, line in enumerate(lines[1:], 1) if line[:2] not in ("> ", ">\n")),
            len(lines),
        )
        command = lines[0] + "".join(line[1:].removeprefix(" ") for line in lines[1:end])
        found.append(Typed(command.rstrip("\n"), "".join(lines[end:])))
    return found


def typed(command: str, folder: Path) -> Typed:
    """A command with what it prints when it runs in a folder.

    Raises:
      UserError: it fails.
    """
    python = Path(sys.executable).parent
    there = {"PATH": f"{python}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, **there, "COLUMNS": COLUMNS},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    if done.returncode:
        raise UserError(f"`{command}` ended with exit code {done.returncode}; see above.")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return Typed(command, "".join(f"{line}\n" for line in lines))


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    count = len(blocks(PAGE.read_text(encoding="utf-8")))
    if not set(config.only) <= set(range(1, count + 1)):
        raise UserError(f"--only takes numbers from 1 to {count}.")
    for number in config.only or range(1, count + 1):
        command = blocks(PAGE.read_text(encoding="utf-8"))[number - 1].command
        flags.say(f"{number}. {command}")
        after = typed(command, PAGE.parents[1])
        page = PAGE.read_text(encoding="utf-8")
        start, end = list(BLOCK.finditer(page))[number - 1].span(2)
        with replacing(PAGE) as temporary:
            temporary.write_text(page[:start] + after.block + page[end:], encoding="utf-8")


if __name__ == "__main__":
    flags.run(main)
