"""Tuning: what is chosen from numbers, what is said of them, and the file that remembers it."""

import dataclasses
import json

import numpy as np
import pytest

from ltd_jax import tune
from ltd_jax.config import CycleConfig
from ltd_jax.decoding.benchmark import Ratio
from ltd_jax.files import Identity, UserError
from ltd_jax.replay import latency, simulate
from ltd_jax.tune import Advice, ContextAdvice, MethodAdvice
from tests.replay import synthetic

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 5), context=32, prefill_chunk=8)
IDENTITY = {
    "fingerprint": "pair-1",
    "device": "a machine",
    "dtype": "float32",
    "latency": "table-1",
}


CONSTANT, LEARNED = Ratio(1.15, 1.1, 1.2), Ratio(1.25, 1.2, 1.3)  # live, with 95 % intervals
OVERLAPPING = (Ratio(1.226, 1.0, 1.6), Ratio(1.222, 0.89, 2.09))


def method(name, rate, levels=None, size=None, live=None):
    return MethodAdvice(name, rate, rate / 100, levels, size, live)


def advice(
    chosen="ltd",
    best=120.0,
    learned=126.0,
    contexts=((64, 1.2), (256, 1.1)),
    live=(CONSTANT, LEARNED),
    over=None,
) -> Advice:
    return Advice(
        environment={"date": "today"},
        identity=IDENTITY,
        methods=(
            method("autoregressive", 100.0),
            method("eagle3", 80.0, 5, 16),
            method("best_constant", best, 1, 3, live[0]),
            method("ltd", learned, live=live[1]),
            method("optimum", 150.0),
        ),
        live_over_constant=over,
        contexts=tuple(ContextAdvice(tokens, 1, 3, ratio) for tokens, ratio in contexts),
        chosen=chosen,
        share_of_gap=0.2,
        seconds=100.0,
    )


def test_a_learned_policy_that_is_worth_it():
    assert tune.sentences(advice("ltd")) == [
        "By replay the best constant setting here is 1 level and size 3: 1.20x plain decoding, and "
        "1.50x EAGLE-3's default of 5 levels and size 16.",
        "Learned policies are 1.05x the best constant by replay, not checked live.",
        "A choice that knows the text would be 1.25x the best constant; the policies go 20% of "
        "that way.",
        "By replay speculation pays at every measured length of context: 1.20x at 64 tokens (1 "
        "level and size 3), 1.10x at 256 tokens (1 level and size 3).",
        "Use the learned policies: 1.26x plain decoding by replay, live 1.25x (95% interval 1.20 "
        "to 1.30).",
    ]


@pytest.mark.parametrize(
    ("learned", "words"), [(120.1, "add nothing"), (110.0, "0.92x the best constant by replay")]
)
def test_a_learned_policy_that_is_not(learned, words):
    lacking = advice("best_constant", learned=learned, live=(None, None))
    assert words in tune.sentences(lacking)[1]
    assert tune.choose(lacking.methods) == "best_constant"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.01, 1.05, "faster"), (0.98, 1.05, "unclear"), (0.9, 0.95, "disputed")],
)
def test_a_ratio_prompt_by_prompt_decides_before_the_two_intervals(low, high, verdict):
    over = Ratio((low + high) / 2, low, high)
    found = advice(learned=123.6, live=OVERLAPPING, over=over)
    assert tune.compare(found.of("ltd"), found.of("best_constant"), over) == verdict
    said = tune.sentences(found)[1]
    assert f"live {over.ratio:.2f}x (95% interval {low:.2f} to {high:.2f})" in said
    assert ("worth using" in said) == (verdict == "faster")
    assert ("take the constant" in said) == (verdict != "faster")
    chosen = "ltd" if verdict == "faster" else "best_constant"
    assert tune.choose(found.methods, over) == chosen


@pytest.mark.parametrize("learned", [120.0, 126.0, 114.0])
@pytest.mark.parametrize("over", [Ratio(1.03, 0.97, 1.09), Ratio(1.3, None, None)])
def test_no_verdict_goes_beyond_its_interval(learned, over):
    """Whatever replay says, an interval that holds 1 never makes learned policies worth using."""
    found = advice(learned=learned, live=OVERLAPPING, over=over)
    said = tune.sentences(found)[1]
    assert "worth using" not in said and "do not use" not in said
    assert tune.choose(found.methods, over) == "best_constant"


def test_without_a_live_check_replay_decides_alone():
    assert tune.choose(advice(live=(None, None)).methods) == "ltd"
    slow = advice(best=98.0, learned=97.0, live=(None, None))
    assert tune.choose(slow.methods) == "autoregressive"


def test_the_fastest_by_replay_is_chosen_among_three():
    methods = [
        method("autoregressive", 100.0),
        method("eagle3", 500.0, 5, 16),  # no candidate: the best constant is never slower
        method("best_constant", 120.0, 1, 3),
        method("ltd", 119.0),
        method("optimum", 900.0),
    ]
    assert tune.choose(methods) == "best_constant"


@pytest.mark.parametrize(("high", "chosen"), [(0.98, "autoregressive"), (1.02, "ltd")])
def test_a_choice_that_is_surely_slower_live_is_not_made(high, chosen):
    found = advice(learned=130.0, live=(Ratio(0.8, 0.7, 0.8), Ratio(0.95, 0.9, high)))
    assert tune.choose(found.methods) == chosen


def test_a_live_interval_around_one_is_said_to_show_nothing():
    said = tune.sentences(advice("best_constant", live=OVERLAPPING))[-1]
    assert said == (
        "Use the best constant setting: 1.20x plain decoding by replay; live it is not "
        "distinguishable from plain decoding, 1.23x (95% interval 1.000 to 1.600), and more live "
        "prompts would tell."
    )
    single = advice("best_constant", live=(Ratio(1.3, None, None), None))
    assert "not distinguishable" in tune.sentences(single)[-1]
    assert "one prompt per task has no interval" in tune.sentences(single)[-1]


@pytest.mark.parametrize(("speedup", "says"), [(1.2, "pays"), (0.9, "does not pay")])
def test_one_context(speedup, says):
    sentence = tune.sentences(advice("best_constant", contexts=((64, speedup),)))[3]
    assert sentence == (
        f"By replay speculation {says} with these caches: {speedup:.2f}x at 64 tokens (1 level and "
        "size 3)."
    )


def test_where_speculation_does_not_pay():
    some = tune.sentences(advice("autoregressive", contexts=((64, 1.2), (256, 0.9))))
    assert some[3].startswith("By replay speculation pays only at a context of 64 tokens: ")
    none = tune.sentences(advice("autoregressive", contexts=((64, 0.8), (256, 0.9))))
    assert none[3].startswith("By replay speculation pays at no measured length of context")
    assert none[4].startswith("Decode without a draft here: nothing is shown to be faster than")


def test_the_best_constant_of_one_of_a_tables_contexts():
    config = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 4, 8), context=64)
    table = synthetic.table(config)
    simulator = simulate.build(synthetic.trace(config), table, config)
    for row, context in enumerate(table.contexts.tolist()):
        there = lambda field, tokens=context: latency.interpolate(table, field, np.array([tokens]))
        only = dataclasses.replace(
            table,
            contexts=table.contexts[row : row + 1],
            **{
                name: there(getattr(table, name))
                for name in ("cycle_seconds", "draft_seconds", "verify_seconds", "plain_seconds")
            },
        )
        best = tune.optimum.best_constant(simulate.with_latency(simulator, only))
        advised = tune._at_context(simulator, table, row)
        assert (advised.context, advised.levels, advised.size) == (context, best.levels, best.size)
        plain = float(table.plain_seconds[row])
        assert advised.speedup == pytest.approx(best.tokens_per_second * plain)


@pytest.fixture
def path(tmp_path):
    tune.save_settings(tmp_path / "settings.json", advice("ltd"), CYCLE)
    return tmp_path / "settings.json"


def test_settings_come_back_also_from_another_place(path, tmp_path):
    settings = tune.load_settings(path)
    assert (settings.path, settings.cycle) == (path, CYCLE)
    there = Identity(pair="pair-1", device="a machine", dtype="float32", latency="table-1")
    assert settings.identity == there
    moved = tmp_path / "elsewhere" / "settings.json"
    moved.parent.mkdir()
    path.rename(moved)
    policy = tmp_path / "elsewhere" / "policy.safetensors"
    assert tune.load_settings(moved).policy_file == policy
    assert json.loads(moved.read_text())["environment"] == {"date": "today"}


@pytest.mark.parametrize(
    ("chosen", "name"),
    [("best_constant", "constant:levels=1,size=3"), ("autoregressive", "autoregressive")],
)
def test_settings_without_a_policy_file(path, chosen, name):
    tune.save_settings(path, advice(chosen), CYCLE)
    settings = tune.load_settings(path)
    assert settings.policy == name and settings.policy_file is None


def test_settings_of_former_versions_are_read(path):
    record = json.loads(path.read_text())
    del record["policy"]
    former = record | {"controller": "constant:levels=1,size=3", "policies": None}
    path.write_text(json.dumps(former))
    assert tune.load_settings(path).policy == "constant:levels=1,size=3"
    path.write_text(json.dumps(former | {"controller": "ltd", "policies": "policies"}))
    with pytest.raises(UserError, match="policies are of another version"):
        tune.load_settings(path)


def test_settings_are_only_for_their_pair_and_device(path):
    settings = tune.load_settings(path)
    here = Identity(pair="pair-1", device="a machine", dtype="float32", sampling="any")
    check = lambda other_hardware, **changes: tune.check_settings(
        settings, dataclasses.replace(here, **changes), other_hardware=other_hardware
    )
    check(False)
    with pytest.raises(UserError, match="tuned for pair pair-1, not pair-2"):
        check(True, pair="pair-2")
    for changes, words in (
        ({"device": "another"}, "for a machine, not another; .*`allow_other_hardware`"),
        ({"dtype": "bfloat16"}, "in float32, not .* in bfloat16; .*`allow_other_hardware`"),
    ):
        with pytest.raises(UserError, match=words):
            check(False, **changes)
        with pytest.warns(UserWarning, match="may be slow here"):
            check(True, **changes)


def test_what_is_wrong_with_settings_is_named(path):
    record = json.loads(path.read_text())
    cases = {
        "{": "no settings file or is truncated",
        "[]": "has schema None",
        json.dumps(record | {"schema": 9}): "has schema 9",
        json.dumps({key: record[key] for key in record if key != "device"}): "lacks 'device'",
        json.dumps(record | {"cycle": {"width": 3}}): "damaged",
        json.dumps(record | {"cycle": {"sizes": [3, 2]}}): "damaged",
    }
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            tune.load_settings(path)
    path.unlink()
    with pytest.raises(UserError, match="Cannot read the settings"):
        tune.load_settings(path)
