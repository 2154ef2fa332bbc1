"""The report as one HTML file that needs no other: results, plain words, plots, environment."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

from experiments.report import palette, sentences, tables
from experiments.report.figures import Figures
from experiments.report.plots import Picture
from experiments.report.schema import MethodRow, Report
from experiments.report.texts import percent, rate, task_name

HEADINGS = (
    "Method",
    "Tokens/s",
    "Speedup",
    "95 % interval",
    "Committed per cycle",
    "Levels",
    "Size",
    "Share of time",
    "Draft",
    "Verify",
    "Policy",
    "Rest",
)

STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: #fff;
  color: {palette.TEXT}; font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; }}
h2 {{ font-size: 1.2rem; margin: 2.6rem 0 .6rem; }}
p {{ max-width: 46rem; margin: .6rem 0; }}
.faint, figcaption {{ color: {palette.FAINT}; font-size: .88rem; }}
.outcome {{ font-size: 1.1rem; }}
.lossless, .wrong {{ padding: .6rem .9rem; border-left: .3rem solid {palette.OPTIMUM};
  background: #f0faf6; }}
.wrong {{ border-color: #b42318; background: #fef3f2; font-weight: 600; }}
.scroll {{ overflow-x: auto; -webkit-overflow-scrolling: touch; }}
table {{ border-collapse: separate; border-spacing: 0; font-size: .9rem;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: .34rem .55rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid {palette.GRID}; }}
thead th {{ color: {palette.FAINT}; font-weight: 600; font-size: .8rem; white-space: normal;
  vertical-align: bottom; line-height: 1.25; }}
th:first-child, td:first-child {{ text-align: left; }}
.results th:first-child, .results td:first-child {{ position: sticky; left: 0; background: #fff; }}
tbody th {{ padding-top: 1rem; font-size: 1rem; }}
tr.ltd td {{ font-weight: 650; background: #fdf3ec; }}
.results th:nth-child({HEADINGS.index("Share of time") + 1}) {{ text-align: left; }}
.plain td:first-child {{ white-space: normal; }}
.facts td {{ text-align: left; white-space: normal; overflow-wrap: anywhere; }}
.facts td:first-child {{ color: {palette.FAINT}; overflow-wrap: normal; }}
.results tr.ltd td:first-child {{ background: #fdf3ec; }}
.dot {{ display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .5em; }}
.parts {{ display: flex; width: 6rem; height: .8rem; border-radius: .2rem; overflow: hidden; }}
.key span {{ white-space: nowrap; margin-right: 1rem; }}
figure {{ margin: 1.8rem 0; max-width: 44rem; }}
img {{ width: 100%; height: auto; display: block; }}
figcaption {{ margin-top: .3rem; }}
pre {{ overflow-x: auto; padding: .8rem; background: #f6f7f9; border-radius: .4rem;
  font-size: .88rem; }}
"""


def html(report: Report, figures: Figures, pictures: list[Picture]) -> str:
    """The page; pictures are inside it as base64."""
    environment = report["environment"]
    title = "Learned speculative decoding: what it gives here"
    checked = report["lossless"]
    sound = checked["tokens_compared"] > 0 and checked["mismatches"] == 0
    body = [
        f"<h1>{title}</h1>",
        f'<p class="faint">{escape(report["pair"]["target"])} with draft '
        f"{escape(report['pair']['draft'])}, on {escape(environment['device'])}, "
        f"{escape(environment['dtype'])}, {escape(environment['date'])}</p>",
        _results(report),
        f'<p class="outcome">{escape(sentences.outcome(report, figures))}</p>',
        f'<p class="{"lossless" if sound else "wrong"}">{escape(sentences.lossless(checked))}</p>',
        "<h2>Plots</h2>",
        *map(_figure, pictures),
        _without_repetition(report),
        _replay(report),
        _paper(report),
        _environment(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _results(report: Report) -> str:
    tasks = tables.tasks_of(report)
    tasks = [task for task in tasks if task == "mean"] + [task for task in tasks if task != "mean"]
    groups = []
    for task in tasks:
        rows = "\n".join(map(_result, tables.rows_of(report, task)))
        blank = f'<td colspan="{len(HEADINGS) - 1}"></td>'
        name = escape(task_name(task).capitalize())
        groups.append(f"<tbody>\n<tr><th>{name}</th>{blank}</tr>\n{rows}\n</tbody>")
    key = "".join(
        f'<span><i class="dot" style="background:{colour}"></i>{part}</span>'
        for part, colour in palette.PARTS.items()
    )
    late = any(tables.rest_share(row) < -0.0005 for row in report["methods"])
    note = " A rest below 0: the parts, timed alone, take longer than the whole." if late else ""
    return (
        f'<div class="scroll"><table class="results"><thead>{_row(HEADINGS, "th")}</thead>\n'
        + "\n".join(groups)
        + f'\n</table></div>\n<p class="faint key">{key}</p>'
        '<p class="faint">Speedup: over plain decoding. Committed: tokens gained per cycle, the '
        "target's own one included. Levels: draft passes per cycle. Size: drafted nodes that the "
        f"target verifies per cycle.{note}</p>"
    )


def _result(row: MethodRow) -> str:
    texts = list(map(escape, tables.cells(row)))
    colour = palette.METHODS[row["method"]]
    texts[0] = f'<i class="dot" style="background:{colour}"></i>{texts[0]}'
    rest = max(tables.rest_share(row), 0.0)
    shares = (row["draft_share"], row["verify_share"], row["policy_share"], rest)
    parts = "".join(
        f'<i style="width:{100 * share:.2f}%;background:{colour}"></i>'
        for share, colour in zip(shares, palette.PARTS.values(), strict=True)
    )
    texts.insert(HEADINGS.index("Share of time"), f'<div class="parts">{parts}</div>')
    return f'<tr class="{row["method"]}">{"".join(f"<td>{text}</td>" for text in texts)}</tr>'


def _figure(picture: Picture) -> str:
    source = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><img alt="{escape(picture.caption)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _without_repetition(report: Report) -> str:
    rows = [tuple(map(escape, row)) for row in tables.without_repetition(report)]
    words = (
        "Small models loop, and loops are easy to draft. These are the cycles that start outside "
        "of exact repetitions (period of at most 32 tokens): measured choices and outcomes, at the "
        "times of the latency table."
    )
    headings = ("Task and method", "Repeated tokens left out", "Committed per cycle", "Speedup")
    return f"<h2>Without repeated stretches</h2><p>{words}</p>" + _table(headings, rows)


def _replay(report: Report) -> str:
    rows = [
        (
            escape(row["controller"]),
            rate(row["predicted_tokens_per_second"]),
            rate(row["measured_tokens_per_second"]),
            percent(sentences.deviation(row)),
        )
        for row in report["replay_vs_live"]
    ]
    headings = ("Controller", "Predicted tokens/s", "Measured tokens/s", "Difference")
    words = escape(sentences.replay_error(report["replay_vs_live"]))
    return f"<h2>Replay and live</h2><p>{words}</p>" + (_table(headings, rows) if rows else "")


def _paper(report: Report) -> str:
    rows = [tuple(map(escape, row)) for row in tables.beside_paper(report)]
    words = (
        "Means of tasks. The paper (Learning to Draft, Tables 1 and 9) measured five models of "
        "8 to 32 billion parameters on an A100, on other tasks; the numbers are to be read beside "
        "each other, not compared one by one."
    )
    return f"<h2>Beside the paper</h2><p>{words}</p>" + _table(("", "Here", "Paper"), rows)


def _environment(report: Report) -> str:
    environment, pair, learning = report["environment"], report["pair"], report["learning"]
    target, draft = pair["parameters"]
    rows = [
        ("Device", f"{environment['device']} ({environment['device_count']})"),
        ("Dtype", environment["dtype"]),
        (
            "Versions",
            f"Python {environment['python']}, jax {environment['jax']}, "
            f"ltd_jax {environment['ltd_jax']}",
        ),
        ("Date", environment["date"]),
        ("Target", f"{pair['target']}, {target:,} parameters"),
        ("Draft", f"{pair['draft']}, {draft:,} parameters"),
        ("Fingerprint of the weights", pair["fingerprint"]),
        (
            "Recording",
            f"{learning['positions_recorded']:,} positions in "
            f"{learning['recording_seconds']:,.0f} s",
        ),
        ("Learning", f"{learning['decisions']:,} decisions in {learning['seconds']:,.0f} s"),
    ]
    cells = [(escape(name), escape(value)) for name, value in rows]
    return (
        "<h2>Environment</h2>"
        + _table((), cells, "facts")
        + f"<h2>Command</h2><pre>{escape(environment['command'])}</pre>"
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "plain") -> str:
    head = f"<thead>{_row(headings, 'th')}</thead>" if headings else ""
    body = "\n".join(_row(row, "td") for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}">{head}<tbody>\n{body}\n</tbody></table></div>'
    )


def _row(texts: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"
