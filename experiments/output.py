"""Results of an experiment: a table in the terminal, NAME.json and NAME.png.

The JSON says where its numbers come from.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ltd_jax import flags
from ltd_jax.cli import StageFlags
from ltd_jax.files import replacing, write_json
from ltd_jax.flags import PairFlags


@dataclasses.dataclass(frozen=True)
class ResultFlags(StageFlags):
    """The stages' flags, and where results go."""

    results: Path | None = None  # folder of the numbers and pictures; None = OUT/results

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.out / "results" if self.results is None else self.results


def table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]] = (), caption: str = ""
) -> Table:
    """A table for the terminal, names on the left; whatever is too long is folded, never cut."""
    shown = Table(title=title, caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    shown.collapse_padding = True
    for heading in headings:
        shown.add_column(heading, justify="right", overflow="fold")
    shown.columns[0].justify = "left"
    for row in rows:
        shown.add_row(*row)
    return shown


def write(
    folder: Path,
    name: str,
    config: PairFlags,
    content: Mapping[str, Any],
    png: bytes | None = None,
) -> dict[str, Any]:
    """Writes both files and says where; returns what is in the JSON."""
    flags.writable(folder)
    document = {"schema": 1, "experiment": name, "environment": config.environment, **content}
    path = folder / f"{name}.json"
    write_json(path, document)
    if png is not None:
        with replacing(path.with_suffix(".png")) as temporary:
            temporary.write_bytes(png)
    flags.say(f"Results: {path}")
    return document
