import copy
import dataclasses
import json
import re

import matplotlib
import numpy as np
import pytest
from rich.console import Console

from experiments import report
from experiments.report import plots, schema, sentences, tables
from experiments.report.figures import Figures
from ltd_jax.files import UserError
from tests import synthetic_report

SIZES, LEVELS = synthetic_report.SIZES, synthetic_report.LEVELS


@pytest.fixture
def numbers():
    return synthetic_report.numbers()


@pytest.fixture
def figures():
    return synthetic_report.figures()


def test_a_whole_report_is_written_and_read_back(numbers, figures, tmp_path):
    before = dict(matplotlib.rcParams)
    page = report.write(numbers, figures, tmp_path / "new")
    assert dict(matplotlib.rcParams) == before
    names = {path.name for path in page.parent.iterdir()}
    expected = {f"{plot.name}.png" for plot in plots.PLOTS} | {"report.json", "report.html"}
    assert names == expected and page.name == "report.html"
    assert json.loads((page.parent / "report.json").read_text()) == numbers


def test_the_page_loads_nothing_and_escapes_what_it_is_given(numbers, figures, tmp_path):
    text = report.write(numbers, figures, tmp_path).read_text()
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe|srcset", text)
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == len(plots.PLOTS)
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert "--out &lt;runs&gt; &amp; more" in text and "<runs>" not in text
    assert text.index('class="results"') < text.index("1.05x the best constant")
    assert text.index("1.05x the best constant") < text.index("<img")
    assert 'name="viewport"' in text


def test_parts_that_are_missing_are_left_out(numbers, figures, tmp_path):
    report.write(numbers, figures, tmp_path)
    numbers["replay_vs_live"] = []
    numbers["methods"] = [row for row in numbers["methods"] if row["task"] == "code"]
    text = report.write(numbers, Figures(sizes=SIZES), tmp_path).read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"throughput.png", "optimum.png"}
    assert text.count("<img") == 2 and "No controller was both replayed" in text


def drawn(numbers, figures):
    return sum(plot.draw(numbers, figures) is not None for plot in plots.PLOTS)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Figures)][1:])
def test_every_part_may_be_missing(numbers, figures, name):
    partial = dataclasses.replace(figures, **{name: () if name == "curves" else None})
    assert drawn(numbers, partial) >= len(plots.PLOTS) - 1


def test_unmeasured_and_uncounted_cells_do_not_matter(numbers, figures):
    figures.cycle_seconds[0, -1] = np.nan
    hollow = dataclasses.replace(figures, choices_hard=np.zeros((LEVELS, len(SIZES))))
    assert drawn(numbers, hollow) == len(plots.PLOTS)
    assert drawn(numbers, dataclasses.replace(hollow, choices_easy=None)) == len(plots.PLOTS) - 1


WRONG = [
    (("schema",), 2, r"report\.schema is 2"),
    (("schema",), True, r"report\.schema is True"),
    (("environment", "device_count"), "1", r"report\.environment\.device_count is '1'.*int"),
    (("pair", "parameters"), [7], r"report\.pair\.parameters is \[7\].*list of 2"),
    (("pair", "parameters"), [7, 0], r"report\.pair\.parameters"),
    (("lossless", "dtype"), "int8", r"report\.lossless\.dtype is 'int8'"),
    (("lossless", "mismatches"), -1, r"report\.lossless\.mismatches is -1"),
    (("methods",), [], r"report\.methods is empty"),
    (("methods", 3, "speedup"), float("nan"), r"report\.methods\[3\]\.speedup is nan"),
    (("methods", 3, "speedup"), np.float32(1), r"report\.methods\[3\]\.speedup .*float32"),
    (("methods", 3, "speedup_low"), 9.0, r"report\.methods\[3\]\.speedup_low is 9"),
    (("methods", 3, "policy_share"), 1.3, r"report\.methods\[3\]\.policy_share is 1\.3"),
    (("methods", 3, "tokens_per_second"), 0, r"report\.methods\[3\]\.tokens_per_second"),
    (("replay_vs_live",), None, r"report\.replay_vs_live is None"),
    (("replay_vs_live", 0, "measured_tokens_per_second"), 0, r"replay_vs_live\[0\]\.measured"),
    (("optimum", "best_constant", "size"), 1.5, r"report\.optimum\.best_constant\.size"),
    (("methods", 3, "method"), "magic", r"report\.methods\[3\]\.method is 'magic'"),
    (("learning", "more"), 1, r"report\.learning\.more is no field"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_wrong_field_is_named_and_nothing_is_written(numbers, tmp_path, place, value, message):
    at = numbers
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    with pytest.raises(ValueError, match=message):
        report.write(numbers, Figures(sizes=SIZES), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(numbers, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*report\.json"):
        report.write(numbers, Figures(sizes=SIZES), tmp_path / "file")


def test_missing_and_repeated_fields_are_named(numbers):
    schema.check(numbers)
    short = copy.deepcopy(numbers)
    del short["optimum"]["share_gained_by_ltd"]
    with pytest.raises(ValueError, match=r"report\.optimum\.share_gained_by_ltd is missing"):
        schema.check(short)
    numbers["methods"].append(numbers["methods"][0])
    with pytest.raises(ValueError, match=r"report\.methods\[20\] repeats"):
        schema.check(numbers)


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
    ("low", "high", "words"),
    [(1.02, 1.08, "decodes faster"), (0.9, 0.97, "is slower"), (0.98, 1.02, "not shown")],
)
def test_the_words_follow_the_interval(numbers, low, high, words):
    numbers["ltd_over_best_constant"] = {"ratio": (low + high) / 2, "low": low, "high": high}
    said = sentences.against_constant(numbers)
    assert words in said and f"95 % interval {low:.2f} to {high:.2f}" in said


def test_an_interval_close_to_one_shows_its_side(numbers):
    numbers["ltd_over_best_constant"] = {"ratio": 1.02, "low": 1.002, "high": 1.04}
    assert "1.002 to 1.040" in sentences.against_constant(numbers)


def test_a_constant_is_called_a_constant(numbers, figures):
    assert "at easy places" in sentences.outcome(numbers, figures)
    for cells, words in [
        ([(1, 4)], "2 levels and size 4 in 100.0 % of its cycles: the policies only rediscovered"),
        ([(0, 4), (0, 5)], "levels are constant (1); only the size policy adapts"),
        ([(1, 4), (3, 4)], "size is constant (4); only the depth policy adapts"),
    ]:
        counts = np.zeros((LEVELS, len(SIZES)))
        for cell in cells:
            counts[cell] = 500
        fixed = dataclasses.replace(figures, choices_easy=counts, choices_hard=counts)
        assert words in sentences.outcome(numbers, fixed)


def test_a_loss_is_called_a_loss(numbers, figures):
    numbers["optimum"]["share_gained_by_ltd"] = -0.25
    assert "gains nothing" in sentences.outcome(numbers, figures)
    assert "-25 %" in sentences.outcome(numbers, figures)
    checked = numbers["lossless"]
    assert sentences.lossless(checked).startswith("Lossless: 24,576 generated tokens")
    assert "in 1 text." in sentences.lossless(checked | {"near_ties": 1})
    assert sentences.lossless(checked | {"mismatches": 3}).startswith("Not lossless: 3 mismatches")
    assert sentences.lossless(checked | {"tokens_compared": 0}).startswith("Not checked")


def test_replay_and_live_report_the_worst_controller(numbers):
    rows = numbers["replay_vs_live"]
    assert sentences.replay_error(rows).endswith("off by at most 3.2 % (LTD).")
    plain = {
        "controller": "autoregressive",
        "predicted_tokens_per_second": 440.0,
        "measured_tokens_per_second": 400.0,
    }  # a machine that got slower: 10 % off, and so is 1.013 / 1.1 = 0.921, 0.968 / 1.1 = 0.880
    said = sentences.replay_error([*rows, plain])
    assert "off by at most 10.0 % (autoregressive)" in said
    assert said.endswith("as speedup over plain decoding in the same run, by 12.0 %.")


def test_the_terminal_table_fits_a_terminal(numbers):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(tables.terminal_table(numbers))
    text = console.export_text()
    assert (
        "…" not in text and "1.62–1.71" in text and text.count("LTD") == len(synthetic_report.TASKS)
    )


def test_shares_add_up(numbers):
    row = numbers["methods"][3]
    texts = tables.cells(row)
    parts = [texts.draft, texts.verify, texts.policy, texts.rest]
    assert sum(float(part.removesuffix(" %")) for part in parts) == pytest.approx(100, abs=0.2)
    assert tables.cells(numbers["methods"][0]).interval == "–"


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_headline_picture(numbers, tmp_path, ending, start):
    path = tmp_path / f"headline{ending}"
    report.headline_picture(numbers, path)
    assert path.read_bytes().startswith(start)
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        report.headline_picture(numbers, tmp_path / "headline.bmp")
