"""The tiny pair as experiments find it: measured and trained, with random weights."""

import json

import jax
import pytest

from ltd_jax import files
from ltd_jax.config import PolicyConfig
from ltd_jax.models import pair as pairs
from ltd_jax.policies import networks, saved
from ltd_jax.replay import latency
from tests.experiments import study_folder
from tests.replay import synthetic
from tests.system import tiny_pair
from tests.system.tiny_pair import CYCLE

WIDTHS = PolicyConfig((4,), (4,), (4,), (4,))


@pytest.fixture(scope="session")
def tiny_trained(tmp_path_factory, whole):
    """What `ltd train` leaves for the tiny pair; only to be read, but for results."""
    out = tmp_path_factory.mktemp("trained")
    table = synthetic.table(CYCLE)
    pair = pairs.load(whole / "target", whole / "draft", cycle=CYCLE)
    origin = {"fingerprint": pair.fingerprint, "device": files.device_name(), "dtype": "float32"}
    table.provenance.update(origin)
    latency.save(table, out / "latency.json")
    best = {"levels": 1, "size": 2, "tokens_per_second": 1.0}
    origin |= {"latency": latency.fingerprint(table), "best": best, "learning": {}}
    policy = networks.init(jax.random.key(0), CYCLE, WIDTHS)
    saved.save(policy, out / "policy.safetensors", CYCLE, origin | {"sampling": None})
    return out


@pytest.fixture
def run_tiny(whole, tmp_path, monkeypatch, capsys):
    """Runs an experiment on the tiny pair and one question; returns what it wrote and printed."""

    def run(module, out, *arguments):
        asked = tmp_path / "asked"
        asked.mkdir(exist_ok=True)
        (asked / "mine.jsonl").write_text(tiny_pair.QUESTION + "\n")
        pair = ("--target", whole / "target", "--draft", whole / "draft", "--dtype", "float32")
        where = ("--out", out, "--questions", asked, "--new-tokens", 12)
        study_folder.run(module, monkeypatch, *map(str, (*pair, *where, *arguments)))
        name = module.__name__.split(".")[-1]
        written = json.loads((out / "results" / f"{name}.json").read_text())
        assert written["experiment"] == name and written["schema"] == 1
        return written, capsys.readouterr().out

    return run
