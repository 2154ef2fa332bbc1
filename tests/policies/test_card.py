"""The card of a policy file: the facts of the file, and how to use it."""

import json
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax import cli
from ltd_jax.config import CycleConfig, ObservationConfig, PolicyConfig
from ltd_jax.files import UserError
from ltd_jax.policies import card, networks, observe, saved
from tests.policies import views
from tests.system import refusing

CYCLE = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 2, 5), context=50, prefill_chunk=8)
SEEN = ObservationConfig(
    node_probs=True,
    top_k_probs=3,
    expected_tokens=True,
    entropy=True,
    root_entropy=True,
    hidden=2,
    levels=True,
    length=True,
    acceptance_ema=True,
)
FACTS = {
    "fingerprint": "pair-1",
    "latency": "table-1",
    "device": "a machine",
    "dtype": "bfloat16",
    "sampling": None,
    "best": {"levels": 2, "size": 5, "tokens_per_second": 120.0},
    "learning": {"decisions": 4096, "seconds": 3.25},
    "validation": {"texts": 7, "plain": 100.0, "learned": 132.0, "optimum": 150.0},
    "pair": ["my target", "my draft"],
    "loaded_with": {"target": "my models/target", "feature_layers": [1, 2, 3], "devices": 2},
    "environment": {"date": "2026-01-02", "ltd_jax": "0.1.0", "command": "ltd train"},
}


def written(path, facts):
    policy = networks.init(jax.random.key(0), CYCLE, PolicyConfig((8,), (8,), (8,), (8,), SEEN))
    saved.save(policy, path, CYCLE, facts)
    return saved.load(path)


@pytest.fixture
def policies(tmp_path):
    return written(tmp_path / "policy.safetensors", FACTS)


def test_the_card_says_what_the_file_holds(policies):
    path = card.write(policies)
    text = path.read_text()
    assert path == policies.path.with_name("policy.md")
    for words in (
        *("my target with my draft, fingerprint pair-1", "| a machine |", "| bfloat16 |"),
        *("table-1", "greedy decoding", "sizes 0/2/5", "4,096 decisions in 3.2 s"),
        "7 texts of the validation split",
        "1.100 times as fast as the best constant setting, 40% of the way",
        "| best constant setting (levels 2, size 5) | 120.0 | 1.200x | 1.000x |",
        "| these policies | 132.0 | 1.320x | 1.100x |",
        "0 = stop and verify, 1 = draft another level",
        "0 = 0, 1 = 2, 2 = 5",
        "Written by ltd_jax 0.1.0 at 2026-01-02 with ``` ltd train ```",
    ):
        assert words in " ".join(text.split()), words
    assert "not said" not in text and "None" not in text


def test_a_card_names_the_constant_where_that_is_faster(tmp_path):
    slow = FACTS | {"validation": FACTS["validation"] | {"learned": 114.0}}
    text = card.markdown(card.facts(written(tmp_path / "policy.safetensors", slow)))
    assert "0.950 times as fast as the best constant setting, so decode with " in " ".join(
        text.split()
    )
    assert "constant:levels=2,size=5 instead" in text and "of the way" not in text


def test_the_command_and_the_lines_name_the_pair_that_it_was_trained_for(policies):
    use = card.facts(policies)["use"]
    assert shlex.split(use["command"]) == [
        *("ltd", "generate", "--policy", str(policies.path), "--target", "my models/target"),
        *("--feature-layers", "1", "2", "3", "--devices", "2", "--prompt", card.PROMPT),
    ]
    assert use["command"] in card.markdown(card.facts(policies))
    assert use["python"][1] == (
        "pair = ltd.load(target='my models/target', feature_layers=(1, 2, 3), devices=2, "
        "cycle=policy.cycle)"
    )


def test_what_a_file_does_not_say_is_said_to_be_missing(tmp_path):
    bare = written(tmp_path / "other.safetensors", {"fingerprint": "pair-1"})
    known = card.facts(bare)
    assert known["validation"] is None and known["device"] is None
    text = card.markdown(known)
    assert text.count("not said in the file") == 7 and "`ltd bench` measures it" in text
    assert "None" not in text and "`not said" not in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"validation": {"texts": 7}},
        {"validation": FACTS["validation"] | {"plain": "fast"}},
        {"best": {"levels": 2, "size": 5, "tokens_per_second": 0.0}},
        {"learning": {"decisions": "many"}},
        {"loaded_with": 3},
        {"sampling": "warm"},
    ],
)
def test_facts_of_another_kind_are_one_sentence(tmp_path, wrong):
    with pytest.raises(UserError, match="is of another version"):
        card.facts(written(tmp_path / "policy.safetensors", FACTS | wrong))


def test_every_number_of_an_observation_is_where_its_part_says():
    """Each part alone gives the numbers that stand at its place among all parts."""
    random = np.random.default_rng(0)
    score_DWW = -random.random((4, 3, 3)).astype(np.float32)
    entropy_DW = random.random((4, 3)).astype(np.float32)
    history = jnp.arange(observe.history_width(SEEN), dtype=jnp.float32)
    level = views.level(score_DWW[2], 3, length=20, entropy_W=entropy_DW[2])
    tree = views.tree(score_DWW, 3, length=20, entropy_DW=entropy_DW)
    for parts, build, view in (
        (observe.depth_parts(CYCLE, SEEN), observe.depth_observation, level),
        (observe.size_parts(CYCLE, SEEN), observe.size_observation, tree),
    ):
        whole = np.asarray(build(view, history, CYCLE, SEEN))
        first = 0
        for part in parts:
            nothing = dict.fromkeys(vars(SEEN), False) | {"top_k_probs": 0, "hidden": 0}
            beside = "levels" if part.name == "hidden" else part.name  # it cannot stand alone
            alone = ObservationConfig(
                **nothing | {name: getattr(SEEN, name) for name in (part.name, beside)}
            )
            memory = history if part.name == "acceptance_ema" else jnp.zeros(0)
            numbers = np.asarray(build(view, memory, CYCLE, alone))[-part.count :]
            np.testing.assert_allclose(whole[first : first + part.count], numbers, rtol=1e-6)
            first += part.count
        assert first == len(whole)
    assert {part.name for part in observe.depth_parts(CYCLE, SEEN)} == set(vars(SEEN))


def test_policies_show_prints_the_card(policies, monkeypatch, capsys):
    card.write(policies)
    for named in (policies.path.parent, policies.path):
        shown = refusing.run("policies", monkeypatch, capsys, "show", named)
        assert shown.out == policies.path.with_name("policy.md").read_text() and shown.err == ""
    shown = refusing.run("policies", monkeypatch, capsys, "show", policies.path, "--json")
    assert json.loads(shown.out) == card.facts(policies)


def test_what_policies_show_refuses(policies, monkeypatch, capsys, tmp_path):
    say = lambda *arguments: refusing.refusal("policies", monkeypatch, capsys, *arguments)
    assert "There is no policy file" in say("show", tmp_path / "nowhere")
    written(policies.path, FACTS | {"validation": {"texts": 7}})
    assert "is of another version" in say("show", tmp_path)
    policies.path.write_bytes(policies.path.read_bytes()[:-3])
    assert "is damaged" in say("show", tmp_path)
    with pytest.raises(SystemExit) as end:
        refusing.run("policies", monkeypatch, capsys, "list", tmp_path)
    assert end.value.code == 2 and "policies" in cli.COMMANDS
