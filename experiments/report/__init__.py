"""A run's numbers as files for people: `report.json`, `report.html`, plots, a terminal table.

In: a `Report` (the schema of report.json) and `Figures` (arrays for the plots). Out: files that
replace older ones only when they are whole. The page shows the numbers beside the paper's
(Tables 1 and 9) and says in plain words whether the policies helped.
"""

import json
from pathlib import Path

from experiments.report import canvas, page, plots
from experiments.report.figures import Figures
from experiments.report.schema import Report, check
from ltd_jax.files import UserError, replacing

__all__ = ["Figures", "Report", "check", "headline_picture", "terminal_table", "write"]

HEADLINE_WIDTH = 9.0  # inches


def write(report: Report, figures: Figures, folder: Path) -> Path:
    """Writes report.json, report.html and a PNG per plot; returns the page's path.

    Raises:
      ValueError: the report is not of schema 1; nothing is written.
      UserError: a file cannot be written.
    """
    check(report)
    _write(folder / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    pictures = plots.pictures(report, figures)
    drawn = {f"{picture.name}.png": picture.png for picture in pictures}
    for name, content in drawn.items():
        _write(folder / name, content)
    for plot in plots.PLOTS:
        if f"{plot.name}.png" not in drawn:  # one of an earlier run does not belong to this report
            (folder / f"{plot.name}.png").unlink(missing_ok=True)
    path = folder / "report.html"
    _write(path, page.html(report, figures, pictures).encode())
    return path


def headline_picture(report: Report, path: Path) -> None:
    """Tokens per second by method and task with intervals; PNG or SVG by the path's ending.

    Raises:
      ValueError: the report is not of schema 1.
      UserError: the ending is neither, or the file cannot be written.
    """
    check(report)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "svg"):
        raise UserError(f"Cannot draw {path}: give a name that ends in .png or .svg.")
    _write(path, canvas.encode(plots.throughput(report, HEADLINE_WIDTH), kind))


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
