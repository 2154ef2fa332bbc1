"""README and docs/ say what is so: links, methods, tables, the order of the numbers."""

import re
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from experiments.studies import when_it_pays
from ltd_jax.baselines import catalogue, classifiers
from ltd_jax.baselines.catalogue import Needs
from ltd_jax.baselines.cost_aware import costs_of
from ltd_jax.config import ObservationConfig
from ltd_jax.decoding import methods
from ltd_jax.policies import observe
from ltd_jax.presets import EMBEDDED_CYCLE, PAPER_CYCLE, SORTED
from ltd_jax.replay.latency import LatencyTable

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = (re.sub(r"[^\w\- ]", "", head.lower()) for head in HEADING.findall(page.read_text()))
    return {head.replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = page.parent / path if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_every_page_is_named_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"](docs/{page.name})" in readme for page in PAGES[1:])
    assert len(readme.splitlines()) <= 150


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its kind."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of the tables in a text, without heads."""
    cells = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(text)]
    ruled = [at for at, row in enumerate(cells) if set("".join(row)) <= set("-: ")]
    return [row for at, row in enumerate(cells) if at not in ruled and at + 1 not in ruled]


def published(name: str, cycle) -> dict[str, str]:
    """A compared method's settings as one writes them after its name."""
    drawn = classifiers.init(jax.random.key(0), cycle, 4, 4, {})
    table = LatencyTable.find("h100-llama-3.1-8b-modelled", cycle)
    policy = catalogue.find(name).published(cycle, Needs(drawn, costs_of(table)))
    written = lambda value: (
        "/".join(map(written, value)) if isinstance(value, tuple) else f"{float(value):g}"
    )
    return {key: written(value) for key, value in catalogue.settings(policy).items()}


@pytest.mark.parametrize("name", catalogue.NAMES)
def test_the_method_reference_has_the_settings_of_the_code(name):
    text = section("method-reference.md", name)
    paper, embedded = (published(name, cycle) for cycle in (PAPER_CYCLE, EMBEDDED_CYCLE))
    found = {row[0].strip("`"): row[1:] for row in rows(text)}
    assert {key: cells[0] for key, cells in found.items()} == paper
    assert {key: cells[1] for key, cells in found.items()} == embedded
    assert all(cells[2] for cells in found.values())
    for paper_id in re.findall(r"\d{4}\.\d{5}", catalogue.find(name).source):
        assert f"https://arxiv.org/abs/{paper_id}" in text


def test_the_method_reference_names_every_method():
    text = (ROOT / "docs" / "method-reference.md").read_text(encoding="utf-8")
    listed = " ".join(row[0] for row in rows(text.split("\n## ", 1)[0]))
    named = {name.partition(":")[0] for name in re.findall(r"`([^`]+)`", listed)}
    known = {*methods.PLAIN, *catalogue.NAMES, "constant", "eagle3", "sb3", "ltd train", "ltd tune"}
    assert named == known
    assert {name.partition(":")[0] for name in methods.OTHERS} <= known | {"ltd"}


@pytest.mark.parametrize("make", ["measured", "of_the_paper", "break_even", "batches"])
def test_the_tables_of_when_it_pays_are_those_of_the_results(make):
    page = (ROOT / "docs" / "when-it-pays.md").read_text(encoding="utf-8")
    assert getattr(when_it_pays, make)() in page


def test_one_sequence_costs_in_a_batch_what_it_costs_alone():
    table = LatencyTable.find("h100-llama-3.1-8b-modelled")
    row = table.contexts.tolist().index(when_it_pays.BATCH_CONTEXT)
    alone = table.cycle_seconds[row, 7, table.sizes.index(60)] / table.plain_seconds[row]
    assert when_it_pays.batch_cost("h100", 8, 60, 1) == pytest.approx(alone)
    costs = [when_it_pays.batch_cost("h100", 8, 60, batch) for batch in when_it_pays.BATCHES]
    assert costs == sorted(costs) and costs[-1] > 9


def test_the_order_of_an_observations_numbers_is_the_codes():
    text = section("checkpoints.md", "Policies")
    general, embedded = text.split("Of the preset of the pair that ships")
    order = [row[0].strip("`") for row in rows(general)]
    seen = {name: 1 if name in ("top_k_probs", "hidden") else True for name in vars(SORTED)}
    parts = observe.depth_parts(EMBEDDED_CYCLE, ObservationConfig(**seen))
    assert order == [part.name for part in parts]
    sizes = {}
    for column, parts in enumerate(
        (observe.depth_parts(EMBEDDED_CYCLE, SORTED), observe.size_parts(EMBEDDED_CYCLE, SORTED))
    ):
        first, places = 0, []
        for part in parts:
            last = first + part.count - 1
            places.append(str(first) if part.count == 1 else f"{first} to {last}")
            first += part.count
        sizes[column] = first
        assert [row[column] for row in rows(embedded)] == places
        assert [row[2].strip("`") for row in rows(embedded)] == [part.name for part in parts]
    assert f"these are {sizes[0]} numbers for the depth policy and {sizes[1]} for" in embedded


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("says", "given", "extras"),
    [
        ("CUDA Version: 12.8", (), "[dev,cuda12]"),
        ("CUDA Version: 13.0", (), "[dev,cuda13]"),
        ("CUDA UMD Version: 13.1", (), "[dev,cuda13]"),
        ("CUDA Version: 12.8", ("EXTRA=",), "[dev]"),
        ("CUDA Version: 12.8", ("EXTRA=tpu",), "[dev,tpu]"),
    ],
)
def test_make_installs_jax_for_the_accelerator(tmp_path, monkeypatch, says, given, extras):
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f'#!/bin/sh\necho "| NVIDIA-SMI 1.2    {says} |"\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    command = ["make", "--dry-run", "quickstart", f"VENV={tmp_path}/venv", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"--editable '.{extras}'" in done.stdout
