"""A run's numbers as files for people: report.json, report.html, report.md and pictures.

Templates lie beside this file. HTML pages need no other file: styles and pictures are inside them,
and everything that is put into them is escaped. Files replace older ones only when they are whole.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from experiments.report import paper, plots, tables, words
from experiments.report.figures import Figures
from experiments.report.paper import PaperTable
from experiments.report.words import METHOD_NAMES, NONE, Report, percent, rate, times
from ltd_jax.decoding.benchmark import MEAN, STATISTIC
from ltd_jax.files import UserError, replacing

HEADLINE_WIDTH = 9.0  # inches


def write(
    report: Report,
    figures: Figures,
    folder: Path,
    *,
    sample: str = "",
    next_commands: Sequence[str] = (),
) -> Path:
    """Writes report.json, report.html, report.md and a PNG per plot; returns the page's path.

    Args:
      report: schema 2, as `experiments.report` lists it; numbers are Python's own.
      sample: on what was measured, such as "12 prompts per task, 128 new tokens each".
      next_commands: that use what the run left.

    Raises:
      TypeError, ValueError: a number is not Python's own, or not finite; nothing is written.
      UserError: a file cannot be written.
    """
    content = json.dumps(report, indent=1, allow_nan=False)
    drawn = plots.pictures(report, figures)
    given = {
        "report": report,
        "figures": figures,
        "pictures": drawn,
        "tasks": sorted(words.tasks_of(report), key=lambda task: task != MEAN),  # the mean first
        "beside_paper": beside_paper(report),
        "sample": sample,
        "next_commands": next_commands,
    }
    page, summary = (_render(f"{name}.jinja", **given) for name in ("page.html", "report.md"))
    _write(folder / "report.json", content.encode())
    for name in plots.PLOTS:
        if name in drawn:
            _write(folder / f"{name}.png", drawn[name].png)
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier run
    _write(folder / "report.md", summary.encode())
    path = folder / "report.html"
    _write(path, page.encode())
    return path


def headline_picture(report: Report, path: Path) -> None:
    """Speedup by method and task with intervals, wide; PNG or SVG by the path's ending.

    Raises:
      UserError: the ending is neither, or the file cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "svg"):
        raise UserError(f"Cannot draw {path}: give a name that ends in .png or .svg.")
    _write(path, plots.encode(plots.headline(report, HEADLINE_WIDTH), kind))


def leaderboard(document: Mapping[str, Any], papers: Mapping[float, Sequence[PaperTable]]) -> str:
    """The HTML page of a leaderboard's document; pictures are inside it.

    Args:
      document: rows, environment, and by temperature lossless, entries.
      papers: the paper's tables that stand beside ours, by temperature.
    """
    temperatures = []
    for heat in sorted({row["temperature"] for row in document["rows"]}):
        name = f"{heat:g}"
        speedups = plots.leaderboard(document["rows"], heat)
        temperatures.append(
            {
                "name": name,
                "rows": plots.ranked(document["rows"], heat),
                "lossless": document["lossless"][name],
                "papers": papers.get(heat, ()),
                "entries": document["entries"][name],
                "speedups": plots.encode(speedups),
                "dark_speedups": plots.encode(speedups, dark=True),
            }
        )
    environment = document["environment"]
    return _render("leaderboard.html.jinja", temperatures=temperatures, environment=environment)


def setting_text(setting: Mapping[str, Sequence[float]]) -> str:
    """A method's setting as it is given on the command line."""
    return ",".join(
        f"{key}={'/'.join(f'{value:g}' for value in values)}" for key, values in setting.items()
    )


def beside_paper(report: Report) -> list[tuple[str, str, str]]:
    """Quantity, here, and the paper's range over its models (Tables 1 and 9), as means of tasks."""
    between = lambda values, write: f"{write(min(values))}–{write(max(values))}"
    two_digits = "{:.2f}".format

    def here(method: str, field: str, write: Callable[[float], str]) -> str:
        row = words.mean_row(report, method)
        return NONE if row is None else write(row[field])

    rows, speedups = [], {}
    for method in ("ltd", "best_constant", "eagle3"):
        found = (table.rows.get(method.replace("_", " ")) for table in paper.TABLE1)
        speedups[method] = [row.mean.speedup for row in found if row is not None]
        name = f"{METHOD_NAMES[method]} over plain decoding"
        rows.append((name, here(method, "speedup", times), between(speedups[method], times)))
    both = zip(speedups["ltd"], speedups["best_constant"], strict=True)
    *usual, largest = sorted(learned / constant for learned, constant in both)
    ratio = times(report["ltd_over_best_constant"]["ratio"])
    committed = [table.rows["ltd"].mean.committed for table in paper.TABLE1]
    ours = here("ltd", "committed_per_cycle", two_digits)
    shares = [row["size_share"] + row["depth_share"] for row in paper.TABLE9]
    share = here("ltd", "policy_share", percent)
    return [
        *rows,
        ("LTD over best constant", ratio, f"{between(usual, times)}, once {times(largest)}"),
        ("Committed tokens per cycle, LTD", ours, between(committed, two_digits)),
        ("Policies' share of the time", share, between(shares, percent)),
    ]


def _render(template: str, **context: Any) -> str:
    """A template with the package's names and formats as filters."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.jinja",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "rate": rate,
        "times": times,
        "percent": percent,
        "data_uri": lambda png: f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}",
        "cell": lambda text: str(text).replace("|", r"\|").replace("\n", " "),
    }
    environment.globals |= {"plots": plots, "tables": tables, "words": words, "NONE": NONE}
    environment.globals |= {"setting_text": setting_text, "STATISTIC": STATISTIC}
    return environment.get_template(template).render(**context)


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
