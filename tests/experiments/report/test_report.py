import dataclasses
import io
import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from rich.console import Console

import experiments
from experiments import report
from experiments.report import page, paper, plots, tables, words
from experiments.report.figures import Figures
from ltd_jax.files import UserError
from tests.experiments.report import synthetic

SIZES, LEVELS = synthetic.SIZES, synthetic.LEVELS
RECORDED = Path(experiments.__file__).parent / "results"


@pytest.fixture
def numbers():
    return synthetic.numbers()


@pytest.fixture
def figures():
    return synthetic.figures()


def test_a_whole_report_is_written_and_read_back(numbers, figures, tmp_path):
    before = dict(matplotlib.rcParams)
    path = report.write(numbers, figures, tmp_path / "new")
    assert dict(matplotlib.rcParams) == before
    names = {file.name for file in path.parent.iterdir()}
    expected = {f"{name}.png" for name in plots.PLOTS} | {
        "report.json",
        "report.html",
        "report.md",
    }
    assert names == expected and path.name == "report.html"
    assert json.loads((path.parent / "report.json").read_text()) == numbers


def test_the_page_loads_nothing_and_escapes_what_it_is_given(numbers, figures, tmp_path):
    text = report.write(numbers, figures, tmp_path).read_text()
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", text)
    sources = re.findall(r'src(?:set)?="([^"]*)"', text)
    assert len(sources) == 2 * len(plots.PLOTS)  # light and dark
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert "default-src 'none'" in text
    assert "--out &lt;runs&gt; &amp; more" in text and "<runs>" not in text
    assert text.index("1.05x the best constant") < text.index('class="results"')
    assert text.index('class="results"') < text.index("<img")
    assert 'name="viewport"' in text


def test_parts_that_are_missing_are_left_out(numbers, figures, tmp_path):
    report.write(numbers, figures, tmp_path)
    numbers["replay_vs_live"] = []
    numbers["methods"] = [row for row in numbers["methods"] if row["task"] == "code"]
    text = report.write(numbers, Figures(sizes=SIZES), tmp_path).read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"headline.png", "optimum.png"}
    assert text.count("<img") == 2 and "No policy was both replayed" in text


def drawn(numbers, figures):
    return len(plots.pictures(numbers, figures))


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Figures)][1:])
def test_every_part_may_be_missing(numbers, figures, name):
    partial = dataclasses.replace(figures, **{name: () if name == "curves" else None})
    assert drawn(numbers, partial) >= len(plots.PLOTS) - 2  # tokens per second need two


def test_unmeasured_and_uncounted_cells_do_not_matter(numbers, figures):
    figures.cycle_seconds[0, -1] = np.nan
    hollow = dataclasses.replace(figures, choices_hard=np.zeros((LEVELS, len(SIZES))))
    assert drawn(numbers, hollow) == len(plots.PLOTS)
    assert drawn(numbers, dataclasses.replace(hollow, choices_easy=None)) == len(plots.PLOTS) - 1


@pytest.mark.parametrize("value", [float("nan"), np.float32(1)])
def test_a_number_that_is_not_json_writes_nothing(numbers, tmp_path, value):
    numbers["methods"][3]["speedup"] = value
    with pytest.raises((TypeError, ValueError), match="float32|not JSON compliant"):
        report.write(numbers, Figures(sizes=SIZES), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(numbers, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*report\.json"):
        report.write(numbers, Figures(sizes=SIZES), tmp_path / "file")


def test_arrays_of_other_shapes_are_refused(figures):
    for change in [
        {"committed": np.ones((LEVELS, 3))},
        {"draft_seconds": np.ones(LEVELS + 1)},
        {"verify_seconds": np.ones(3)},
        {"draft_seconds": np.ones((LEVELS, 2))},
    ]:
        with pytest.raises(ValueError, match=r"shape|different"):
            dataclasses.replace(figures, **change)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.02, 1.08, "decodes faster"), (0.9, 0.97, "is slower"), (0.98, 1.02, "distinguishable")],
)
def test_the_words_follow_the_interval(numbers, low, high, expected):
    numbers["ltd_over_best_constant"] = {"ratio": (low + high) / 2, "low": low, "high": high}
    said = words.against_constant(numbers)
    assert expected in said and f"95% interval {low:.2f} to {high:.2f}" in said


def test_no_verdict_without_an_interval(numbers):
    numbers["ltd_over_best_constant"] = {"ratio": 1.5, "low": None, "high": None}
    for row in numbers["methods"]:
        row |= {"speedup_low": None, "speedup_high": None}
    said = words.verdict(numbers)
    assert said.count("(no interval): it is not distinguishable from") == 2
    assert "faster" not in said and "slower" not in said


def test_the_verdict_on_plain_decoding_follows_its_interval(numbers):
    row = words.mean_row(numbers, "ltd")
    for low, high, said in (
        (1.1, 1.3, "it is faster"),
        (0.9, 0.97, "it is slower, so decode without a draft here"),
        (0.9, 1.3, "the interval contains 1, so it is not distinguishable from plain decoding"),
    ):
        row |= {"speedup_low": low, "speedup_high": high}
        assert said in words.against_plain(numbers)


def test_an_interval_close_to_one_shows_its_side(numbers):
    numbers["ltd_over_best_constant"] = {"ratio": 1.02, "low": 1.002, "high": 1.04}
    assert "1.002 to 1.040" in words.against_constant(numbers)


def test_a_constant_is_called_a_constant(numbers, figures):
    assert "at easy places" in words.behaviour(numbers, figures)
    for cells, expected in [
        ([(1, 4)], "2 levels and size 4 in 100.0% of its cycles: the policies only rediscovered"),
        ([(0, 4), (0, 5)], "levels are constant (1); only the size policy adapts"),
        ([(1, 4), (3, 4)], "size is constant (4); only the depth policy adapts"),
    ]:
        counts = np.zeros((LEVELS, len(SIZES)))
        for cell in cells:
            counts[cell] = 500
        fixed = dataclasses.replace(figures, choices_easy=counts, choices_hard=counts)
        assert expected in words.behaviour(numbers, fixed)


def test_a_loss_is_called_a_loss(numbers, figures):
    numbers["optimum"]["share_gained_by_ltd"] = -0.25
    assert "gains nothing" in words.behaviour(numbers, figures)
    assert "-25" not in words.behaviour(numbers, figures)
    assert "below the best constant" in words.behaviour(numbers, figures)
    checked = numbers["lossless"]
    assert words.lossless(checked).startswith("Lossless: 24,576 generated tokens")
    tied = words.lossless(checked | {"near_ties": 1})
    assert "rounding: 64 steps of float32, 0.00012 for logits near 16) in 1 text." in tied
    half = words.lossless(checked | {"near_ties": 2, "dtype": "bfloat16"})
    assert "rounding: 4 steps of bfloat16, 0.5 for logits near 16) in 2 texts." in half
    assert words.lossless(checked | {"mismatches": 3}).startswith("Not lossless: 3 mismatches")
    assert words.lossless(checked | {"tokens_compared": 0}).startswith("Not checked")


def test_replay_and_live_report_the_worst_controller(numbers):
    rows = numbers["replay_vs_live"]
    assert words.replay_error(rows).endswith("off by at most 3.2% (LTD).")
    plain = {
        "controller": "autoregressive",
        "predicted_tokens_per_second": 440.0,
        "measured_tokens_per_second": 400.0,
    }  # a machine that got slower: 10 % off, and so is 1.013 / 1.1 = 0.921, 0.968 / 1.1 = 0.880
    said = words.replay_error([*rows, plain])
    assert "off by at most 10.0% (autoregressive)" in said
    assert said.endswith("relative to plain decoding in the same run, by at most 12.0%.")


def printed(shown, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 60])
def test_the_terminal_table_fits_a_terminal(numbers, width):
    text = printed(tables.report(numbers), width)
    assert "…" not in text and "1.62–1.71" in text and "best constant" in text
    rows = [line for line in text.splitlines() if line.startswith(" LTD ")]
    assert len(rows) == len(synthetic.TASKS) and "16.0" in text
    assert "it decodes faster" in text and "Lossless: 24,576" in text


@pytest.mark.parametrize("width", [80, 60])
def test_the_tables_of_methods_fit_a_terminal(width):
    found = recorded("leaderboard")
    text = printed(tables.leaderboard("all", found["rows"], 0.0, paper.TABLE1[:2]), width)
    assert "…" not in text and " gammatune+ tuned " in text and "autoregressive" in text
    assert "below" in text and "3.92x, 6.56" in text and not re.search(r"-\d+%", text)
    rows = recorded("table7_8_iterations")["rows"]
    text = printed(tables.study("Iterations", rows, [paper.TABLE7, paper.TABLE8]), width)
    assert "…" not in text and "1.026–1.065" in text and "4.16x, 6.08" in text
    cells = recorded("retarget")["rows"]
    names = list(dict.fromkeys(cell["run_on"] for cell in cells))
    text = printed(tables.moves(cells, names), width)
    assert "…" not in text and "this device" in text and "0.854" in text


def recorded(name):
    return json.loads((RECORDED / "embedded-cpu" / f"{name}.json").read_text())


def test_one_task_needs_no_mean(numbers):
    numbers["methods"] = [row for row in numbers["methods"] if row["task"] in ("code", "mean")]
    assert words.tasks_of(numbers) == ["code"]
    assert "mean of tasks" not in printed(tables.report(numbers), 80)
    assert "1.66x plain decoding (95%" in words.against_plain(numbers)


def test_the_table_of_the_page_has_dashes_where_nothing_applies(numbers, tmp_path):
    text = report.write(numbers, Figures(sizes=SIZES), tmp_path).read_text()
    row = re.search(r'<tr class="ltd">.*?</tr>', text, re.DOTALL).group()
    assert "<td>1.3%</td>" in row and "–</td>" not in row
    plain = re.search(r'<tr class="autoregressive">.*?</tr>', text, re.DOTALL).group()
    assert plain.count("<td>–</td>") == 4  # no interval, levels, size or policies


def test_the_page_is_readable_by_machines_and_in_the_dark(numbers, figures, tmp_path):
    text = report.write(numbers, figures, tmp_path).read_text()
    assert "prefers-color-scheme: dark" in text and "<main>" in text
    assert all("scope=" in head for head in re.findall(r"<th\b[^>]*>", text))
    tables, pictures = text.count("<table"), text.count("<img")
    assert tables == text.count("<caption>")
    scrolling = re.findall(
        r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+">', text
    )
    assert len(scrolling) == text.count('class="scroll"') == tables + pictures
    shown = re.findall(r'alt="([^"]*)"', text)
    assert all(shown) and len(set(shown)) == len(plots.PLOTS)
    assert "Decoded:" not in text and "How to use it" not in text
    told = {"sample": "2 <b> prompts", "next_commands": ["generate --policies <x>"]}
    text = report.write(numbers, Figures(sizes=SIZES), tmp_path, **told).read_text()
    assert "2 &lt;b&gt; prompts" in text and "--policies &lt;x&gt;" in text


def test_the_markdown_has_the_numbers_and_the_pictures(numbers, figures, tmp_path):
    numbers["replay_vs_live"][0]["controller"] = "a|b"
    report.write(numbers, figures, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| mean of tasks | LTD | 679 | 1.66x | 1.62–1.71 |" in text and r"| a\|b |" in text
    links = re.findall(r"\]\((.*?)\)", text)
    assert links == [f"{name}.png" for name in plots.PLOTS]
    assert "1.05x the best constant" in text and numbers["environment"]["command"] in text


@pytest.mark.parametrize("name", ["smollm2-cpu", "quickstart-cpu", "quickstart-avx2"])
def test_recorded_reports_make_a_page(name, tmp_path):
    numbers = json.loads((RECORDED / name / "report.json").read_text())
    said = {"skipped": []}  # not said where it was recorded before questions could be
    assert keys_of(said | numbers) == keys_of(synthetic.numbers())
    text = report.write(numbers, Figures(sizes=SIZES), tmp_path).read_text()
    assert words.against_constant(numbers) in text


def keys_of(content):
    """The fields of a report; of lists those of their first item."""
    if isinstance(content, dict):
        return {name: keys_of(value) for name, value in content.items()}
    if isinstance(content, list) and content:
        return [keys_of(content[0])]
    return None


def test_the_page_of_the_leaderboard_loads_nothing_and_escapes(tmp_path):
    found = recorded("leaderboard")
    found["entries"]["0"][3]["source"] = "<script>"
    text = page.leaderboard(found, {0.0: paper.TABLE1[:2], 1.0: paper.TABLE5[:2]})
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", text)
    assert "&lt;script&gt;" in text and text.count("data:image/png;base64,iVBOR") == 4
    assert "below the best constant" in text and not re.search(r"-\d+%", text)
    assert "threshold=-0.3,most=6,size=16,checks=3/4/5" in text and "3.92x, 6.56" in text


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_headline_picture(numbers, tmp_path, ending, start):
    path = tmp_path / f"headline{ending}"
    report.headline_picture(numbers, path)
    assert path.read_bytes().startswith(start)
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        report.headline_picture(numbers, tmp_path / "headline.bmp")
