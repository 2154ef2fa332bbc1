"""The Python of docs/checkpoints.md and of a policy's card runs as printed."""

import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from ltd_jax import cli, workflow
from ltd_jax.draft_training import train as trainer
from ltd_jax.files import ASSETS
from ltd_jax.models import pair as pairs
from ltd_jax.policies import card, networks, saved
from tests.cycle import tiny
from tests.draft_training.small import TRAIN
from tests.experiments import study_folder
from tests.learning.small import EXACT, POLICY

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = PYTHON.findall(PAGE.read_text(encoding="utf-8"))


def norm(params, frozen, batch):
    """A loss of all parameters that compiles at once."""
    return sum(((leaf - batch) ** 2).sum() for leaf in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """runs/mine as a training leaves it, runs/pair as a draft's training does."""
    folder = tmp_path_factory.mktemp("checkpoints")
    mine, pair = study_folder.make(folder / "runs" / "mine"), folder / "runs" / "pair"
    stages = workflow.StageConfig(mine, study_folder.ASKED, POLICY, EXACT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        workflow.train_policies(
            pairs.load(cycle=study_folder.CYCLE),
            dataclasses.replace(stages, folder=Path("runs/mine")),
        )
    shutil.copytree(ASSETS / "draft", pair / "draft")
    start = tiny.pair(0).model.draft
    trainer.train(
        start.replace(embedding=None, target_token=None),
        norm,
        lambda step: np.float32(step),
        dataclasses.replace(TRAIN, tokens=2 * TRAIN.batch_tokens),
        pair / "draft-training",
        {},
    )
    return folder


def run(source, folder, monkeypatch):
    """The names that a snippet leaves, run in the folder."""
    monkeypatch.chdir(folder)
    names = {}
    exec(source, names)  # as printed
    return names


def snippet(word):
    """The only snippet with a word."""
    (found,) = [source for source in SNIPPETS if word in source]
    return found


@pytest.mark.parametrize("place", range(len(SNIPPETS)))
def test_every_snippet_runs(place, folder, monkeypatch, capsys):
    run(SNIPPETS[place], folder, monkeypatch)
    assert ("print(" in SNIPPETS[place]) == bool(capsys.readouterr().out)


def test_numpy_chooses_as_the_policies_do(folder, monkeypatch):
    names = run(snippet("def choose"), folder, monkeypatch)
    kept = saved.load(folder / "runs" / "mine" / "policy.safetensors")
    random = np.random.default_rng(0)
    actors = {
        "depth": (networks.depth_actor(POLICY), kept.policy.depth),
        "size": (networks.size_actor(kept.cycle, POLICY), kept.policy.size),
    }
    for policy, (actor, variables) in actors.items():
        for _ in range(8):
            numbers = random.normal(size=names["inputs"][policy]).astype(np.float32)
            logits = networks.output(actor, variables, numbers)
            assert names["choose"](policy, numbers) == int(np.argmax(logits))


def test_orbax_alone_gives_the_policies_of_the_file(folder, monkeypatch):
    kept = saved.load(folder / "runs" / "mine" / "policy.safetensors")
    for word in ('StandardCheckpointer().restore(f"{folder}/{step}/state")\nfirst', "Mesh"):
        best = run(snippet(word), folder, monkeypatch)["state"]["best"]
        for name in ("depth", "size"):
            jax.tree.map(
                np.testing.assert_array_equal,
                best[name]["actor"]["params"],
                getattr(kept.policy, name)["params"],
            )


def test_a_training_writes_the_card_of_its_policies(folder, monkeypatch):
    kept = saved.load(folder / "runs" / "mine" / "policy.safetensors")
    relative = dataclasses.replace(kept, path=Path("runs/mine/policy.safetensors"))
    known = card.facts(relative)
    text = (folder / "runs" / "mine" / "policy.md").read_text()
    assert text == card.markdown(known) and "embedded target with embedded draft" in text
    rates = known["validation"]["tokens_per_second"]
    assert rates["plain"] > 0 and rates["optimum"] >= max(rates["learned"], rates["best_constant"])
    (lines,) = PYTHON.findall(text)
    names = run(lines, folder, monkeypatch)
    assert names["policy"].cycle == study_folder.CYCLE == names["pair"].config.cycle
    assert len(next(names["steps"]).tokens) == 1
    asked = tyro.cli(cli.GenerateConfig, args=shlex.split(known["use"]["command"])[2:])
    assert (asked.policy, asked.prompt) == (str(relative.path), card.PROMPT)
