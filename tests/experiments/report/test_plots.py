"""Pictures of the paper's figures and of the studies, from recorded and from made-up numbers."""

import itertools
import json
from pathlib import Path

import numpy as np

import experiments
from experiments.report import paper, plots
from tests.experiments.report import synthetic

RECORDED = Path(experiments.__file__).parent / "results" / "embedded-cpu"


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def drawn(figure):
    """A figure after its layout, with the box of its canvas."""
    assert plots.encode(figure).startswith(b"\x89PNG")
    figure.canvas.draw()
    return figure, figure.bbox


def check_texts(figure):
    """No text leaves the picture, and no two tick labels of an axis cover each other."""
    figure, box = drawn(figure)
    for axes in figure.axes:
        texts = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for text in (text for text in (*texts, figure._suptitle) if text and text.get_text()):
            extent = text.get_window_extent()
            assert extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1, text.get_text()
            assert extent.y0 >= box.y0 - 1 and extent.y1 <= box.y1 + 1, text.get_text()
        low, high = sorted(axes.get_xlim())
        places = zip(axes.get_xticks(), axes.get_xticklabels(), strict=False)  # shared: no labels
        shown = [text for place, text in places if low <= place <= high and text.get_text()]
        ends = [text.get_window_extent() for text in shown]
        assert all(one.x1 + 3 < other.x0 for one, other in itertools.pairwise(ends))


def test_part_costs():
    found = recorded("figure2_costs")
    figure = plots.part_costs(found["rows"], found["paper"], paper.FIGURE2.model)
    check_texts(figure)
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert labels == ["here, draft", "paper, Vicuna-13B", "here, verify"]


def test_acceptance_names_its_lines():
    sizes = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)
    levels_D, size_V = np.arange(1, 9.0), np.asarray(sizes, float)
    figure = plots.acceptance(1 + np.minimum(levels_D[:, None] / 2, np.log1p(size_V)), sizes)
    check_texts(figure)
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.texts]
    assert names == [f"size {size}" for size in sizes[1:]]
    heights = sorted(text.get_window_extent().y0 for text in axes.texts)
    assert min(np.diff(heights)) > 5  # pixels: labels of lines that meet stand apart
    assert (
        len(
            {
                line.get_color() if isinstance(line.get_color(), str) else tuple(line.get_color())
                for line in axes.lines
            }
        )
        == len(sizes) - 1
    )


def test_domains_of_a_single_text_are_hollow():
    rows = recorded("figure7_domains")["rows"]
    rows[0] |= {"low": 1.9, "high": 2.3}
    figure = plots.domains(rows)
    check_texts(figure)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    hollow = sum(line.get_markerfacecolor() == "white" for line in marks)
    assert len(marks) == len(rows) and hollow == sum(row["texts"] == 1 for row in rows)


def test_training_curves_and_interaction():
    figure = plots.training_curves(recorded("figure3_curves")["rows"])
    check_texts(figure)
    height = figure.axes[0].get_window_extent().height
    assert figure.axes[0].yaxis.label.get_window_extent().height < height
    found = recorded("figure6_interaction")
    panels = {}
    for row in found["rows"] + found["paper"]:
        panels.setdefault(row["policies"] + ("" if "cycles" in row else ", paper"), []).append(row)
    figure = plots.interaction(panels)
    check_texts(figure)
    assert figure.axes[-1].get_xlabel() == "levels" and figure.axes[0].get_ylabel() == "size"


def test_a_matrix_has_a_scale_and_readable_names():
    names = ["here", "a100-vicuna-13b-paper", "h100-llama-3.1-8b-modelled", "mine.json"]
    values = np.linspace(0.5, 1.1, 20).reshape(5, 4)
    figure = plots.matrix(values, [*names, "unseen"], names, "Moved", "run under", "trained for")
    check_texts(figure)
    labels = [text.get_text().replace("\n", " ") for text in figure.axes[0].get_xticklabels()]
    assert labels[:2] == ["this device", "A100, Vicuna-13B (paper)"] and labels[3] == "mine.json"
    assert len(figure.axes) == 2  # the second is the scale


def test_ways_of_learning_are_named_as_elsewhere():
    line = {"seconds": [1.0, 4.0, 30.0], "validation": [0.7, 1.0, 1.05]}
    names = [("alternate", "average"), ("joint", "paper"), ("exact", "average")]
    curves = [
        line | {"latency": table, "learning": learning, "reward": rewarded}
        for table in ("here", "a100-vicuna-13b-paper")
        for learning, rewarded in names
    ]
    figure = plots.learning_progress(curves)
    check_texts(figure)
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert labels == [
        "paper's order, average reward",
        "joint PPO, paper reward",
        "exact gradients, average reward",
    ]


def test_best_so_far_is_a_mean_over_seeds():
    rates = [np.asarray([1.0, 3.0, 2.0]), np.asarray([2.0, 1.0, 4.0])]
    assert plots.best_so_far(rates).tolist() == [1.5, 2.5, 3.5]


def test_all_methods():
    found = recorded("leaderboard")
    for heat in (0.0, 1.0):
        figure = plots.leaderboard(found["rows"], heat)
        check_texts(figure)
        order = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert order[::-1] == [row["method"] for row in plots.ranked(found["rows"], heat)]


def test_texts_on_heat_maps_are_clear():
    for draw in (
        plots.PLOTS[name] for name in ("throughput", "committed", "cycle_time", "choices")
    ):
        for axes in draw(synthetic.numbers(), synthetic.figures()).figure.axes:
            (image,) = axes.images
            for text in axes.texts:
                column, row = (int(place) for place in text.get_position())
                cell = image.cmap(image.norm(image.get_array()[row, column]))
                assert plots.contrast(text.get_color(), cell) >= 4.5


def test_a_dark_picture_has_clear_texts_and_leaves_the_figure_as_it_was():
    figure = plots.headline(synthetic.numbers())
    light = plots.encode(figure)
    assert plots.encode(figure, dark=True) != light and plots.encode(figure) == light
    for look in (lambda colour: colour, plots.DARK.get):
        assert plots.contrast(look(plots.TEXT), look(plots.PAGE)) >= 4.5
        assert plots.contrast(look(plots.FAINT), look(plots.PAGE)) >= 4.5
        for colour in plots.PARTS.values():
            assert plots.contrast(colour, look(plots.PAGE)) >= 3


def test_texts_of_a_report_are_whole():
    numbers, figures = synthetic.numbers(), synthetic.figures()
    check_texts(plots.headline(numbers, 9.0))
    for draw in plots.PLOTS.values():
        picture = draw(numbers, figures)
        check_texts(picture.figure)
        assert picture.shows.endswith(".")
