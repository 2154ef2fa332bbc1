"""The study of policies at temperature 1 in its smallest size: all kinds of texts teach."""

import json

from experiments.studies import study_sampled_policies
from ltd_jax import files
from ltd_jax.config import SamplingConfig, describe_sampling
from ltd_jax.models import pair as pairs
from ltd_jax.replay import latency
from tests.experiments import study_folder
from tests.replay import synthetic
from tests.system import tiny_pair

SMALL = (
    "--repeats 1 --prompts 1 --new-tokens 12 --dtype float32 --temperature 1 "
    "--widths.size-actor 4 --widths.depth-actor 4 --learning.algorithm exact "
    "--learning.exact.updates 1 --learning.exact.environments 8 --learning.exact.cycles 2 "
    "--learning.exact.steps 2 --learning.exact.minibatch 8 --learning.validate-every 1"
).split()
KINDS = ("expected", "drawn", "greedy")


def test_policies_learn_from_every_kind_of_texts(whole, tmp_path, monkeypatch, capsys):
    asked, out = tmp_path / "asked", tmp_path / "out"
    for split in ("train", "validation", "test"):
        (asked / split).mkdir(parents=True)
        (asked / split / "mine.jsonl").write_text(tiny_pair.QUESTION + "\n")
    out.mkdir()
    table = synthetic.table(tiny_pair.CYCLE)
    fingerprint = pairs.load(whole / "target", whole / "draft", cycle=tiny_pair.CYCLE).fingerprint
    table.provenance.update(
        fingerprint=fingerprint,
        device=files.device_name(),
        sampling=describe_sampling(SamplingConfig(temperature=1.0)),
    )
    latency.save(table, out / "latency.json")
    pair = ("--target", whole / "target", "--draft", whole / "draft", "--questions", asked)
    flags = (*pair, "--out", out, *tiny_pair.FLAGS, *SMALL)
    study_folder.run(study_sampled_policies, monkeypatch, *map(str, flags))
    found = json.loads((out / "study.json").read_text())
    named = [row["policies"] for row in found["rows"]]
    assert named[2:] == [f"ltd of {kind} texts" for kind in KINDS]
    assert all(name.startswith("constant of ") for name in named[:2])
    assert found["rows"][0]["expected"]["over_best_constant"] == 1
    assert all(row[kind]["tokens_per_second"] > 0 for row in found["rows"] for kind in KINDS[:2])
    assert set(found["means"]) == set(named)
    assert "ltd of expected texts" in capsys.readouterr().out
