"""The figures that need no training, in their smallest size."""

import shutil

from experiments.paper import figure2_costs, figure5_acceptance, figure7_domains
from tests.system import tiny_pair


def test_costs_beside_the_papers(run_tiny, tiny_trained, tmp_path):
    shutil.copy(tiny_trained / "latency.json", tmp_path)
    flags = [f"--widths.{name}" for name in ("size-actor", "depth-actor")]
    written, printed = run_tiny(figure2_costs, tmp_path, *tiny_pair.FLAGS, flags[0], 4, flags[1], 4)
    parts = [(row["part"], row["at"]) for row in written["rows"]]
    assert parts == [("draft", 1), ("draft", 2), ("verify", 0), ("verify", 2)]
    assert all(row["milliseconds"] > 0 for row in written["rows"])
    assert len(written["paper"]) > 10 and "Vicuna" in printed
    assert (tmp_path / "results" / "figure2_costs.png").read_bytes().startswith(b"\x89PNG")


def test_acceptance_and_domains(run_tiny, tiny_trained, tmp_path):
    written, _ = run_tiny(figure5_acceptance, tmp_path, "--split", "all", *tiny_pair.FLAGS)
    assert [(row["levels"], row["size"]) for row in written["rows"]] == [
        (1, 0),
        (1, 2),
        (2, 0),
        (2, 2),
    ]
    assert all(row["committed"] >= 1 for row in written["rows"])
    written, printed = run_tiny(figure7_domains, tiny_trained, "--split", "all")
    assert [row["domain"] for row in written["rows"]] == ["a"]
    assert written["rows"][0]["ltd_over_eagle3"] > 0 and "of 1 domains" in printed
