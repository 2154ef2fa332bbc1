"""paper.json holds every number of the paper once, and each can be reached by its table."""

import json
from pathlib import Path

import pytest

from experiments.report import page, paper
from tests.experiments.report import synthetic

NUMBERS = json.loads(Path(paper.__file__).with_name("paper.json").read_text())


def count(content):
    if isinstance(content, dict):
        return sum(map(count, content.values()))
    if isinstance(content, list):
        return sum(map(count, content))
    return isinstance(content, (int, float))


def test_no_number_is_lost():
    assert count(NUMBERS["tables"]) == 760 and count(NUMBERS) == 831
    ablations = (paper.TABLE2, paper.TABLE4, paper.TABLE6, paper.TABLE7, paper.TABLE8)
    every = (*paper.TABLE1, *paper.TABLE5, *paper.TABLE11, *ablations)
    assert len(every) == len(NUMBERS["tables"])
    assert sum(len(table.rows) for table in every) == 76
    for row in (row for table in every for row in table.rows.values()):
        assert len(row.cells) == len(paper.TASKS) == 4


def test_a_few_numbers_are_the_papers():
    assert [table.model for table in paper.TABLE1] == [
        "Llama-3.1-8B",
        "Vicuna-13B",
        "DeepSeek-R1-Distill-Llama-8B",
        "Qwen3-14B",
        "Qwen3-32B",
    ]
    assert paper.TABLE1[0].rows["ltd"].mean == (3.92, 6.56)
    assert paper.TABLE1[1].rows["eagle3"].cells[0] == (4.48, 7.22)
    assert paper.TABLE1[4].rows["best constant"].mean.speedup == 1.81
    assert paper.TABLE2.rows["accepted"].mean == (3.59, 6.89)
    assert paper.TABLE4.rows["without_size_policy"].mean.committed == 6.57
    assert paper.TABLE5[1].rows["disco"].cells[3] == (2.88, 4.59)
    assert paper.TABLE6.rows["P+D+L+H"].cells[2].speedup == 4.22
    assert paper.TABLE7.rows["iter3"].mean == (3.92, 6.56)
    assert paper.TABLE8.rows["iter2"].cells[1] == (4.94, 8.36)
    assert paper.TABLE9[1]["depth_milliseconds"] == 14.5
    assert paper.TABLE9[0]["size_share"] == 0.00483
    assert list(paper.TABLE10[2].values()) == ["1024-512-256", [3.96, 4.07, 4.43, 3.25], 3.93]
    assert paper.TABLE11[0].rows["ltd"].mean == (2.81, 4.89)
    assert paper.FIGURE2.draft[7] == 15.3 and paper.FIGURE2.verify[-1] == 53.1
    assert paper.FIGURE2.sizes == tuple(range(20, 201, 20))
    assert paper.FIGURE6[3]["deep_wide"] == 0.43


def test_means_are_about_the_means_of_the_tasks():
    for table in (*paper.TABLE2.rows.values(), *paper.TABLE7.rows.values()):
        mean = sum(cell.speedup for cell in table.cells) / len(table.cells)
        assert table.mean.speedup == pytest.approx(mean, abs=0.015)


def test_shares_of_figure_6_add_up():
    for row in paper.FIGURE6:
        assert sum(row[place] for place in paper.PLACES) == pytest.approx(1, abs=0.02)


def test_rows_as_json():
    rows = paper.as_json([paper.TABLE7, paper.TABLE8])
    assert len(rows) == 10 and {row["table"] for row in rows} == {"Table 7", "Table 8"}
    assert rows[2]["model"] == "Llama-3.1-8B" and rows[2]["method"] == "iter1"
    assert rows[2]["gsm8k"] == {"speedup": 3.8, "committed": 6.47}
    assert rows[2]["mean"] == {"speedup": 3.9, "committed": 6.26}


def test_the_ranges_beside_a_report_follow_from_the_tables():
    assert [row[2] for row in page.beside_paper(synthetic.numbers())] == [
        "2.37x–4.32x",
        "1.81x–4.22x",
        "3.68x–4.11x",
        "1.02x–1.09x, once 1.36x",
        "3.13–7.00",
        "1.2%–1.4%",
    ]
