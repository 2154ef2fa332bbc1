"""One statistic per number: what the terminal, the page, the pictures and the README say agrees."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

import experiments
from experiments import report
from experiments.report import plots, tables, words
from ltd_jax import cli
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import MEAN, PLAIN, STATISTIC, Run
from tests.experiments.report import synthetic

ROOT = Path(experiments.__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
TASKS = ("code", "docs")
SECONDS = {  # of the prompts of each task; medians of ratios would be other numbers
    PLAIN: ((1.0, 2.0, 7.0), (2.0, 2.5)),
    "eagle3": ((1.5, 2.5, 4.0), (4.0, 2.0)),
    "best_constant": ((0.8, 2.1, 3.0), (1.0, 2.2)),
    "ltd": ((0.9, 1.4, 3.1), (1.1, 1.7)),
}


def runs():
    return [
        Run(method, 10 * task + prompt, task, (1, 2, 3, 4, 5), 0.1, seconds, (2, 2), (4, 4), (2, 2))
        for method, by_task in SECONDS.items()
        for task, prompts in enumerate(by_task)
        for prompt, seconds in enumerate(prompts)
    ]


@pytest.fixture(scope="module")
def numbers():
    rows = [row | {"policy_share": 0.0} for row in benchmark.method_rows(runs(), TASKS)]
    over = vars(benchmark.over(runs(), "ltd", "best_constant"))
    return synthetic.numbers() | {"methods": rows, "ltd_over_best_constant": over}


@pytest.fixture(scope="module")
def expected(numbers):
    """What is to be read, by task and method: the rate, the speedup, and its interval's ends."""
    return {
        (words.task_name(row["task"]), row["method"]): (
            words.rate(row["tokens_per_second"]),
            words.times(row["speedup"]),
            f"{row['speedup_low']:.2f}",
            f"{row['speedup_high']:.2f}",
        )
        for row in numbers["methods"]
    }


@pytest.fixture(scope="module")
def written(numbers, tmp_path_factory):
    return report.write(numbers, synthetic.figures(), tmp_path_factory.mktemp("report"))


def printed(shown, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def flat(text):
    return " ".join(text.split())


def test_rates_and_speedups_are_totals_over_totals(expected):
    assert expected["code", PLAIN][:2] == ("1.2", "1.00x")
    assert expected["code", "ltd"][:2] == (f"{12 / 5.4:.1f}", f"{10 / 5.4:.2f}x")
    assert expected["docs", "ltd"][1] == f"{4.5 / 2.8:.2f}x"
    assert expected["mean of tasks", "ltd"][1] == f"{(10 / 5.4 + 4.5 / 2.8) / 2:.2f}x"


def test_the_page_and_its_markdown(expected, written):
    text = written.read_text()
    table = text[text.index('class="results"') :]
    groups = re.split(r'class="group">', table[: table.index("</table>")])[1:]
    found = {}
    for group in groups:
        task = group[: group.index("<")]
        for method, row in re.findall(r'<tr class="(\w+)">(.*?)</tr>', group, re.DOTALL):
            found[task, method] = re.findall(r"<td>(.*?)</td>", row)
    rows = [line.split(" | ") for line in written.with_name("report.md").read_text().splitlines()]
    for (task, method), (rate, speedup, low, high) in expected.items():
        interval = "–" if method == PLAIN else f"{low}–{high}"
        assert found[task, method][:3] == [rate, speedup, interval]
        name = words.METHOD_NAMES[method]
        (row,) = [row for row in rows if row[:2] == [f"| {task}", name]]
        assert row[2:5] == [rate, speedup, interval]
    assert STATISTIC in flat(text).replace("&#39;", "'")
    assert STATISTIC in written.with_name("report.md").read_text()


def sections(text):
    """The lines of every task of a table, behind the one that names it."""
    found, task = {}, ""
    for line in text.splitlines():
        task = line.strip() if line.strip() in (*TASKS, "mean of tasks") else task
        found[task] = found.get(task, "") + line + "\n"
    return found


def test_the_terminals(expected, numbers):
    own = printed(tables.report(numbers))
    table = cli.comparison_table({"pair": ["target", "draft"], "methods": numbers["methods"]})
    bench, narrow = printed(table), printed(table, 60)
    assert f"\n {PLAIN} " in narrow and "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 60
    assert STATISTIC in flat(own) and STATISTIC in flat(bench)
    of_own, of_bench = sections(own), sections(bench)
    for (task, method), (rate, speedup, low, high) in expected.items():
        name = tables.SHORT_NAMES[method]
        (line,) = re.findall(rf"^ {re.escape(name)} .*$", of_own[task], re.MULTILINE)
        (other,) = re.findall(rf"^ {method} .*$", of_bench[task], re.MULTILINE)
        assert f" {rate} " in line and speedup in line and f" {rate}" in other and speedup in other
        if method != PLAIN:
            assert f"{low}–{high}" in line and f"{low}-{high}" in other


def test_the_picture(expected, numbers):
    (axes,) = plots.headline(numbers).axes
    bars = sorted(f"{bar.get_height():.2f}x" for bar in axes.patches)
    assert bars == sorted(row[1] for (_, method), row in expected.items() if method != PLAIN)
    whiskers = {
        tuple(f"{end:.2f}" for end in segment[:, 1])
        for lines in axes.collections
        for segment in lines.get_segments()
    }
    assert whiskers == {row[2:] for (_, method), row in expected.items() if method != PLAIN}
    plain = [text.get_text().split("plain: ")[1] for text in axes.get_xticklabels()]
    assert plain == [expected[task, PLAIN][0] for task in (*TASKS, "mean of tasks")]


@pytest.mark.parametrize(
    ("page", "name"), [("README.md", "smollm2-cpu"), ("docs/results.md", "quickstart-cpu")]
)
def test_a_page_has_the_recorded_reports_numbers(page, name):
    recorded = json.loads((RESULTS / name / "report.json").read_text())
    text = (ROOT / page).read_text()
    for row in tables.summary(recorded):
        assert f"| {' | '.join(row)} |" in text
    over = recorded["ltd_over_best_constant"]
    low, high = words.ratio(over["low"]), words.ratio(over["high"])
    assert f"LTD is {words.ratio(over['ratio'])} times as fast as the best constant" in flat(text)
    assert f"(95% interval {low} to {high})" in flat(text)
    assert f"{recorded['lossless']['tokens_compared']:,} generated tokens" in flat(text)


@pytest.mark.parametrize("page", ["README.md", "docs/how-it-works.md"])
def test_pages_say_what_the_numbers_are(page):
    assert STATISTIC in flat((ROOT / page).read_text())


@pytest.mark.parametrize("name", ["quickstart-cpu", "quickstart-avx2"])
def test_recorded_speedups_are_ratios_of_the_rates_beside_them(name):
    recorded = json.loads((RESULTS / name / "report.json").read_text())
    rows = {(row["method"], row["task"]): row for row in recorded["methods"]}
    tasks = [task for method, task in rows if method == PLAIN and task != MEAN]
    for (method, task), row in rows.items():
        if task == MEAN:
            for field in ("speedup", *benchmark.NUMBERS):
                mean = sum(rows[method, one][field] for one in tasks) / len(tasks)
                assert row[field] == pytest.approx(mean)
        else:
            rate = row["tokens_per_second"] / rows[PLAIN, task]["tokens_per_second"]
            assert row["speedup"] == pytest.approx(rate)


def test_the_docs_have_the_recorded_leaderboards_numbers():
    rows = json.loads((RESULTS / "embedded-cpu" / "leaderboard.json").read_text())["rows"]
    mean = {(row["method"], row["temperature"]): row for row in rows if row["task"] == MEAN}
    section = (ROOT / "docs" / "results.md").read_text().split("## All methods")[1].split("## ")[0]
    table = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    others = {
        "EAGLE-3's default": "eagle3",
        "C2T as LTD's authors ran it": "c2t-as-run",
        "LTD, trained on sampled texts": "ltd of sampled texts",
    }
    for name, *cells in table[1:]:
        method = others.get(name, name.lower())
        for heat, cell in zip((0.0, 1.0), cells[::2], strict=True):
            row = mean.get((f"{method} tuned", heat), mean.get((method, heat)))
            interval = "" if row is None else words.interval(row["low"], row["high"])
            ends = "" if interval in ("", words.NONE) else f" ({interval})"
            assert cell == (words.NONE if row is None else words.times(row["speedup"]) + ends)
